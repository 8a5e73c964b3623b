"""The lines of a content, in bounded memory, each with the gaps of the content that touch it.

    lines = Lines(file, max_bytes=limit)
    while (line := lines.read()) is not None: ...
    lines.rest()                                   # gaps behind the last line

A gap touches the line that holds it, the line that it precedes, and the one that ends at it without a line end. Such a line may
be two halves of different lines: what it is worth is the reader's to say. Each gap is told of once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from gristmill.data.record import Unread, failed
from gristmill.formats.content import ContentFile
from gristmill.formats.members import Gap

PIECE_BYTES = 1 << 20
SPACES = b" \t\r\n"


class Line(NamedTuple):
    """A line, its end included: `num_bytes` from byte `start` of the content. `data` is all of it unless it is too large."""

    data: bytes
    start: int
    num_bytes: int
    is_too_large: bool
    gaps: list[Gap]


class Lines:
    """Reads lines from where the file is, `offset` in its content. max_bytes: of a line without its end."""

    def __init__(self, file: ContentFile, *, max_bytes: int, offset: int = 0) -> None:
        self.offset = offset
        self._file = file
        self._gaps = file.gaps
        self._gaps_told = 0
        self._max_bytes = max_bytes

    def read(self) -> Line | None:
        """The next line; None at the end."""
        start, data = self.offset, self._file.readline(self._max_bytes + 1)
        if not data:
            return None
        num_bytes, is_whole = len(data), data.endswith(b"\n")
        is_too_large = num_bytes > self._max_bytes and not is_whole
        if is_too_large:
            num_bytes += skip_line(self._file)
        self.offset = start + num_bytes
        gaps = self._untold(is_end=not is_whole) if self._gaps else []
        return Line(data, start, num_bytes, is_too_large, gaps)

    def pass_blank(self, end: int | None = None, *, spaces: bytes = SPACES) -> int:
        """Passes over lines of `spaces` that begin before `end`, many at a time; returns the bytes of some of them, if any.

        No gap touches the lines that are passed over.
        """
        ahead = self._file.peek()
        blank = len(ahead) - len(ahead.lstrip(spaces))
        if len(self._gaps) > self._gaps_told:
            blank = min(blank, max(0, self._gaps[self._gaps_told].position - self.offset))
        if end is not None and end - self.offset < blank:
            blank = ahead.find(b"\n", end - self.offset - 1, blank) + 1 if end > self.offset else 0
        num_bytes = len(self._file.read(ahead.rfind(b"\n", 0, blank) + 1))
        self.offset += num_bytes
        return num_bytes

    def rest(self) -> list[Gap]:
        """The gaps behind the last line, at the end of the content."""
        return self._untold(is_end=True)

    def _untold(self, *, is_end: bool) -> list[Gap]:
        first = self._gaps_told
        last = self.offset if is_end else self.offset - 1
        while self._gaps_told < len(self._gaps) and self._gaps[self._gaps_told].position <= last:
            self._gaps_told += 1
        return self._gaps[first : self._gaps_told]


def seek_to_line(file: ContentFile, start: int) -> int:
    """Moves to the first line of a plain file that begins at or after byte `start` > 0; returns its offset, or the end's."""
    file.seek(start - 1)
    return start - 1 + skip_line(file)


def skip_line(file: ContentFile) -> int:
    """Reads to the end of the line in pieces and returns how many bytes that were."""
    skipped = 0
    while piece := file.readline(PIECE_BYTES):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def drain(file: ContentFile) -> int:
    """Goes to the end and returns how many bytes those were: by seeking in a plain file, by reading in pieces in a packed one."""
    if file.seekable():
        here = file.tell()
        return file.seek(0, os.SEEK_END) - here
    num_bytes = 0
    while piece := file.read(PIECE_BYTES):
        num_bytes += len(piece)
    return num_bytes


def lost_at_gaps(name: str, gaps: Iterable[Gap], *, beside: int = 0) -> Unread:
    """One failed record for gaps that follow each other, and for `beside` bytes of content that are lost with them."""
    first, *more = gaps
    detail = f"{first.fault}: {first.num_bytes:,} bytes from byte {first.offset:,} of the packed file"
    if more:
        detail += f", and {len(more):,} further stretches"
    size = beside + sum(gap.num_bytes for gap in (first, *more))
    return failed(
        f"{name}#gap-{first.offset}-{first.position}", f"corrupt_{first.packing}", bytes_in=size, detail=detail
    )
