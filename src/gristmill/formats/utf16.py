"""Files in UTF-16 with its mark, as UTF-8: readers of lines, tables and JSON look for line ends, commas and quotes of one byte.

    with open_as_utf8(path) as file: ...      as `open_content`, for a file that begins with the mark what it says in UTF-8
    in_bytes_of_file(records, path)           what records take of the UTF-8, as shares of the file's own bytes

Only plain files are looked at. Two bytes that are no character become U+FFFD, as in texts.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from gristmill.data.record import Record, Skip
from gristmill.formats.content import ContentFile, Pieces, open_content

MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
PIECE_BYTES = 1 << 16


def is_utf16(path: Path) -> bool:
    """Whether a file begins with the mark of UTF-16. Raises OSError where it cannot be opened."""
    with path.open("rb") as file:
        return file.read(2) in MARKS


def open_as_utf8(path: Path) -> ContentFile:
    """The content of a file, plain or packed; of a plain one that begins with the mark of UTF-16, in UTF-8. That cannot seek."""
    file = open_content(path)
    return ContentFile(Pieces(file, _in_utf8(file))) if file.seekable() and is_utf16(path) else file


def in_bytes_of_file(records: Iterable[Record], path: Path) -> Iterator[Record]:
    """Records that tile what `open_as_utf8` delivers, with their shares of the bytes of the file: these add up to it."""
    try:
        size = path.stat().st_size if is_utf16(path) else 0
    except OSError:
        size = 0  # the reader says what is wrong
    if not size:
        yield from records
        return
    with open_as_utf8(path) as file:
        total = sum(map(len, iter(lambda: file.read(PIECE_BYTES), b"")))
    read = taken = 0
    for record in records:
        read += record.num_bytes if isinstance(record, Skip) else record.bytes_in
        share = read * size // max(1, total) - taken
        taken += share
        yield replace(record, num_bytes=share) if isinstance(record, Skip) else replace(record, bytes_in=share)
    if not total:
        yield Skip(reason="byte_order_mark", num_bytes=size)


def _in_utf8(file: ContentFile) -> Iterator[bytes]:
    """What a file in UTF-16 says, in pieces of which none is empty."""
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    while read := file.read(PIECE_BYTES):
        if text := decoder.decode(read):
            yield text.encode("utf-8", "replace")
    if text := decoder.decode(b"", final=True):
        yield text.encode("utf-8", "replace")
