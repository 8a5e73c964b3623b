"""Hostile archives of files of any format."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

from hostile.books import zipped
from hostile.hostile import Hostile, prose, scaled
from hostile.trees import END, head, whole


def written(folder: Path, data: bytes, documents: int | None, name: str = "x.zip", **reasons: int) -> Hostile:
    """The set of an archive."""
    (folder / name).write_bytes(data)
    return Hostile(kind="archive", path=folder / name, documents=documents, reasons=reasons)


def texts(number: int) -> dict[str, str | bytes]:
    """Sound members."""
    return {f"texts/{n}.txt": prose(n) for n in range(number)}


def patched(data: bytes, name: str, at: int, value: bytes) -> bytes:
    """The archive with other bytes in the line of its directory about a member."""
    place = data.rfind(name.encode()) - 46 + at
    return data[:place] + value + data[place + len(value) :]


def zip_bomb(folder: Path, scale: float) -> Hostile:
    """Members of 200 MB in 200 kB, and one of 4 GB that says so."""
    blank = b"\0" * scaled(200_000_000, scale, least=2_000_000)
    data = zipped({"a.txt": blank, "b.txt": prose(1), "c.txt": prose(2)})
    data = patched(data, "c.txt", 24, struct.pack("<L", 0xFFFFFFFE))
    return written(folder, data, 1, unpacked_too_large=1, file_too_large=1)


def zip_of_overlaps(folder: Path, scale: float) -> Hostile:
    """Ten thousand members that are the same megabyte."""
    number = scaled(10_000, scale)
    data = zipped({f"{n:05}.txt": b"a" if n else bytes(range(256)) * 4000 for n in range(number)})
    for n in range(1, number):
        data = patched(data, f"{n:05}.txt", 42, bytes(4))
    return written(folder, data, None)


def zip_with_odd_names(folder: Path, scale: float) -> Hostile:
    """Names that leave the archive or the terminal, hidden ones, one name twice, a folder called like a file, an archive, a link."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as opened:
        names = ["../../up.txt", "/etc/abs.txt", "C:\\x.txt", "a\nb\x1b[31m.txt", "same.txt", "sbme.txt", "x.txt/"]
        names += [".hidden.txt", "__MACOSX/._a.txt", "a.zip", "b.tar.gz", "noname", "c.xyz"]
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(name)
            opened.writestr(info, "" if name.endswith("/") else prose(number))
        link = zipfile.ZipInfo("l.txt")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        opened.writestr(link, "/etc/passwd")
    twice = data.getvalue().replace(b"sbme.txt", b"same.txt")
    return written(folder, twice, 6, hidden_file=2, nested_archive=2, other_suffix=2, link=1)


def zip_with_password(folder: Path, scale: float) -> Hostile:
    """A member that is encrypted."""
    return written(folder, patched(zipped(texts(3)), "texts/1.txt", 8, b"\1\0"), 2, encrypted=1)


def zip_damaged_member(folder: Path, scale: float) -> Hostile:
    """Noise in the middle of a member, and another whose checksum is wrong."""
    data = zipped(texts(9))
    at = data.find(b"texts/4.txt") + 30
    data = patched(data[:at] + b"\xff" * 20 + data[at + 20 :], "texts/6.txt", 16, b"\0\1\2\3")
    return written(folder, data, 7, corrupt_member=2)


def zip_damaged_directory(folder: Path, scale: float) -> Hostile:
    """A directory of noise."""
    data = zipped(texts(9))
    at = data.find(b"PK\1\2")
    return written(folder, data[:at] + b"\xff" * 60 + data[at + 60 :], 0, corrupt_archive=1)


def zip_cut_off(folder: Path, scale: float) -> Hostile:
    """An archive without its directory."""
    data = zipped(texts(9))
    return written(folder, data[: len(data) // 2], 0, corrupt_archive=1)


def zip_of_many_files(folder: Path, scale: float) -> Hostile:
    """A hundred thousand files."""
    number = scaled(100_000, scale)
    return written(folder, zipped(texts(number)), number)


def tar_of_many_formats(folder: Path, scale: float) -> Hostile:
    """A tar of a page, a table, a ZIP, a book that is none, a source file, a hole, and one that is cut off."""
    page = f"<html><body><p>{prose(1)}</p></body></html>".encode()
    data = whole("p.html", page) + whole("t.csv", b"id,text\n1,a\n2,b\n") + whole("a.zip", zipped(texts(3)))
    data += (
        whole("b.epub", b"no book") + whole("c.py", b"print(1)\n") + head("h.txt", 0, tarfile.SYMTYPE, "/etc/passwd")
    )
    data += head("cut.txt", 5000) + b"words " * 9
    reasons = {"nested_archive": 1, "corrupt_archive": 2, "tar_link": 1}
    return written(folder, data, 4, name="x.tar", **reasons)


def tar_that_is_empty(folder: Path, scale: float) -> Hostile:
    """Blocks of zeros."""
    return written(folder, END, 0, name="x.tar")


SETS = [
    zip_bomb, zip_of_overlaps, zip_with_odd_names, zip_with_password, zip_damaged_member, zip_damaged_directory, zip_cut_off,
    zip_of_many_files, tar_of_many_formats, tar_that_is_empty,
]  # fmt: skip
