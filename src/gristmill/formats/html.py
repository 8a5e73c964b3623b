"""HTML files, one page each, plain or packed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread, failed
from gristmill.formats.content import open_content
from gristmill.formats.format import Content, Format, Span, unreadable
from gristmill.formats.lines import drain, lost_at_gaps
from gristmill.recipe.schema.formats import ReadHtml


class Html(Format[ReadHtml]):
    """A file is a page; its text is found by main-text extraction."""

    shard_bytes = (2_000_000, 32_000_000)

    def read(self, span: Span, settings: ReadHtml) -> Iterator[Record]:
        """The one page."""
        return read_html(span.path, name=span.name)

    def content(self, span: Span, settings: ReadHtml) -> Content:
        """What the file holds, in one record."""
        return Content(num_bytes=super().content(span, settings).num_bytes, num_records=1)


FORMAT = Html()


def read_html(path: Path, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[RawDocument | Unread]:
    """One HTML file. Fails as file_too_large, unreadable_file, corrupt_gzip or corrupt_zstd: a page with a gap is none. A
    file of blanks, or of nothing, is dropped as empty_file."""
    try:
        with open_content(path) as file:
            payload = file.read(max_bytes + 1)
            size = len(payload) + drain(file)
            gaps = file.gaps
    except OSError as error:
        yield unreadable(path, name, error)
        return
    if gaps:
        yield lost_at_gaps(name, gaps, beside=size)
    elif size > max_bytes:
        yield failed(name, "file_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
    elif not payload.strip():
        yield Unread(id=name, origin=f"{name}#0", bytes_in=size, kind="dropped", reason="empty_file")
    else:
        yield RawDocument(id=name, origin=f"{name}#0", bytes_in=len(payload), payload=payload)
