"""The content of a web archive, plain or gzip, read forward from boundary to boundary: which part a span owns, and where it is.

Each gzip member may hold one record, many, or a part of one; a plain file is treated as one long member. A member whose content
begins with HEAD begins a record, always: it is a *boundary*, as is a gap. `Archive` gives the bytes between two boundaries and
the place of each on disk; `warc_records.py` makes records of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gristmill.formats.content import is_packed
from gristmill.formats.members import Disk, Gap, Member, next_member, unpack

HEAD = b"WARC/1."
BLANK_LINE = b"\r\n\r\n"
NEXT_HEAD = BLANK_LINE + HEAD
LINE_ENDS = re.compile(rb"[\r\n]*")
MAX_HEAD_BYTES = 64_000
PLAIN_PIECE_BYTES = 1 << 18
COMPACT_BYTES = 1 << 16

Event = Member | Gap | bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where something begins: the origin of a record, and where on disk the file can be entered at it."""

    origin: str
    entry: int | None = None


@contextmanager
def open_archive(path: Path, *, name: str, start: int, end: int | None) -> Iterator[Archive]:
    """The part of an archive that a span of bytes on disk owns: from its first head to the first head at or after its end.

    A head is a member that begins with HEAD, in a plain file HEAD behind a blank line. Other members continue what was
    before them, so a file of one member falls to its first span.
    """
    with path.open("rb") as file:
        disk = Disk(file)
        end = disk.size if end is None else min(end, disk.size)
        packed = is_packed(path)
        events = _packed_events(disk, start, end) if packed else _plain_events(disk, start, end)
        yield Archive(events, name=name, packed=packed)


def next_head(path: Path, *, start: int, end: int | None) -> int | None:
    """The first head in [start, end), bytes on disk; None where there is none."""
    with path.open("rb") as file:
        disk = Disk(file)
        end = disk.size if end is None else min(end, disk.size)
        if not is_packed(path):
            return _plain_head(disk, start, end)
        member = next_member(disk, start, end, head=HEAD)
        return None if member is None else member.offset


class Archive:
    """The content between two boundaries, read forward; `cross` goes over the boundary when all of it is read."""

    def __init__(self, events: Iterator[Event], *, name: str, packed: bool) -> None:
        self.name = name
        self._events = events
        self._packed = packed
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
            if not self._fill():
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
        if self._packed:
            inside = f"+{position - begin}" if position > begin else ""
            return Place(origin=f"{self.name}#{offset}{inside}", entry=offset if self._is_head else None)
        place = offset + position - begin
        is_head = self.starts_record() and (position == 0 or self._data.endswith(BLANK_LINE, 0, self._at))
        return Place(origin=f"{self.name}#{place}", entry=place if is_head else None)

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


def _packed_events(disk: Disk, start: int, end: int) -> Iterator[Event]:
    if start > 0:
        first = next_member(disk, start, end, head=HEAD)
        start = end if first is None else first.offset
    if start >= end:
        return
    for event in unpack(disk, start=start, end=end):
        yield event
        if isinstance(event, Member) and event.head == HEAD and event.offset >= end:
            return


def _plain_events(disk: Disk, start: int, end: int) -> Iterator[Event]:
    """The bytes of a plain file between two heads, as those of one member."""
    if start > 0:
        first = _plain_head(disk, start, end)
        start = end if first is None else first
    if start >= end:
        return
    next_one = _plain_head(disk, end, disk.size)
    stop = disk.size if next_one is None else next_one
    yield Member(offset=start, head=b"")
    for offset in range(start, stop, PLAIN_PIECE_BYTES):
        yield bytes(disk.read(offset, min(PLAIN_PIECE_BYTES, stop - offset)))
    if next_one is not None:
        yield Member(offset=next_one, head=HEAD)


def _plain_head(disk: Disk, start: int, end: int) -> int | None:
    place = max(0, start - len(BLANK_LINE))
    while place + len(BLANK_LINE) < end:
        window = bytes(disk.read(place, PLAIN_PIECE_BYTES))
        found = window.find(NEXT_HEAD)
        if found >= 0:
            head = place + found + len(BLANK_LINE)
            return head if head < end else None
        if len(window) < PLAIN_PIECE_BYTES:
            return None
        place += len(window) - len(NEXT_HEAD) + 1
    return None


def _line_ends(data: bytearray, place: int) -> int:
    """Where the line ends at `place` end."""
    found = LINE_ENDS.match(data, place)
    assert found is not None, "the pattern matches no bytes, too"
    return found.end()
