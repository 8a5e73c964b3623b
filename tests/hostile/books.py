"""Hostile books."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from hostile.hostile import Hostile, prose, scaled

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
    '<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)


def chapter(number: int, text: str | None = None) -> str:
    """A page of XHTML, with a title that a parser of HTML would never leave."""
    body = f"<h1>Chapter {number}</h1><p>{prose(number) if text is None else text}</p>"
    return f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{body}</body></html>'


def package(references: list[str], *, more: str = "", kind: str = "application/xhtml+xml") -> str:
    """A package document whose spine is these references."""
    items = "".join(f'<item id="i{n}" href="{name}" media-type="{kind}"/>' for n, name in enumerate(references))
    spine = "".join(f'<itemref idref="i{n}"/>' for n in range(len(references)))
    return (
        f'{more}<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/>'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )


def zipped(members: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return written.getvalue()


def book(number: int, **members: str | bytes | None) -> dict[str, str | bytes]:
    """The members of a sound book of so many chapters; those that are named replace others, None takes one away."""
    names = [f"c{n}.xhtml" for n in range(number)]
    sound: dict[str, str | bytes | None] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": package(names),
        **{f"OEBPS/{name}": chapter(n) for n, name in enumerate(names)},
        **members,
    }
    return {name: data for name, data in sound.items() if data is not None}


def written(folder: Path, data: bytes, documents: int | None, **reasons: int) -> Hostile:
    """The set of a book."""
    (folder / "x.epub").write_bytes(data)
    return Hostile(kind="epub", path=folder / "x.epub", documents=documents, reasons=reasons)


def epub_without_container(folder: Path, scale: float) -> Hostile:
    """Pages without a word on which is first."""
    return written(folder, zipped(book(3, **{"META-INF/container.xml": None})), 0, no_container=1)


def epub_without_package(folder: Path, scale: float) -> Hostile:
    """A container that names nothing."""
    return written(folder, zipped(book(3, **{"OEBPS/book.opf": None})), 0, no_package=1)


def epub_without_spine(folder: Path, scale: float) -> Hostile:
    """A package without an order."""
    return written(folder, zipped(book(3, **{"OEBPS/book.opf": package([])})), 0, no_spine=1)


def epub_protected(folder: Path, scale: float) -> Hostile:
    """Encrypted chapters and a scrambled font; one chapter is free."""
    names = ["OEBPS/c0.xhtml", "OEBPS/c2.xhtml", "OEBPS/font.otf"]
    listed = "".join(f'<e:CipherReference xmlns:e="urn:e" URI="{name}"/>' for name in names)
    members = book(3, **{"META-INF/encryption.xml": f"<encryption>{listed}</encryption>", "OEBPS/font.otf": b"\1" * 99})
    return written(folder, zipped(members), 1, encrypted=2)


def epub_of_entities(folder: Path, scale: float) -> Hostile:
    """A package that grows to 3 GB, and reads a file of the machine."""
    lines = [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    bomb = f'<!DOCTYPE p [<!ENTITY a0 "aaa"><!ENTITY f SYSTEM "file:///etc/passwd">{"".join(lines)}]>'
    names = [f"c{n}.xhtml" for n in range(3)]
    data = package(names, more=bomb).replace("<metadata/>", "<metadata><title>&a9;&f;</title></metadata>")
    return written(folder, zipped(book(3, **{"OEBPS/book.opf": data})), None)


def epub_of_deep_xml(folder: Path, scale: float) -> Hostile:
    """A package of elements in elements."""
    depth = scaled(1_000_000, scale)
    data = package(["c0.xhtml"]).replace("<metadata/>", "<a>" * depth + "</a>" * depth)
    return written(folder, zipped(book(1, **{"OEBPS/book.opf": data})), None)


def epub_that_leaves_the_book(folder: Path, scale: float) -> Hostile:
    """Chapters by names that lead out of it, names that are not there, one chapter twice."""
    names = [
        "c0.xhtml",
        "../../../etc/passwd",
        "/etc/passwd",
        "nowhere.xhtml",
        "c0.xhtml#part",
        "c%31.xhtml",
        "http://[x",
    ]
    members = book(2, **{"OEBPS/book.opf": package(names), "../../../etc/passwd": "x"})
    return written(folder, zipped(members), 2, missing_chapter=2)


def epub_bomb(folder: Path, scale: float) -> Hostile:
    """A chapter of 2 GB in 2 MB, and one below the limit that is blank."""
    size = scaled(2e9, scale, least=25_000_000)
    members = book(3, **{"OEBPS/c1.xhtml": b" " * size, "OEBPS/c2.xhtml": b" " * 15_000_000})
    return written(folder, zipped(members), 1, file_too_large=1, unpacked_too_large=1)


def epub_of_many_chapters(folder: Path, scale: float) -> Hostile:
    """A hundred thousand chapters."""
    number = scaled(100_000, scale)
    return written(folder, zipped(book(number)), number)


def epub_cut_off(folder: Path, scale: float) -> Hostile:
    """A book without its end."""
    data = zipped(book(9))
    return written(folder, data[: len(data) // 2], 0, corrupt_archive=1)


def epub_damaged_chapter(folder: Path, scale: float) -> Hostile:
    """Noise in the middle of a chapter."""
    data = zipped(book(9))
    at = data.find(b"OEBPS/c4.xhtml") + 60
    return written(folder, data[:at] + b"\xff" * 20 + data[at + 20 :], 8, corrupt_member=1)


def epub_that_is_a_page(folder: Path, scale: float) -> Hostile:
    """A page that somebody called a book."""
    return written(folder, chapter(1).encode(), 0, corrupt_archive=1)


SETS = [
    epub_without_container, epub_without_package, epub_without_spine, epub_protected, epub_of_entities, epub_of_deep_xml,
    epub_that_leaves_the_book, epub_bomb, epub_of_many_chapters, epub_cut_off, epub_damaged_chapter, epub_that_is_a_page,
]  # fmt: skip
