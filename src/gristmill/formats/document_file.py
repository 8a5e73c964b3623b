"""Files that hold one document each, plain or packed: read whole, or told why not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from gristmill.data.record import Unread, failed
from gristmill.formats.content import open_content
from gristmill.formats.format import Content, Format, Settings, Span, unreadable
from gristmill.formats.lines import drain, lost_at_gaps


class DocumentFile(Format[Settings]):
    """A file is a document."""

    def content(self, span: Span, settings: Settings) -> Content:
        """What the file holds, in one record."""
        return Content(num_bytes=super().content(span, settings).num_bytes, num_records=1)


def read_document(path: Path, *, name: str, max_bytes: int) -> bytes | Unread:
    """What a file holds, unpacked. Fails as unreadable_file, file_too_large, corrupt_gzip or corrupt_zstd: a document with a gap is
    none."""
    try:
        file = open_content(path)
    except OSError as error:
        return unreadable(path, name, error)
    with closing(file):
        data = file.read(max_bytes + 1)
        size = len(data) + drain(file)
        gaps = file.gaps
    if gaps:
        return lost_at_gaps(name, gaps, beside=size)
    if size > max_bytes:
        return failed(f"{name}#0", "file_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
    return data
