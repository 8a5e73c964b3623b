"""Word documents (Office Open XML), one document each.

    file → sizes of its parts → mammoth: headings, paragraphs, lists, tables, notes as HTML → the text of all of it (main_text.py)

The sizes of the parts are checked before anything is parsed, since mammoth holds each of them as a tree.
Pictures, comments and deleted text are left out. A document's bytes are those on disk.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import mammoth

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread, failed
from gristmill.formats.format import Content, Format, Span, size_of, unreadable
from gristmill.formats.zip import Refused, list_zip
from gristmill.recipe.schema.formats import ReadDocx

MAX_DOCX_BYTES = 256_000_000  # large files are mostly pictures, which are never unpacked
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
PARTS = (".xml", ".rels")
LINK_BACK = re.compile(r'<a href="#[^"]*note-ref-[^"]*">↑</a>')
CELL = re.compile(r"(<t[dh][^>]*>)<p>|</p>(</t[dh]>)")


class Docx(Format[ReadDocx]):
    """A file is a document."""

    shard_bytes = (1_000_000, 32_000_000)

    def read(self, span: Span, settings: ReadDocx) -> Iterator[Record]:
        """The one document."""
        yield read_docx(span.path, name=span.name)

    def content(self, span: Span, settings: ReadDocx) -> Content:
        """The file as it lies on the disk."""
        return Content(num_bytes=size_of(span.path), num_records=1)


FORMAT = Docx()


def read_docx(
    path: Path, *, name: str, max_bytes: int = MAX_DOCX_BYTES, max_xml_bytes: int = MAX_DOCUMENT_BYTES
) -> RawDocument | Unread:
    """A Word document as a page of HTML.

    Fails as unreadable_file, file_too_large, encrypted (it has a password), old_word_document, unpacked_too_large (its parts are
    XML of more than `max_xml_bytes`), nested_too_deeply, and corrupt_file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size) if size <= max_bytes else b""
    except OSError as error:
        return unreadable(path, name, error)
    try:
        if size > max_bytes:
            raise Refused("file_too_large", f"the limit is {max_bytes:,} bytes")
        html = _html(data, max_xml_bytes)
    except Refused as error:
        return failed(f"{name}#0", error.reason, bytes_in=size, detail=str(error), id=name)
    payload = html.encode("utf-8", "surrogatepass")
    return RawDocument(id=name, origin=f"{name}#0", bytes_in=size, payload=payload, charset="utf-8", is_all_text=True)


def _html(data: bytes, max_xml_bytes: int) -> str:
    if data.startswith(OLE):
        is_encrypted = ENCRYPTED_PACKAGE in data
        raise Refused("encrypted" if is_encrypted else "old_word_document", "" if is_encrypted else "save it as .docx")
    parts = [member for member in list_zip(io.BytesIO(data)).members if member.name.lower().endswith(PARTS)]
    if any(member.is_encrypted for member in parts):
        raise Refused("encrypted", "its parts need a password")
    if (size := sum(member.size for member in parts)) > max_xml_bytes:
        raise Refused("unpacked_too_large", f"its parts are {size:,} bytes of XML, the limit is {max_xml_bytes:,}")
    try:
        html = mammoth.convert_to_html(
            io.BytesIO(data), convert_image=lambda image: [], include_embedded_style_map=False
        ).value
    except RecursionError as error:
        raise Refused("nested_too_deeply") from error
    except MemoryError:
        raise
    except Exception as error:  # on unexpected content mammoth raises errors of any kind
        raise Refused("corrupt_file", f"{type(error).__name__}: {error}"[:300]) from error
    return CELL.sub(r"\1\2", LINK_BACK.sub("", html))
