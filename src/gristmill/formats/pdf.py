"""PDF files, one document each, by PDFium.

    file → pages → lines with their boxes (here) → running heads removed, words and paragraphs joined (pdf_text.py)

PDFium aborts its process when it runs out of memory, and some files keep it busy forever: the guard around the reader limits
both, and the file is then one failure. The deadline applies to each 100 pages. A document's bytes are those on disk.
"""

from __future__ import annotations

import ctypes
import os
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium

from gristmill.data import deadline
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Skip, Unread, failed
from gristmill.formats.format import Content, Format, Span, size_of, unreadable
from gristmill.formats.pdf_text import HYPHEN, Line, text_of
from gristmill.formats.zip import Refused
from gristmill.recipe.schema.formats import ReadPdf

MAX_PDF_BYTES = 256_000_000  # held in memory; large files are mostly pictures
MAX_PAGES = 20_000
MAX_PAGE_CHARS = 300_000  # a newspaper page has 30,000
EXTEND_EVERY_PAGES = 100
LINE_END = "\r\n"


class Pdf(Format[ReadPdf]):
    """A file is a document."""

    shard_bytes = (1_000_000, 32_000_000)

    def read(self, span: Span, settings: ReadPdf) -> Iterator[Record]:
        """The one document."""
        return read_pdf(span.path, name=span.name)

    def content(self, span: Span, settings: ReadPdf) -> Content:
        """The file as it lies on the disk."""
        return Content(num_bytes=size_of(span.path), num_records=1)


FORMAT = Pdf()


def read_pdf(
    path: Path, *, name: str, max_bytes: int = MAX_PDF_BYTES, max_text_bytes: int = MAX_DOCUMENT_BYTES
) -> Iterator[RawDocument | Unread | Skip]:
    """The text of a PDF file; a page that cannot be read is a Skip without bytes, corrupt_page.

    Fails as unreadable_file, file_too_large, encrypted (it needs a password), corrupt_file, too_many_pages, text_too_large. Dropped as
    no_text if most pages contain no letter, as in a scan, or with fonts that do not map to letters.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size) if size <= max_bytes else b""
    except OSError as error:
        yield unreadable(path, name, error)
        return
    origin = f"{name}#0"
    try:
        if size > max_bytes:
            raise Refused("file_too_large", f"the limit is {max_bytes:,} bytes")
        with closing(_opened(data)) as document:
            num_pages = len(document)
            pages = _pages(document, max_text_bytes)
    except Refused as error:
        yield failed(origin, error.reason, bytes_in=size, detail=str(error), id=name)
        return
    lost = num_pages - len(pages)
    yield from [Skip(reason="corrupt_page", num_bytes=0)] * lost
    empty = len(pages) - sum(any(char.isalnum() for line in page for char in line.text) for page in pages)
    if lost and not pages:
        yield failed(origin, "corrupt_file", bytes_in=size, detail=f"none of its {lost:,} pages can be read", id=name)
    elif 2 * empty > len(pages) or not pages:
        detail = f"{empty:,} of {num_pages:,} pages without a letter"
        yield Unread(id=name, origin=origin, bytes_in=size, kind="dropped", reason="no_text", detail=detail)
    else:
        yield RawDocument(id=name, origin=origin, bytes_in=size, text=text_of(pages))


def _opened(data: bytes) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            raise Refused("encrypted", "it needs a password") from error
        raise Refused("corrupt_file", str(error)) from error


def _pages(document: pypdfium2.PdfDocument, max_text_bytes: int) -> list[list[Line]]:
    """The lines of each page that can be read."""
    if len(document) > MAX_PAGES:
        raise Refused("too_many_pages", f"{len(document):,} pages, the limit is {MAX_PAGES:,}")
    pages: list[list[Line]] = []
    size = 0
    for number in range(len(document)):
        if number % EXTEND_EVERY_PAGES == 0:
            deadline.extend()
        try:
            with closing(document[number]) as page, closing(page.get_textpage()) as textpage:
                lines = _lines(textpage)
        except pypdfium2.PdfiumError:
            continue
        size += sum(len(line.text.encode("utf-8")) for line in lines)
        if size > max_text_bytes:
            raise Refused("text_too_large", f"the limit is {max_text_bytes:,} bytes; {number + 1:,} pages hold more")
        pages.append(lines)
    return pages


def _lines(textpage: pypdfium2.PdfTextPage) -> list[Line]:
    """The lines of a page in the order of the file, with their boxes as the fonts give them."""
    num_chars = textpage.count_chars()
    if num_chars > MAX_PAGE_CHARS:
        raise Refused("text_too_large", f"a page of {num_chars:,} characters, the limit is {MAX_PAGE_CHARS:,}")
    text = textpage.get_text_range() if num_chars else ""
    lines: list[Line] = []
    at = 0
    for whole in text.split(LINE_END):
        pieces = whole.split(HYPHEN)
        for number, piece in enumerate(pieces):
            units = len(piece.encode("utf-16-le", "surrogatepass")) // 2
            if piece.strip():
                first = at + len(piece) - len(piece.lstrip())
                begin, end = _box(textpage, first), _box(textpage, at + units - 1 - len(piece) + len(piece.rstrip()))
                lines.append(
                    Line(
                        text=_printable(piece),
                        left=begin.left,
                        right=max(begin.right, end.right),
                        bottom=begin.bottom,
                        height=abs(begin.top - begin.bottom),
                        is_hyphenated=number + 1 < len(pieces),
                    )
                )
            at += units + 1
        at += len(LINE_END) - 1
    return lines


def _box(textpage: pypdfium2.PdfTextPage, text_index: int) -> pdfium.FS_RECTF:
    """The box of a character, by its place in the text in UTF-16 units; zeros where it has none."""
    box = pdfium.FS_RECTF()
    index = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, text_index)
    if index >= 0:
        pdfium.FPDFText_GetLooseCharBox(textpage, index, ctypes.byref(box))
    return box


def _printable(text: str) -> str:
    """Without control characters, and ligatures as letters."""
    text = "".join(char for char in text if char >= " " or char == "\t").strip()
    return "".join(unicodedata.normalize("NFKC", char) if "ﬀ" <= char <= "ﬆ" else char for char in text)
