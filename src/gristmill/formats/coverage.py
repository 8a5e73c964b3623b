"""How much a file holds, measured without any reader: what `bytes_in` of its records and skips must add up to.

The content of a file is its bytes; of a gzip file, what its members unpack to, plus the bytes on disk of the parts that
unpack to nothing. The rules are those of `content.py` and `members.py`; the code is separate and imports neither (zstd:
coverage_zstd.py), but the library that unpacks a member is the same (inflate.py). It goes through the members with a seekable file,
discards what it unpacks, and finds the byte at which a member breaks by feeding it in ever smaller pieces.

Where a web archive is read in spans of bytes on disk, a span [start, end) holds what lies between two heads: from the first head
at or after `start` (for start 0 the beginning of the file) to the first at or after `end`; nothing if no head begins in it.
A head is a member whose content begins with given bytes; in a plain file, a record that begins with them after a blank line. Heads are
those found by reading from the beginning of the file. In a gzip file this is shortened where members are complete for ROW on disk:
such members are not inside another one, because uncompressed data in a member is split every 64 kB at least.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from gristmill.data import deadline
from gristmill.formats.coverage_zstd import is_zstd, zstd_bytes
from gristmill.formats.inflate import INFLATE_ERRORS, Inflater, gzip_inflater

BLANK_LINE = b"\r\n\r\n"
HEADER_BYTES = 10
HEADER = re.compile(rb"(?=\x1f\x8b\x08[\x00-\x1f]....[\x00\x02\x04][\x00-\r\xff])", re.DOTALL)
BEGINNING = (1024, 7)  # bytes of a member that are looked at first, and how many bytes they must unpack to
LOOK_BACK = 1_048_576
MAX_LOOKED_BACK = 4_194_304
MAX_GAPS = 10_000
STRETCH = 8_388_608
ROW = 262_144
MAX_HEAD = 64_000
MAX_BLOCK = 20_000_000  # the length of a longer record may be wrong, so it is searched for heads
LINE_ENDS = b"\r\n"
READ_BYTES = 1 << 20

End = Literal["sound", "broken", "cut"]


def unpacked_bytes(path: Path) -> int:
    """Bytes of content of a file, plain or packed."""
    with path.open("rb", buffering=READ_BYTES) as file:
        first = _at(file, 0, 256)
        if not first.startswith(b"\x1f\x8b\x08") and (
            is_zstd(first) or (path.name.lower().endswith(".zst") and not _is_text(first))
        ):
            return zstd_bytes(file, file.seek(0, 2))
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
        if start >= end:
            return 0
        return _packed_bytes(file, _entry(file, start, size), start, end, size, head)


def _is_gzip(file: IO[bytes], path: Path) -> bool:
    first = _at(file, 0, 256)
    if first.startswith(b"\x1f\x8b\x08") or not path.name.lower().endswith(".gz"):
        return first.startswith(b"\x1f\x8b\x08")
    return not _is_text(first)


def _is_text(first: bytes) -> bool:
    try:
        codecs.utf_8_decode(first, "strict", False)  # not the end of it: a character may be cut there
    except UnicodeDecodeError:
        return False
    return first != b"" and not any((byte < 32 and byte not in b"\t\n\f\r") or byte == 127 for byte in first)


def _at(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    return file.read(length)


# ── plain ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plain_bytes(file: IO[bytes], start: int, end: int, size: int, head: bytes) -> int:
    if start == 0 and end == size:
        return size
    begin = 0 if start == 0 else None
    for place in _plain_heads(file, size, head):
        if begin is None and start <= place < end:
            begin = place
        if place >= end:
            return place - begin if begin is not None else 0
    return size - begin if begin is not None else 0


def _plain_heads(file: IO[bytes], size: int, head: bytes) -> Iterator[int]:
    """Where records begin after a blank line, each sought after the end of the one before; in damaged parts by a search."""
    wanted = BLANK_LINE + head
    place = number = 0
    while place < size:
        number += 1
        if number % 1000 == 0:
            deadline.extend()
        before = _at(file, max(0, place - 4), min(4, place) + len(head))
        if not before.endswith(head) or len(before) < len(head):
            blank = _blank(file, place)
            place = blank if blank > place else _found(file, place + 1, size, wanted)
            continue
        if before in (head, wanted):
            yield place
        block, length = _head(file, place)
        if length is None:
            place = _found(file, place + 1, size, wanted)
        elif length > MAX_BLOCK:
            place = _blank(file, _found(file, block + 1, min(size, block + length), wanted))
        elif (follows := _following(file, block + length, size, head)) is not None:
            place = follows
        else:
            place = _found(file, place + 1, size, wanted)


def _head(file: IO[bytes], place: int) -> tuple[int, int | None]:
    """(where the block of the record at `place` begins, the length that it declares); None if it declares none."""
    fields, blank, _ = _at(file, place, MAX_HEAD).partition(BLANK_LINE)
    if not blank:
        return place, None
    text = re.sub("\r\n[\t ]+", " ", fields.decode(errors="replace"))
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if colon and name.strip().lower() == "content-length":
            is_number = re.fullmatch("[0-9]{1,18}", value.strip())
            return place + len(fields) + len(blank), int(is_number[0]) if is_number else None
    return place, None


def _following(file: IO[bytes], place: int, size: int, head: bytes) -> int | None:
    """Where the next record must begin if one ends at `place`; None if none can end there."""
    if place > size:
        return None
    behind = _at(file, place, len(BLANK_LINE) + len(head))
    rest = behind.lstrip(LINE_ENDS)
    is_due = behind[len(BLANK_LINE) :] == head
    if len(behind) - len(rest) < len(BLANK_LINE) and rest and not rest.startswith(head) and not is_due:
        return None
    return place + len(BLANK_LINE) if is_due else _blank(file, place)


def _blank(file: IO[bytes], place: int) -> int:
    """Where the line ends at `place` end."""
    while block := _at(file, place, 4096):
        rest = len(block.lstrip(LINE_ENDS))
        place += len(block) - rest
        if rest:
            break
    return place


def _found(file: IO[bytes], place: int, end: int, wanted: bytes) -> int:
    """The first place in [place, end) with a head after a blank line; `end` if there is none."""
    place = max(0, place - len(BLANK_LINE))
    while place < end:
        deadline.extend()
        found = (block := _at(file, place, READ_BYTES + len(wanted))).find(wanted)
        if found >= 0:
            return min(end, place + found + len(BLANK_LINE))
        place += max(1, len(block) - len(wanted) + 1)
    return end


# ── gzip ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _packed_bytes(file: IO[bytes], place: int, start: int, end: int, size: int, head: bytes) -> int:
    """Bytes of content between two heads, read from `place` on."""
    total, gaps, looked_back, whole_from, stretch = 0, 0, 0, place, -1
    begun = start == 0
    while place < size:
        if place - whole_from >= ROW or place // STRETCH != stretch:
            deadline.extend()
            gaps, looked_back, stretch = 0, 0, place // STRETCH
        first, _ = _beginning(file, place)
        if (begun or place >= start) and first == head and HEADER.match(_at(file, place, HEADER_BYTES)):
            if place >= end:
                break
            if not begun:
                begun, total = True, 0
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
        search = max(search, place + 1, (stretch + 1) * STRETCH if gaps > MAX_GAPS else 0)
        place = whole_from = next((at for at in _headers(file, search, size) if any(_beginning(file, at))), size)
        total += max(0, place - begin)
        looked_back += max(0, stop - place)
    return total if begun else 0


def _entry(file: IO[bytes], start: int, size: int) -> int:
    """Where reading up to `start` can begin: there, at a member before it, or at the beginning of the file."""
    if start == 0 or _is_whole(file, start, size):
        return start
    for power in range(20, 64, 2):
        if (back := start - (1 << power)) <= 0:
            break
        for number, place in enumerate(_headers(file, back, start)):
            if any(_beginning(file, place)) and _is_whole(file, place, size):
                return place
            if number > 50:
                break
    return 0


def _is_whole(file: IO[bytes], start: int, size: int) -> bool:
    """Whether complete members follow each other from `start` on, for ROW on disk or to the end of the file."""
    place = start
    while place < min(size, start + ROW):
        if _beginning(file, place)[0] is None:
            return False
        _, place, how = _member_bytes(file, place)
        if how != "sound":
            return False
    return True


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
    total, unpacker, begin = 0, gzip_inflater(), place
    for piece in (16_000, 1_000, 60, 6, 1):
        while True:
            before = unpacker.copy() if place > begin else None
            data = _at(file, place, piece)
            try:
                unpacked = _fed(unpacker, data)
            except INFLATE_ERRORS:
                unpacker = before or gzip_inflater()
                break
            total += unpacked
            place += len(data) - len(unpacker.unused_data)
            if unpacker.eof:
                return total, place, "sound"
            if not data:
                return total, place, "cut"
    return total, place, "broken"


def _fed(unpacker: Inflater, data: bytes) -> int:
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
