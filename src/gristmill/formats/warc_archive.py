"""The content of a web archive, plain or gzip, read forward from boundary to boundary: the part that a span owns, and its place.

A gzip member may hold one record, many, or part of one. A member whose content begins with HEAD always begins a record: it
is a *boundary*, and so is a gap. `PackedArchive` gives the bytes between two boundaries and the place of each on disk. A plain file
has one boundary, its end: `PlainArchive` seeks in it. `warc_records.py` finds the records of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gristmill.formats.content import is_gzip
from gristmill.formats.members import Disk, Gap, Member, is_in_row, next_member, place_before, unpack

HEAD = b"WARC/1."
BLANK_LINE = b"\r\n\r\n"
NEXT_HEAD = BLANK_LINE + HEAD
LINE_ENDS = re.compile(rb"[\r\n]*")
MAX_HEAD_BYTES = 64_000
PLAIN_PIECE_BYTES = 1 << 16
COMPACT_BYTES = 1 << 16

Event = Member | Gap | bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a record begins: its origin, and the place on disk at which reading can begin with it."""

    origin: str
    entry: int | None = None


@contextmanager
def open_archive(path: Path, *, name: str, start: int, end: int | None) -> Iterator[PackedArchive | PlainArchive]:
    """The archive for a span of bytes on disk: from the first head in it to the first head at or after its end.

    A head is a member that begins with HEAD; in a plain file, a record after a blank line. Members and records are those found by
    reading from the beginning of the file, so what looks like one inside another is not a head. Other members continue the one
    before, so a file of one member belongs to its first span. A packed archive is only that part, a plain one the whole file.
    """
    with path.open("rb") as file:
        disk = Disk(file)
        end = disk.size if end is None else min(end, disk.size)
        if is_gzip(path):
            yield PackedArchive(_events(disk, start, end), name=name)
        else:
            yield PlainArchive(disk, name=name, start=start, end=end)


