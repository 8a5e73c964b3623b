"""The members of a gzip file, damaged or not: what each one unpacks to, and the gaps between them.

A gzip file is a sequence of members (RFC 1952), each unpacked by its own decompressor. `unpack` goes through them:

    on disk    | member | member, broken x........ | member | no member ...... | member, cut off
    yielded     Member b  Member b          Gap      Member b       Gap          Member b      Gap

A broken member yields the bytes that its longest error-free prefix unpacks to. The gap extends from the first erroneous byte to the
next member; it has 0 bytes if that member begins before the error: after a member that was cut off, the next one looks like part of
it, so the search for the next one begins up to LOOK_BACK_BYTES before the error. The result depends only on the bytes of the file,
never on the sizes in which they are read.

A member begins where the last one ended, if zlib unpacks the FIRST_BYTES there to HEAD_BYTES without an error. After damage it begins
at a HEADER that zlib can also unpack. Limits against files made to be slow, per STRETCH_BYTES on disk: at most MAX_READ_AGAIN_BYTES
before errors are searched, the first MAX_GAPS gaps are distinguished, and the rest is one gap.

Reading from the middle of a file must begin at a member of that sequence, not at one inside another member: a gzip file can be stored
in a member without compression. `is_in_row` distinguishes them: uncompressed data is split into blocks of at most 65,535 bytes, and
a sequence of members inside it breaks at their heads, or where it ends. So a sequence that is sound for longer is the file's own.
After ROW_BYTES without a fault the limits are reset, so they do not depend on where reading begins.
"""

from __future__ import annotations

import itertools
import os
import re
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Literal

from gristmill.data import deadline
from gristmill.formats.inflate import INFLATE_ERRORS, Inflater, gzip_inflater

MAGIC = b"\x1f\x8b\x08"
# Magic, flags without reserved bits, time, and what compressors write as level (0, 2, 4) and system (0 to 13, 255). zlib
# checks less; without the rest, a file full of magics costs seconds.
HEADER = re.compile(rb"\x1f\x8b\x08(?=[\x00-\x1f].{4}[\x00\x02\x04][\x00-\x0d\xff])", re.DOTALL)
HEADER_BYTES = 10
FIRST_BYTES = 1024
HEAD_BYTES = 7  # b"WARC/1."
FEED_BYTES = 16_384  # what zlib leaves unused of them is copied for each member, so not more
WINDOW_BYTES = 1 << 20
EXTEND_EVERY_BYTES = 16_000_000
LOOK_BACK_BYTES = 1 << 20
MAX_READ_AGAIN_BYTES = 4 << 20
MAX_GAPS = 10_000
STRETCH_BYTES = 8 << 20
ROW_BYTES = 1 << 18
MAX_TRIED = 64  # candidates of one look back

