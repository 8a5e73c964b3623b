"""Manual pages in the macros man and mdoc, plain or packed: the words without the language that sets them.

A record is a file. Tables and equations, which are drawn, are skipped with their bytes. A page that only names another one is a link.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gristmill.data.charset import decode, is_binary
from gristmill.data.record import RawDocument, Record, Skip, Unread, failed
from gristmill.formats.document_file import DocumentFile, read_document
from gristmill.formats.format import Span
from gristmill.formats.manual_page import IS_A_LINK, IS_A_PAGE, text_of
from gristmill.formats.roff import EndlessMacro
from gristmill.recipe.schema.formats import ReadMan


class ManualPages(DocumentFile[ReadMan]):
    """A file is a document."""

    def read(self, span: Span, settings: ReadMan) -> Iterator[Record]:
        """The one document."""
        return read_man(span.path, name=span.name)


FORMAT = ManualPages()
MAX_PAGE_BYTES = 8_000_000  # of the largest that are known, a quarter or more


def read_man(path: Path, *, name: str, max_bytes: int = MAX_PAGE_BYTES) -> Iterator[Record]:
    """The text of one page. Fails as endless_macro and as `read_document` does; dropped are binary_file, no_manual_page (no macro that
    begins one: a name such as `notes.1` tells little) and link_to_page."""
    data = read_document(path, name=name, max_bytes=max_bytes)
    if isinstance(data, Unread):
        yield data
    else:
        yield from _records(data, name)


def _records(data: bytes, name: str) -> Iterator[Record]:
    page = "" if is_binary(data) else decode(data)[0].replace("\r\n", "\n").replace("\r", "\n")
    if IS_A_PAGE.search(page) is None:
        is_link = IS_A_LINK.fullmatch(page) is not None
        reason = "binary_file" if is_binary(data) else "link_to_page" if is_link else "no_manual_page"
        yield Unread(id=name, origin=f"{name}#0", bytes_in=len(data), kind="dropped", reason=reason)
        return
    try:
        told = text_of(page)
    except EndlessMacro:
        yield failed(f"{name}#0", "endless_macro", bytes_in=len(data), id=name)
        return
    left = len(data)
    for reason, num_bytes in told.left_out.items():
        yield Skip(reason=reason, num_bytes=min(left, num_bytes))
        left -= min(left, num_bytes)
    yield RawDocument(id=name, origin=f"{name}#0", bytes_in=left, text=told.text)