class PackedArchive:
    """The content between two boundaries, read forward; `cross` goes over the boundary when all of it is read."""

    def __init__(self, events: Iterator[Event], *, name: str) -> None:
        self.name = name
        self._events = events
        self._data = bytearray()
        self._at = 0  # in _data, of the next byte
        self._start = 0  # of _data in the content
        self._members = [(0, 0)]  # (where in the content it begins, offset on disk), the last ones
        self._is_head = False  # the next byte is the first behind a boundary that is a member
        self._boundary: Member | Gap | None = None
        self._is_bounded = False

    def has(self, num_bytes: int) -> bool:
        """True where so many bytes are left before the boundary."""
        while len(self._data) - self._at < num_bytes:
            if self._is_bounded or not self._fill():
                return False
        return True

    def starts_record(self) -> bool:
        """True where the next bytes are HEAD."""
        return self.has(len(HEAD)) and self._data.startswith(HEAD, self._at)

    def peek(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, counted from the next one, as far as there are so many."""
        self.has(end)
        return bytes(memoryview(self._data)[self._at + start : self._at + end])

    def find_blank_line(self) -> int | None:
        """Bytes up to the end of the first blank line; None where there is none within MAX_HEAD_BYTES."""
        while (found := self._data.find(BLANK_LINE, self._at, self._at + MAX_HEAD_BYTES)) < 0:
            if len(self._data) - self._at >= MAX_HEAD_BYTES or not self._fill():
                return None
        return found + len(BLANK_LINE) - self._at

    def ends_at(self, length: int) -> bool:
        """True where a record of so many bytes is followed by two line ends, by the boundary, or by HEAD at its due place."""
        self.has(length + len(NEXT_HEAD))
        place = self._at + length
        behind = _line_ends(self._data, place)
        if behind - place >= len(BLANK_LINE) or behind == len(self._data):
            return True
        return self._data.startswith(HEAD, behind) or self._data.startswith(HEAD, place + len(BLANK_LINE))

    def skip(self, num_bytes: int) -> None:
        """Goes over bytes that are there."""
        self._at += num_bytes
        self._is_head = False

    def skip_line_ends(self) -> int:
        """Goes over line ends and returns how many bytes those were."""
        begin = self._position
        while self.has(1) and (behind := _line_ends(self._data, self._at)) > self._at:
            self.skip(behind - self._at)
        return self._position - begin

    def skip_blank_line(self) -> int:
        """Goes over what parts a record from the next one: line ends, or other bytes where damage has changed those."""
        if self.has(len(NEXT_HEAD)) and self._data.startswith(HEAD, self._at + len(BLANK_LINE)):
            self.skip(len(BLANK_LINE))
            return len(BLANK_LINE)
        return self.skip_line_ends()

    def skip_to_head(self, max_bytes: int | None = None) -> int:
        """Goes over one byte at least, to the next HEAD behind a blank line, the boundary, or so many bytes ahead."""
        begin = self._position
        if self.has(1):
            self.skip(1)
        while max_bytes is None or self._position < begin + max_bytes:
            found = self._data.find(NEXT_HEAD, max(0, self._at - len(BLANK_LINE)))
            if found >= 0:
                self.skip(found + len(BLANK_LINE) - self._at)
                break
            self.skip(max(0, len(self._data) - self._at - len(NEXT_HEAD)))  # what is left may be the beginning of it
            if not self._fill():
                self.skip(len(self._data) - self._at)
                break
        if max_bytes is not None:
            self._at -= max(0, self._position - begin - max_bytes)
        return self._position - begin

    def cross(self) -> Member | Gap | None:
        """Goes over the boundary: a member, a gap, or None for the end. All before it must be read."""
        assert self._is_bounded, "the boundary is not known yet"
        assert self._at == len(self._data), "bytes before the boundary are not read"
        boundary = self._boundary
        if isinstance(boundary, Member):
            self._enter(boundary)
        self._is_head = isinstance(boundary, Member)
        self._is_bounded = boundary is None
        return boundary

    def place(self) -> Place:
        """Where the next byte is: offset on disk of its member, and its place inside of it unless it is the first."""
        position = self._position
        begin, offset = next(member for member in reversed(self._members) if member[0] <= position)
        inside = f"+{position - begin}" if position > begin else ""
        return Place(origin=f"{self.name}#{offset}{inside}", entry=offset if self._is_head else None)

    def is_wanted(self) -> bool:
        """True: what comes before the span is not here."""
        return True

    def begins_member(self) -> bool:
        """True where a member begins at the next byte."""
        return any(begin == self._position for begin, _ in self._members)

    def is_at_end(self) -> bool:
        """True where nothing is left and nothing follows."""
        return not self.has(1) and self._boundary is None

    @property
    def _position(self) -> int:
        return self._start + self._at

    def _enter(self, member: Member) -> None:
        """Notes where a member begins, and forgets those that ended before the next byte."""
        while len(self._members) > 1 and self._members[1][0] <= self._position:
            del self._members[0]
        self._members.append((self._start + len(self._data), member.offset))

    def _fill(self) -> bool:
        if self._at > COMPACT_BYTES:
            keep = self._at - len(BLANK_LINE)
            del self._data[:keep]
            self._start, self._at = self._start + keep, len(BLANK_LINE)
        while not self._is_bounded:
            event = next(self._events, None)
            if isinstance(event, bytes):
                self._data += event
                return True
            if isinstance(event, Member) and event.head != HEAD:
                self._enter(event)
            else:
                self._boundary, self._is_bounded = event, True
        return False


class PlainArchive:
    """A whole plain file, read forward from its beginning; skipped parts are not read. start, end: of the wanted span."""

    def __init__(self, disk: Disk, *, name: str, start: int, end: int) -> None:
        self.name = name
        self.start = start
        self.end = end
        self._disk = disk
        self._at = 0

    def has(self, num_bytes: int) -> bool:
        """True if that many bytes are left."""
        return self._disk.size - self._at >= num_bytes

    def starts_record(self) -> bool:
        """True where the next bytes are HEAD."""
        return self.peek(0, len(HEAD)) == HEAD

    def peek(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, counted from the next one, as far as there are so many."""
        # Some bytes more in front: `place` looks at them, and the disk does not seek back.
        begin = max(0, self._at + start - len(BLANK_LINE))
        return bytes(self._disk.read(begin, self._at + end - begin)[self._at + start - begin :])

    def find_blank_line(self) -> int | None:
        """Bytes up to the end of the first blank line; None where there is none within MAX_HEAD_BYTES."""
        for size in (MAX_HEAD_BYTES // 32, MAX_HEAD_BYTES):
            found = self.peek(0, size).find(BLANK_LINE)
            if found >= 0:
                return found + len(BLANK_LINE)
        return None

    def ends_at(self, length: int) -> bool:
        """True if a record of that many bytes is followed by two line ends, by the end, or by HEAD where the next one must begin."""
        behind = self.peek(length, length + len(NEXT_HEAD))
        ends = _line_ends(behind, 0)
        if ends >= len(BLANK_LINE) or ends == len(behind):
            return True
        return behind.startswith(HEAD, ends) or behind.startswith(HEAD, len(BLANK_LINE))

    def skip(self, num_bytes: int) -> None:
        """Goes over bytes that are there."""
        self._at += num_bytes

    def skip_line_ends(self) -> int:
        """Goes over line ends and returns how many bytes those were."""
        begin = self._at
        while ends := _line_ends(self.peek(0, PLAIN_PIECE_BYTES if self._at > begin else len(NEXT_HEAD)), 0):
            self._at += ends
        return self._at - begin

    def skip_blank_line(self) -> int:
        """Goes over what parts a record from the next one: line ends, or other bytes where damage has changed those."""
        if self.peek(len(BLANK_LINE), len(NEXT_HEAD)) == HEAD:
            self._at += len(BLANK_LINE)
            return len(BLANK_LINE)
        return self.skip_line_ends()

    def skip_to_head(self, max_bytes: int | None = None) -> int:
        """Goes over at least one byte, to the next HEAD after a blank line, the end, or at most that many bytes."""
        begin, size = self._at, self._disk.size
        stop = size if max_bytes is None else min(size, begin + max_bytes)
        place = max(0, begin + 1 - len(BLANK_LINE))
        self._at = stop
        while place + len(BLANK_LINE) < stop:
            window = bytes(self._disk.read(place, PLAIN_PIECE_BYTES))
            found = window.find(NEXT_HEAD)
            if found >= 0:
                self._at = min(stop, place + found + len(BLANK_LINE))
                break
            if len(window) < len(NEXT_HEAD):
                break
            place += len(window) - len(NEXT_HEAD) + 1
        return self._at - begin

    def cross(self) -> Member | Gap | None:
        """Goes over the boundary: None for the end."""
        return None

    def place(self) -> Place:
        """The place of the next byte: its offset on disk; reading can begin there if a record begins after a blank line."""
        before = bytes(self._disk.read(max(0, self._at - len(BLANK_LINE)), min(self._at, len(BLANK_LINE))))
        is_head = before in (b"", BLANK_LINE) and self.starts_record()
        return Place(origin=f"{self.name}#{self._at}", entry=self._at if is_head else None)

    def is_wanted(self) -> bool:
        """True in the span and after it."""
        return self._at >= self.start

    def begins_member(self) -> bool:
        """False: no members."""
        return False

    def is_at_end(self) -> bool:
        """True if nothing is left."""
        return not self.has(1)


def _events(disk: Disk, start: int, end: int) -> Iterator[Event]:
    """What a span of a packed file owns, and the head behind it."""
    if start >= end:
        return
    for event in unpack(disk) if start == 0 else _from_head(disk, start, end):
        yield event
        if isinstance(event, Member) and event.head == HEAD and event.offset >= end:
            return


def _from_head(disk: Disk, start: int, end: int) -> Iterator[Event]:
    """A packed file from its first head in [start, end) on; nothing where there is none."""
    candidate = next_member(disk, start, end, head=HEAD)
    if candidate is None:
        return
    in_row = is_in_row(disk, candidate.offset)
    events = unpack(disk, start=candidate.offset if in_row else place_before(disk, candidate.offset))
    for event in events:
        if not isinstance(event, Member) or event.offset < start:
            continue
        if event.offset >= end:
            return
        if event.head == HEAD:
            yield event
            yield from events
            return


def next_member_head(disk: Disk, start: int, end: int) -> int | None:
    """The first head of a packed file in [start, end); None where there is none."""
    first = next(_from_head(disk, start, end), None)
    return first.offset if isinstance(first, Member) else None


def _line_ends(data: bytes | bytearray, place: int) -> int:
    """Where the line ends at `place` end."""
    found = LINE_ENDS.match(data, place)
    assert found is not None, "the pattern matches no bytes, too"
    return found.end()
