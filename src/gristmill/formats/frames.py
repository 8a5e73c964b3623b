"""The frames of a zstd file, damaged or not: what each one unpacks to, and the gaps between them.

A zstd file is a sequence of frames (RFC 8878), each unpacked by its own decompressor: a head, then blocks of at most 128 kB with
heads of three bytes, then an optional checksum. pyarrow's stream is fed block by block, so a broken frame yields its complete blocks
before the first error, whatever the sizes in which the file is read. The gap extends from that block to the next place
at which a frame can begin. Skippable frames contain no data and are not counted as frames.

Limits against files made to be slow: the first MAX_GAPS gaps are distinguished, the rest is one gap. More than MAX_EMPTY_BLOCKS empty
blocks in a row are an error of the frame, and so are windows above 128 MB (`zstd --long=28` and more).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any, cast

import pyarrow as pa

from gristmill.data import deadline
from gristmill.formats.members import EXTEND_EVERY_BYTES, WINDOW_BYTES, Disk, Fault, Gap

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)
START = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)
START_BYTES = 4
MAX_BLOCK_BYTES = 1 << 17
BLOCK_HEAD_BYTES = 3
CHECKSUM_BYTES = 4
DICTIONARY_BYTES = (0, 1, 2, 4)
SIZE_BYTES = (0, 2, 4, 8)  # of the content's size; one instead of none where the frame is a single segment
MAX_GAPS = 1_000
MAX_EMPTY_BLOCKS = 1_000
READ_BYTES = 1 << 17


def unpack_frames(disk: Disk) -> Iterator[Gap | bytes]:
    """The file from its beginning: what each frame unpacks to in pieces, and each Gap."""
    offset = position = num_gaps = 0
    while offset < disk.size:
        if (behind := _behind_skippable(disk, offset)) is not None:
            offset = behind
            continue
        unpacked, broken, fault = 0, offset, cast(Fault | None, "no_member")
        if _head_bytes(disk, offset) is not None:
            unpacked, broken, fault = yield from _pieces(disk, offset)
            position += unpacked
        if fault is None:
            offset = broken
            continue
        num_gaps += 1
        found = disk.size if num_gaps > MAX_GAPS else _next_frame(disk, max(offset + 1, broken))
        if fault == "truncated" and found < disk.size:
            fault = "damaged"
        first = broken if unpacked else offset
        yield Gap(position=position, offset=first, num_bytes=found - first, fault=fault, packing="zstd")
        offset = found


class _Feed:
    """The file object from which pyarrow reads a frame: its head, its blocks and its checksum, one part per read at most.

    place: the start of the last part that was delivered. fault: why the frame ends early.
    """

    closed = False

    def __init__(self, disk: Disk, offset: int, head_bytes: int) -> None:
        self.place = self.end = offset
        self.fault: Fault | None = None
        self._disk = disk
        self._end = offset + head_bytes  # of the part that is given
        self._given = offset
        self._has_checksum = bool(disk.read(offset + START_BYTES, 1)[0] & 0x04)
        self._is_last = False
        self._empty = 0  # blocks in a row

    def read(self, num_bytes: int = -1) -> bytes:
        """At most `num_bytes` bytes of one part."""
        if self._given == self._end and not self._next_part():
            return b""
        piece = bytes(self._disk.read(self._given, min(num_bytes, self._end - self._given)))
        self._given += len(piece)
        self.end = self._given
        return piece

    def close(self) -> None:
        """Nothing: the file below is another's."""

    def _next_part(self) -> bool:
        self.place = self._end
        if self._is_last:
            has, self._has_checksum = self._has_checksum, False
            return has and self._part(CHECKSUM_BYTES)
        head = self._disk.read(self._end, BLOCK_HEAD_BYTES)
        if len(head) < BLOCK_HEAD_BYTES:
            self.fault = "truncated"
            return False
        kind, size = block_of(head)
        self._empty = self._empty + 1 if size == 0 else 0
        if kind == 3 or size > MAX_BLOCK_BYTES or self._empty > MAX_EMPTY_BLOCKS:
            self.fault = "damaged"
            return False
        self._is_last = bool(head[0] & 1)
        return self._part(BLOCK_HEAD_BYTES + (1 if kind == 1 else size))

    def _part(self, num_bytes: int) -> bool:
        if self._end + num_bytes > self._disk.size:
            self.fault = "truncated"
            return False
        self._end += num_bytes
        return True


