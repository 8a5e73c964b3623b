"""How much a zstd file holds, measured without any reader; see coverage.py.

The rules are those of `frames.py`; the code is separate and imports nothing of it: it goes through the blocks of a frame and
counts what is unpacked before an error.
"""

from __future__ import annotations

import re
from typing import IO, Any

import pyarrow as pa

from gristmill.data import deadline

FRAME = b"\x28\xb5\x2f\xfd"
BEGINNING = re.compile(rb"(?=\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)", re.DOTALL)
MAX_BLOCK = 131_072
MAX_GAPS = 1_000
MAX_EMPTY = 1_000
READ_BYTES = 1 << 20


def is_zstd(first: bytes) -> bool:
    """Whether a file that begins with these bytes is one."""
    return BEGINNING.match(first) is not None


def zstd_bytes(file: IO[bytes], size: int) -> int:
    """Bytes of content of a file, and bytes on disk of what unpacks to nothing."""
    total = place = gaps = 0
    while place < size:
        deadline.extend()
        if (end := _skipped(file, place, size)) is not None:
            place = end
            continue
        unpacked, stop = 0, place
        if (blocks := _first_block(file, place)) is not None:
            parts = _Parts(file, place, blocks, size)
            unpacked, is_sound = _unpacked(parts)
            stop = parts.stop
            total += unpacked
            if is_sound:
                place = stop
                continue
        gaps += 1
        following = size if gaps > MAX_GAPS else _following(file, max(stop, place + 1), size)
        total += following - (stop if unpacked else place)
        place = following
    return total


class _Parts:
    """A frame as a file that gives its parts one by one: head, blocks, checksum. stop: where the part begins that was given last, or
    that cannot be given; the end of the frame behind its last."""

    closed = False

    def __init__(self, file: IO[bytes], place: int, blocks: int, size: int) -> None:
        self.file, self.start, self.blocks, self.size = file, place, blocks, size
        self.rewind()

    def rewind(self) -> None:
        """Back to the head."""
        self.parts = self._parts()
        self.rest = b""
        self.is_whole, self.stop = False, self.start

    def _parts(self) -> Any:
        head = _at(self.file, self.start, self.blocks - self.start)
        yield head
        place, last, empty = self.blocks, False, 0
        while not last:
            self.stop = place
            block = int.from_bytes(_at(self.file, place, 3), "little")
            last = block % 2 == 1
            length = 3 + (1 if block // 2 % 4 == 1 else block // 8)
            empty = empty + 1 if block < 8 else 0
            if (
                empty > MAX_EMPTY
                or place + 3 > self.size
                or block // 2 % 4 == 3
                or block // 8 > MAX_BLOCK
                or place + length > self.size
            ):
                return
            yield _at(self.file, place, length)
            place += length
        if head[4] // 4 % 2:
            self.stop = place
            if place + 4 > self.size:
                return
            yield _at(self.file, place, 4)
            place += 4
        self.is_whole, self.stop = True, place

    def read(self, length: int) -> bytes:
        """At most `length` bytes of a part."""
        if not self.rest:
            self.rest = next(self.parts, b"")
        given, self.rest = self.rest[:length], self.rest[length:]
        return given

    def close(self) -> None:
        """As a file has it."""


def _unpacked(parts: _Parts) -> tuple[int, bool]:
    """(bytes that a frame unpacks to before its first error, whether there is none)."""
    total = 0
    stream = pa.CompressedInputStream(pa.PythonFile(parts, mode="r"), "zstd")
    try:
        while read := len(stream.read(READ_BYTES)):
            total += read
            deadline.extend()
        return total, parts.is_whole
    except OSError:
        parts.rewind()
    stream, given = pa.CompressedInputStream(pa.PythonFile(parts, mode="r"), "zstd"), 0
    try:
        while True:
            given += len(stream.read(READ_BYTES if given + READ_BYTES <= total else 1))
            total = max(total, given)
    except OSError:
        return total, False


def _first_block(file: IO[bytes], place: int) -> int | None:
    """Where the blocks of a frame at `place` begin; None where none can begin."""
    head = _at(file, place, 21)
    if head[:4] != FRAME or len(head) < 5 or head[4] // 8 % 2:
        return None
    single = head[4] // 32 % 2
    length = 5 + (0 if single else 1) + (0, 1, 2, 4)[head[4] % 4] + ((1 if single else 0), 2, 4, 8)[head[4] // 64]
    block = head[length : length + 3]
    if len(block) < 3 or block[0] // 2 % 4 == 3 or int.from_bytes(block, "little") // 8 > MAX_BLOCK:
        return None
    return place + length


def _skipped(file: IO[bytes], place: int, size: int) -> int | None:
    """Where a whole skippable frame at `place` ends."""
    head = _at(file, place, 8)
    if len(head) < 8 or head[:4] == FRAME or not is_zstd(head):
        return None
    end = place + 8 + int.from_bytes(head[4:], "little")
    return end if end <= size else None


def _following(file: IO[bytes], start: int, size: int) -> int:
    """The next place at which something can begin."""
    while start < size:
        deadline.extend()
        block = _at(file, start, READ_BYTES)
        for found in BEGINNING.finditer(block):
            place = start + found.start()
            if _first_block(file, place) is not None or _skipped(file, place, size) is not None:
                return place
        if len(block) < READ_BYTES:
            break
        start += READ_BYTES - 3
    return size


def _at(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    return file.read(length)
