"""Manual pages in the macros man and mdoc, plain or packed: the words without the language that sets them.

A record is a file. Tables and equations, which are drawn, are skipped with their bytes. A page that only names another one is a link.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from gristmill.data.charset import decode, is_binary
from gristmill.data.record import RawDocument, Record, Skip, Unread, failed
from gristmill.formats.content import open_content
from gristmill.formats.format import Content, Format, Span, unreadable
from gristmill.formats.lines import drain, lost_at_gaps
from gristmill.formats.manual_page import IS_A_LINK, IS_A_PAGE, text_of
from gristmill.formats.roff import EndlessMacro
from gristmill.recipe.schema.formats import ReadMan


class ManualPages(Format[ReadMan]):
    """A file is a document."""

    def read(self, span: Span, settings: ReadMan) -> Iterator[Record]:
        """The one document."""
        return read_man(span.path, name=span.name)

    def content(self, span: Span, settings: ReadMan) -> Content:
        """What the file holds, in one record."""
        return Content(num_bytes=super().content(span, settings).num_bytes, num_records=1)


FORMAT = ManualPages()
MAX_PAGE_BYTES = 8_000_000  # of the largest that are known, a quarter or more


def read_man(path: Path, *, name: str, max_bytes: int = MAX_PAGE_BYTES) -> Iterator[Record]:
    """The text of one page. Fails as text_too_large, endless_macro, corrupt_gzip or corrupt_zstd; dropped are binary_file, no_manual_page
    (no macro that begins one: a name such as `notes.1` tells little) and link_to_page."""
    try:
        file = open_content(path)
    except OSError as error:
        yield unreadable(path, name, error)
        return
    with closing(file):
        data = file.read(max_bytes + 1)
        size = len(data) + drain(file)
        gaps = file.gaps
    if gaps:
        yield lost_at_gaps(name, gaps, beside=size)
    elif size > max_bytes:
        yield failed(f"{name}#0", "text_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
    else:
        yield from _records(data, name)


def _records(data: bytes, name: str) -> Iterator[Record]:
    page = "" if is_binary(data) else decode(data)[0].replace("\r\n", "\n")
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
