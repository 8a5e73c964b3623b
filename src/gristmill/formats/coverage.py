"""How much a file holds, measured without any reader: what `bytes_in` of its records and skips must add up to.

The content of a file is its bytes; of a gzip file, what its members unpack to, and the bytes on disk of the stretches that
unpack to nothing. The rules are those that `content.py` and `members.py` state; the code is another, and imports neither: it
walks the members with a file that seeks, throws away what it unpacks, and finds the byte at which a member breaks by feeding
it in ever smaller pieces.

Where a file is read in spans of bytes on disk, a span [start, end) holds what lies between two heads: from the first head at
or after `start` (for start 0 the beginning of the file) to the first at or after `end`; nothing where no head begins in it.
A head is a member whose content begins with certain bytes; in a plain file, those bytes behind a blank line.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from gristmill.data import deadline

BLANK_LINE = b"\r\n\r\n"
HEADER_BYTES = 10
HEADER = re.compile(rb"(?=\x1f\x8b\x08[\x00-\x1f]....[\x00\x02\x04][\x00-\r\xff])", re.DOTALL)
BEGINNING = (1024, 7)  # bytes of a member that are looked at first, and how many bytes they must unpack to
LOOK_BACK = 1_048_576
MAX_LOOKED_BACK = 4_194_304
MAX_GAPS = 10_000
READ_BYTES = 1 << 20

End = Literal["sound", "broken", "cut"]


def unpacked_bytes(path: Path) -> int:
    """Bytes of content of a file, plain or gzip."""
    return span_bytes(path, start=0, end=None, head=b"")


def span_bytes(path: Path, *, start: int, end: int | None, head: bytes) -> int:
    """Bytes of content in a span of bytes on disk of a file whose parts begin with `head`."""
    with path.open("rb", buffering=READ_BYTES) as file:
        size = file.seek(0, 2)
        end = size if end is None else min(end, size)
        if start >= end:
            return 0
        if not _is_gzip(file, path):
            return _plain_bytes(file, start, end, size, head)
        if start > 0:
            start = next((place for place in _headers(file, start, end) if _beginning(file, place)[0] == head), end)
        return _packed_bytes(file, start, end, size, head) if start < end else 0


def _is_gzip(file: IO[bytes], path: Path) -> bool:
    first = _at(file, 0, 256)
    if first.startswith(b"\x1f\x8b\x08") or not path.name.lower().endswith(".gz"):
        return first.startswith(b"\x1f\x8b\x08")
    try:
        codecs.utf_8_decode(first, "strict", False)  # not the end of it: a character may be cut there
    except UnicodeDecodeError:
        return True
    return first == b"" or any((byte < 32 and byte not in b"\t\n\f\r") or byte == 127 for byte in first)


def _at(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    return file.read(length)


# ── plain ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plain_bytes(file: IO[bytes], start: int, end: int, size: int, head: bytes) -> int:
    if start > 0:
        start = _plain_head(file, start, end, head)
    return _plain_head(file, end, size, head) - start if start < end else 0


def _plain_head(file: IO[bytes], start: int, end: int, head: bytes) -> int:
    """The first place in [start, end) where `head` is behind a blank line; `end` where there is none."""
    wanted = BLANK_LINE + head
    place = start - len(BLANK_LINE)
    if place < 0:
        place = 0
    while place < end:
        deadline.extend()
        found = (block := _at(file, place, READ_BYTES + len(wanted))).find(wanted)
        if found >= 0:
            return min(end, place + found + len(BLANK_LINE))
        place += max(1, len(block) - len(wanted) + 1)
    return end


# ── gzip ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _packed_bytes(file: IO[bytes], start: int, end: int, size: int, head: bytes) -> int:
    total, place, gaps, looked_back = 0, start, 0, 0
    while place < size:
        first, _ = _beginning(file, place)
        if place >= end and first == head and HEADER.match(_at(file, place, HEADER_BYTES)):
            break
        if first is None:
            begin = stop = search = place
        else:
            unpacked, stop, how = _member_bytes(file, place)
            total += unpacked
            if how == "sound":
                place = stop
                continue
            begin = stop if unpacked else place
            search = stop - LOOK_BACK if looked_back < MAX_LOOKED_BACK else stop
        gaps += 1
        search = max(search, place + 1, end if gaps > MAX_GAPS else 0)
        place = next((at for at in _headers(file, search, size) if any(_beginning(file, at))), size)
        total += max(0, place - begin)
        looked_back += max(0, stop - place)
    return total


def _headers(file: IO[bytes], start: int, end: int) -> Iterator[int]:
    """Places in [start, end) at which ten bytes look like the header of a member."""
    while start < end:
        deadline.extend()
        block = _at(file, start, READ_BYTES)
        yield from (start + found.start() for found in HEADER.finditer(block, 0, end - start + HEADER_BYTES - 1))
        if len(block) < READ_BYTES:
            return
        start += READ_BYTES - HEADER_BYTES + 1


def _beginning(file: IO[bytes], place: int) -> tuple[bytes | None, bool]:
    """What a member at `place` begins with, None where there is none, and whether that is all of it."""
    data = _at(file, place, BEGINNING[0])
    if b"\x1f\x8b\x08".startswith(data[:3]):
        unpacker = zlib.decompressobj(31)
        try:
            return unpacker.decompress(data, BEGINNING[1]), unpacker.eof
        except zlib.error:
            pass
    return None, False


def _member_bytes(file: IO[bytes], place: int) -> tuple[int, int, End]:
    """(bytes that the member at `place` unpacks to, where it ends or breaks, how it ends)."""
    total, unpacker = 0, zlib.decompressobj(31)
    for piece in (16_000, 1_000, 60, 6, 1):
        while True:
            before = unpacker.copy()
            data = _at(file, place, piece)
            try:
                unpacked = _fed(unpacker, data)
            except zlib.error:
                unpacker = before
                break
            total += unpacked
            place += len(data) - len(unpacker.unused_data)
            if unpacker.eof:
                return total, place, "sound"
            if not data:
                return total, place, "cut"
    return total, place, "broken"


def _fed(unpacker: zlib._Decompress, data: bytes) -> int:
    """How many bytes the unpacker makes of `data`."""
    total = 0
    while True:
        unpacked = len(unpacker.decompress(data, READ_BYTES))
        total += unpacked
        data = unpacker.unconsumed_tail
        if unpacked > READ_BYTES // 2:
            deadline.extend()
        if unpacker.eof or (not data and unpacked < READ_BYTES):
            return total