Fault = Literal["damaged", "truncated", "no_member"]
Packing = Literal["gzip", "zstd"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """The start of a member, at byte `offset` of the file. `head`: the first bytes that it unpacks to, at most HEAD_BYTES; empty
    if a search for heads must ignore the member."""

    offset: int
    head: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A part of the file that unpacks to nothing: `num_bytes` on disk from byte `offset`, after `position` bytes of content.

    damaged: the rest of a broken member, or all of one that unpacks to nothing, and what follows it. truncated: the file ends
    inside a member. no_member: other bytes where a member should begin. The same holds for frames of zstd.
    """

    position: int
    offset: int
    num_bytes: int
    fault: Fault
    packing: Packing = "gzip"


class Disk:
    """The bytes of a file by their offset. The file ends where it ended when it was opened. Each window read is progress."""

    def __init__(self, file: IO[bytes]) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self._file = file
        self._window = memoryview(b"")
        self._start = 0

    def read(self, offset: int, length: int) -> memoryview:
        """`length` bytes, fewer only at the end of the file."""
        length = max(0, min(length, self.size - offset))
        start = offset - self._start
        if start < 0 or start + length > len(self._window):
            deadline.extend()
            self._file.seek(offset)
            self._window, self._start, start = memoryview(self._file.read(max(length, WINDOW_BYTES))), offset, 0
        return self._window[start : start + length]


def unpack(disk: Disk, *, start: int = 0) -> Iterator[Member | Gap | bytes]:
    """The file from byte `start`: each Member, what it unpacks to in pieces, and each Gap. `position` counts from `start`."""
    offset, position, num_gaps, read_again = start, 0, 0, 0
    sound_from, counted = start, start // STRETCH_BYTES
    while offset < disk.size:
        fault: Fault | None = "no_member"
        unpacked, broken, look_back = 0, offset, 0
        if offset - sound_from >= ROW_BYTES or offset // STRETCH_BYTES > counted:
            num_gaps, read_again, counted = 0, 0, offset // STRETCH_BYTES
        head, _ = _tried(disk, offset)
        if head is not None:
            yield Member(offset=offset, head=head if HEADER.match(disk.read(offset, HEADER_BYTES)) else b"")
            unpacked, broken, fault = yield from _pieces(disk, offset)
            position += unpacked
            look_back = LOOK_BACK_BYTES if read_again < MAX_READ_AGAIN_BYTES else 0
        if fault is None:
            offset = broken
            continue
        num_gaps += 1
        sought = max(offset + 1, broken - look_back)
        if num_gaps > MAX_GAPS:
            sought = max(sought, (counted + 1) * STRETCH_BYTES)
        found = next_member(disk, sought)
        if found is not None and fault == "truncated":
            fault = "damaged"
        first = broken if unpacked else offset
        offset = sound_from = disk.size if found is None else found.offset
        read_again += max(0, broken - offset)
        yield Gap(position=position, offset=min(first, offset), num_bytes=max(0, offset - first), fault=fault)


def next_member(disk: Disk, start: int, end: int | None = None, *, head: bytes = b"") -> Member | None:
    """The first member that begins in [start, end) and whose first bytes are `head`, found without knowing where others end."""
    return next(_candidates(disk, start, disk.size if end is None else min(end, disk.size), head), None)


def place_before(disk: Disk, start: int) -> int:
    """Where reading can begin at or before `start`: at a member of the file's sequence near it, or at the beginning of the file."""
    reach = ROW_BYTES
    while reach < start:
        for member in itertools.islice(_candidates(disk, start - reach, start, b""), MAX_TRIED):
            if is_in_row(disk, member.offset):
                return member.offset
        reach *= 4
    return 0


def is_in_row(disk: Disk, offset: int) -> bool:
    """True if complete members follow each other from `offset` on, for ROW_BYTES on disk or to the end of the file."""
    place = offset
    while place < disk.size and place - offset < ROW_BYTES:
        if _tried(disk, place)[0] is None:
            return False
        pieces = _pieces(disk, place)
        try:
            while True:
                next(pieces)
        except StopIteration as end:
            _, place, fault = end.value
        if fault is not None:
            return False
    return True


def _candidates(disk: Disk, start: int, end: int, head: bytes) -> Iterator[Member]:
    while start < end:
        window = disk.read(start, WINDOW_BYTES)
        for match in HEADER.finditer(window):
            offset = start + match.start()
            if offset >= end:
                return
            first, is_whole = _tried(disk, offset)
            if (first or is_whole) and (first or b"").startswith(head):
                yield Member(offset=offset, head=first or b"")
        if len(window) < WINDOW_BYTES:
            return
        start += WINDOW_BYTES - (HEADER_BYTES - 1)


def _tried(disk: Disk, offset: int) -> tuple[bytes | None, bool]:
    """What zlib makes of the bytes at `offset`, HEAD_BYTES at most, and whether that is a whole member; None for an error."""
    data = disk.read(offset, FIRST_BYTES)
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        return None, False
    unpacker = zlib.decompressobj(31)
    try:
        return unpacker.decompress(data, HEAD_BYTES), unpacker.eof
    except zlib.error:
        return None, False


def _pieces(disk: Disk, offset: int) -> Generator[bytes, None, tuple[int, int, Fault | None]]:
    """What the member at `offset` unpacks to. Returns how many bytes those were, where it ends or breaks, and its fault."""
    unpacker, place = gzip_inflater(), offset
    fault: Fault | None = None
    unpacked = extended = 0
    while fault is None and not unpacker.eof:
        data = disk.read(place, FEED_BYTES)
        before = unpacker.copy() if place > offset else None
        try:
            # Not limited: what a limit cuts off may hide an error, and then the sizes of pieces matter. At most 17 MB.
            piece, taken = unpacker.decompress(data), len(data)
        except INFLATE_ERRORS:
            piece, taken = _longest_prefix(before or gzip_inflater(), data)
            fault = "damaged"
        if not data:
            fault = "truncated"
        place += taken - len(unpacker.unused_data)
        if piece:
            yield piece
        unpacked += len(piece)
        if unpacked - extended > EXTEND_EVERY_BYTES:
            deadline.extend()
            extended = unpacked
    return unpacked, place, fault


def _longest_prefix(unpacker: Inflater, data: memoryview) -> tuple[bytes, int]:
    """What the bytes before the first error in `data` unpack to, and how many bytes those are, by halving."""
    parts = []
    good, bad = 0, len(data)
    while bad - good > 1:
        middle = (good + bad) // 2
        trial = unpacker.copy()
        try:
            parts.append(trial.decompress(data[good:middle]))
        except INFLATE_ERRORS:
            bad = middle
        else:
            unpacker, good = trial, middle
    return b"".join(parts), good
