"""Files of lines, tables and JSON as readers expect them: in UTF-8 or another charset of single-byte signs, with line feeds.

    with open_text(path) as file: ...      as `open_content`; UTF-16 becomes UTF-8, and line ends of CR alone become LF
    in_bytes_of_file(records, path)        for a file in UTF-16, what records take of the UTF-8 as shares of the file's own bytes

Only plain files are looked at, at their beginning: for UTF-16, and for line ends of which none is LF, as on old Macs. Two bytes of
UTF-16 that are no character become U+FFFD, as in texts.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.data.charset import utf16_of
from gristmill.data.record import Record, Skip
from gristmill.formats.content import ContentFile, Pieces, PlainFile, open_content, packing_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES = 1 << 16
MARK = "\ufeff"


def utf16_in(path: Path) -> str | None:
    """The charset of a plain file in UTF-16, else None. Raises OSError where it cannot be opened."""
    return utf16_of(_beginning(path)) if packing_of(path) is None else None


def open_text(path: Path) -> ContentFile:
    """The content of a file, plain or packed; of a plain one in UTF-8 if it is UTF-16, which cannot seek, and with line feeds."""
    file = open_content(path)
    if not file.seekable():
        return file
    first = _beginning(path)
    if (charset := utf16_of(first)) is not None:
        return ContentFile(Pieces(file, _in_utf8(file, charset)))
    if b"\r" in first and b"\n" not in first:
        file.close()
        return ContentFile(_LineFeeds(path, "rb"))
    return file


def in_bytes_of_file(records: Iterable[Record], path: Path) -> Iterator[Record]:
    """Records that tile what `open_text` delivers, with their shares of the bytes of the file: these add up to it."""
    try:
        size = path.stat().st_size if utf16_in(path) else 0
    except OSError:
        size = 0  # the reader says what is wrong
    if not size:
        yield from records
        return
    with open_text(path) as file:
        total = sum(map(len, iter(lambda: file.read(PIECE_BYTES), b"")))
    read = taken = 0
    for record in records:
        read += record.num_bytes if isinstance(record, Skip) else record.bytes_in
        share = read * size // max(1, total) - taken
        taken += share
        yield replace(record, num_bytes=share) if isinstance(record, Skip) else replace(record, bytes_in=share)
    if not total:
        yield Skip(reason="byte_order_mark", num_bytes=size)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(PIECE_BYTES)


def _in_utf8(file: ContentFile, charset: str) -> Iterator[bytes]:
    """What a file in UTF-16 says, without its mark, in pieces of which none is empty; with line feeds as in `open_text`."""
    decoder = codecs.getincrementaldecoder(charset)("replace")
    is_first, has_feeds = True, True
    while True:
        read = file.read(PIECE_BYTES)
        text = decoder.decode(read, final=not read)
        if is_first:
            text, is_first, has_feeds = text.removeprefix(MARK), False, "\n" in text
        if text:
            yield (text if has_feeds else text.replace("\r", "\n")).encode("utf-8", "replace")
        if not read:
            return


class _LineFeeds(PlainFile):
    """A plain file with each CR as LF, so every byte in its place."""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills the buffer from the file."""
        num_bytes = super().readinto(buffer)
        read = memoryview(buffer).cast("B")[:num_bytes]
        read[:] = bytes(read).replace(b"\r", b"\n")
        return num_bytes

    readall = io.RawIOBase.readall  # that of files does without `readinto`