def block_of(head: memoryview) -> tuple[int, int]:
    """(type, size) that the three bytes before a block tell."""
    value = int.from_bytes(head, "little")
    return value >> 1 & 3, value >> 3


def _pieces(disk: Disk, offset: int) -> Generator[bytes, None, tuple[int, int, Fault | None]]:
    """What the frame at `offset` unpacks to. Returns (number of unpacked bytes, where it ends or breaks, its fault)."""
    unpacked = extended = 0
    size = READ_BYTES
    while True:  # again after an error, byte by byte: pyarrow does not deliver all that it unpacked before the error
        feed, stream = _opened(disk, offset)
        try:
            skipped = 0
            while skipped < unpacked:
                skipped += len(stream.read(min(READ_BYTES, unpacked - skipped)))
            while piece := stream.read(size):
                unpacked += len(piece)
                yield piece
                if unpacked - extended > EXTEND_EVERY_BYTES:
                    deadline.extend()
                    extended = unpacked
            return unpacked, feed.end, feed.fault
        except OSError:
            if size == 1:
                return unpacked, feed.place, feed.fault or "damaged"
            size = 1


def _opened(disk: Disk, offset: int) -> tuple[_Feed, Any]:
    head_bytes = _head_bytes(disk, offset)
    assert head_bytes is not None, "a frame begins here"
    feed = _Feed(disk, offset, head_bytes)
    return feed, pa.CompressedInputStream(pa.PythonFile(feed, mode="r"), "zstd")


def _next_frame(disk: Disk, start: int) -> int:
    """Where a frame can begin, from `start` on; the end of the file where none can."""
    while start < disk.size:
        window = disk.read(start, WINDOW_BYTES)
        for match in START.finditer(window):
            place = start + match.start()
            if _head_bytes(disk, place) is not None or _behind_skippable(disk, place) is not None:
                return place
        if len(window) < WINDOW_BYTES:
            break
        start += WINDOW_BYTES - (START_BYTES - 1)
    return disk.size


def _head_bytes(disk: Disk, offset: int) -> int | None:
    """Bytes of the head of a frame; None where no frame can begin: no magic, a reserved bit, an incomplete head or block head."""
    start = disk.read(offset, START_BYTES + 1)
    if len(start) <= START_BYTES or start[:START_BYTES] != MAGIC or start[START_BYTES] & 0x08:
        return None
    flags = start[START_BYTES]
    is_single = flags >> 5 & 1
    sizes = DICTIONARY_BYTES[flags & 3] + (SIZE_BYTES[flags >> 6] or is_single)
    head_bytes = START_BYTES + 1 + (1 - is_single) + sizes
    first = disk.read(offset + head_bytes, BLOCK_HEAD_BYTES)
    if len(first) < BLOCK_HEAD_BYTES:
        return None
    kind, size = block_of(first)
    return None if kind == 3 or size > MAX_BLOCK_BYTES else head_bytes


def _behind_skippable(disk: Disk, offset: int) -> int | None:
    """Where a complete skippable frame at `offset` ends; None if there is none."""
    head = disk.read(offset, START_BYTES + 4)
    if len(head) < START_BYTES + 4 or SKIPPABLE.match(head) is None:
        return None
    end = offset + len(head) + int.from_bytes(head[START_BYTES:], "little")
    return end if end <= disk.size else None
