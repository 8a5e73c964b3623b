"""HTML files, one page each, plain or packed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread
from gristmill.formats.document_file import DocumentFile, read_document
from gristmill.formats.format import Span
from gristmill.recipe.schema.formats import ReadHtml


class Html(DocumentFile[ReadHtml]):
    """A file is a page; its text is found by main-text extraction."""

    shard_bytes = (2_000_000, 32_000_000)

    def read(self, span: Span, settings: ReadHtml) -> Iterator[Record]:
        """The one page."""
        return read_html(span.path, name=span.name)


FORMAT = Html()


def read_html(path: Path, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[RawDocument | Unread]:
    """One HTML file. Fails as `read_document` does. A file of blanks, or of nothing, is dropped as empty_file."""
    payload = read_document(path, name=name, max_bytes=max_bytes)
    if isinstance(payload, Unread):
        yield payload
    elif not payload.strip():
        yield Unread(id=name, origin=f"{name}#0", bytes_in=len(payload), kind="dropped", reason="empty_file")
    else:
        yield RawDocument(id=name, origin=f"{name}#0", bytes_in=len(payload), payload=payload)
