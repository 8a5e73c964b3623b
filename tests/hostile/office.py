"""Hostile Word documents."""

from __future__ import annotations

import zipfile
from pathlib import Path

from hostile.books import zipped
from hostile.hostile import Hostile, prose, scaled

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
    "</Relationships>"
)
STYLES = f'<w:styles xmlns:w="{WORD}"><w:style w:type="paragraph" w:styleId="H1"><w:name w:val="heading 1"/></w:style></w:styles>'


def paragraph(text: str, style: str = "") -> str:
    """A paragraph, such as a heading of style H1."""
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f'<w:p>{properties}<w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def word(body: str, *, before: str = "", method: int = zipfile.ZIP_DEFLATED, **more: str | bytes) -> bytes:
    """A Word document with this body."""
    document = f'<?xml version="1.0"?>{before}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    parts: dict[str, str | bytes] = {
        "[Content_Types].xml": TYPES,
        "_rels/.rels": RELATIONS,
        "word/document.xml": document,
        "word/styles.xml": STYLES,
    }
    return zipped({**parts, **more}, method)


def written(folder: Path, data: bytes, documents: int | None, **reasons: int) -> Hostile:
    """The set of a document."""
    (folder / "x.docx").write_bytes(data)
    return Hostile(kind="docx", path=folder / "x.docx", documents=documents, reasons=reasons)


def docx_with_password(folder: Path, scale: float) -> Hostile:
    """A document that Word encrypted: an OLE file around the archive."""
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000) + "EncryptedPackage".encode("utf-16-le") + bytes(5000)
    return written(folder, data, 0, encrypted=1)


def docx_of_old_word(folder: Path, scale: float) -> Hostile:
    """A document of Word 97 that somebody renamed."""
    return written(folder, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(5000), 0, old_word_document=1)


def docx_nested(folder: Path, scale: float) -> Hostile:
    """Twenty thousand tables in tables."""
    depth = scaled(20_000, max(scale, 0.2))
    start, end = "<w:tbl><w:tr><w:tc>", "</w:tc></w:tr></w:tbl>"
    return written(folder, word(start * depth + paragraph("deep") + end * depth), 0, nested_too_deeply=1)


def docx_bomb(folder: Path, scale: float) -> Hostile:
    """200 MB of paragraphs in 200 kB."""
    number = scaled(200_000_000 / 66, scale, least=400_000)
    return written(folder, word(paragraph("word") * number), 0, unpacked_too_large=1)


def docx_of_entities(folder: Path, scale: float) -> Hostile:
    """Text that grows to 3 GB."""
    lines = [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    before = f'<!DOCTYPE p [<!ENTITY a0 "aaa">{"".join(lines)}]>'
    return written(folder, word(paragraph("&a9;"), before=before), 0, corrupt_file=1)


def docx_that_reads_files(folder: Path, scale: float) -> Hostile:
    """An entity that is a file of the machine."""
    (folder / "secret").write_text("a secret")
    before = f'<!DOCTYPE p [<!ENTITY f SYSTEM "file://{folder}/secret">]>'
    return written(folder, word(paragraph(f"{prose(1)}&f;"), before=before), None)


def docx_without_body(folder: Path, scale: float) -> Hostile:
    """An archive of something else."""
    return written(folder, zipped({"xl/workbook.xml": "<workbook/>"}), 0, corrupt_file=1)


def docx_of_bad_xml(folder: Path, scale: float) -> Hostile:
    """A body that is cut off."""
    return written(folder, word("<w:p><w:r><w:t>a"), 0, corrupt_file=1)


def docx_cut_off(folder: Path, scale: float) -> Hostile:
    """A document without its end."""
    data = word("".join(paragraph(prose(n)) for n in range(99)))
    return written(folder, data[: len(data) // 2], 0, corrupt_archive=1)


SETS = [
    docx_with_password, docx_of_old_word, docx_nested, docx_bomb, docx_of_entities, docx_that_reads_files, docx_without_body,
    docx_of_bad_xml, docx_cut_off,
]  # fmt: skip
