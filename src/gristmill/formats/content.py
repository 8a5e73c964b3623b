"""The content of a file, plain or packed by gzip or zstd: how all readers of lines, tables, texts and trees open a file.

    with open_content(path) as file:
        line = file.readline(limit)         # like any binary file: read, readline, tell; seek if it is plain
        file.gaps_between(start, tell)      # what could not be unpacked, so that no record is joined across it

The content of a file is the bytes that it delivers and, if it is packed, the bytes on disk of its gaps: `bytes_in` of
records and skips add up to it when each gap is counted once, with its `num_bytes` (members.py and frames.py define gaps and their
place). `position` of a gap is the number of delivered bytes before it. A record of the delivered bytes [a, b) is

    joined across a gap       if a < position < b
    perhaps a tail            if position == a
    perhaps cut off           if position == b and it does not end with its line end, or whatever ends a record

A gap is in the list before any byte after it is delivered, and the list is complete at the end of the file. Records that tile the
content and ask for [a, b) each, with one last call from the end on, meet every gap once.
"""

from __future__ import annotations

import codecs
import io
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from gristmill.data import deadline
from gristmill.formats import frames
from gristmill.formats.members import EXTEND_EVERY_BYTES, MAGIC, Disk, Gap, Member, Packing, unpack
from gristmill.recipe.schema.formats import packing_by_name

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 1 << 17
SNIFF_BYTES = 256
CONTROLS = bytes({*range(32), 127} - set(b"\t\n\r\f"))


class Deliverer(Protocol):
    """A raw stream that delivers a content."""

    gaps: list[Gap]


class ContentFile(io.BufferedReader):
    """A buffered binary file over the content of a file. `tell` counts delivered bytes."""

    def __init__(self, raw: Deliverer) -> None:
        super().__init__(cast(io.RawIOBase, raw), BUFFER_BYTES)
        self._gaps = raw.gaps

    @property
    def gaps(self) -> list[Gap]:
        """The gaps met so far, by position; none in a plain file. Reading ahead fills it."""
        return self._gaps

    def gaps_between(self, start: int, end: int | None = None) -> list[Gap]:
        """The gaps met so far with start <= position < end; from `start` on for None."""
        first = bisect_left(self._gaps, start, key=_position)
        last = len(self._gaps) if end is None else bisect_left(self._gaps, end, key=_position)
        return self._gaps[first:last]


def open_content(path: Path) -> ContentFile:
    """The content of a file, unpacked if it is packed. Only a plain one can seek. Damage is no error here: see `gaps`."""
    packing = packing_of(path)
    return ContentFile(PlainFile(path, "rb") if packing is None else _Unpacked(path.open("rb"), packing))


def packing_of(path: Path) -> Packing | None:
    """How a file is packed: it begins so, or is called so and does not begin as text: UTF-8 without control characters."""
    with path.open("rb") as file:
        first = file.read(SNIFF_BYTES)
    if first.startswith(MAGIC):
        return "gzip"
    if frames.START.match(first) is not None:
        return "zstd"
    return None if _is_text(first) else packing_by_name(path.name)


def is_gzip(path: Path) -> bool:
    """True for a gzip file, of a format that is packed in no other way."""
    with path.open("rb") as file:
        first = file.read(SNIFF_BYTES)
    return first.startswith(MAGIC) or (packing_by_name(path.name) == "gzip" and not _is_text(first))


def _is_text(first: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(first)  # a character cut at the end is no error
    except UnicodeDecodeError:
        return False
    return first != b"" and first.translate(None, CONTROLS) == first


def _position(gap: Gap) -> int:
    return gap.position


class PlainFile(io.FileIO):
    """A plain file, whose reading is work however long it takes."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self.gaps: list[Gap] = []
        self._since = 0

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills the buffer from the file."""
        num_bytes = cast(int, super().readinto(buffer))  # never None: the file is not opened without blocking
        self._since += num_bytes
        if self._since > EXTEND_EVERY_BYTES:
            deadline.extend()
            self._since = 0
        return num_bytes


class Pieces(io.RawIOBase):
    """A raw stream over pieces, none of them empty, that are made of a file. That file is closed with it."""

    def __init__(self, file: IO[bytes], pieces: Iterator[bytes]) -> None:
        super().__init__()
        self.gaps: list[Gap] = []
        self._file, self._pieces = file, pieces
        self._piece = memoryview(b"")
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes delivered."""
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills the buffer with the next bytes of content, those of one piece at most."""
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        target = memoryview(buffer).cast("B")
        num_bytes = min(len(target), len(self._piece))
        target[:num_bytes] = self._piece[:num_bytes]
        self._piece = self._piece[num_bytes:]
        self._position += num_bytes
        return num_bytes

    def close(self) -> None:
        """Closes the file below, too."""
        self._file.close()
        super().close()


class _Unpacked(Pieces):
    """What a packed file unpacks to."""

    def __init__(self, file: IO[bytes], packing: Packing) -> None:
        super().__init__(
            file, self._delivered(frames.unpack_frames(Disk(file)) if packing == "zstd" else unpack(Disk(file)))
        )

    def _delivered(self, pieces: Iterator[Member | Gap | bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if isinstance(piece, Gap):
                self.gaps.append(piece)
            elif isinstance(piece, bytes):
                yield piece
