"""HTML files, one page each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread, failed
from gristmill.formats.format import Content, Format, Span, size_of, unreadable
from gristmill.recipe.schema.formats import ReadHtml


class Html(Format[ReadHtml]):
    """A file is a page; its text is found by main-text extraction."""

    shard_bytes = (2_000_000, 32_000_000)

    def read(self, span: Span, settings: ReadHtml) -> Iterator[Record]:
        """The one page."""
        return read_html(span.path, name=span.name)

    def content(self, span: Span, settings: ReadHtml) -> Content:
        """The file as it is: a page is never unpacked."""
        return Content(num_bytes=size_of(span.path), num_records=1)


FORMAT = Html()


def read_html(path: Path, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[RawDocument | Unread]:
    """One HTML file, as long as it is when it is opened. Fails as file_too_large or unreadable_file."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            payload = file.read(size) if size <= max_bytes else b""
    except OSError as error:
        yield unreadable(path, name, error)
        return
    if size > max_bytes:
        yield failed(name, "file_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
    else:
        yield RawDocument(id=name, origin=f"{name}#0", bytes_in=len(payload), payload=payload)
