"""HTML files, one page each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread, failed
from gristmill.formats.format import Format, Span
from gristmill.recipe.schema.formats import ReadHtml


class Html(Format[ReadHtml]):
    """A file is a page; its text is found by main-text extraction."""

    shard_bytes = (2_000_000, 32_000_000)

    def read(self, span: Span, settings: ReadHtml) -> Iterator[Record]:
        """The one page."""
        return read_html(span.path, name=span.name)


FORMAT = Html()


def read_html(path: Path, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[RawDocument | Unread]:
    """One HTML file."""
    size = path.stat().st_size
    if size > max_bytes:
        yield failed(name, "file_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
    else:
        payload = path.read_bytes()
        yield RawDocument(id=name, origin=f"{name}#0", bytes_in=len(payload), payload=payload)
