"""The items of a JSON array, split by brackets, commas and quotes, in bounded memory.

Everything between two commas of the array is an item; the parser decides whether it is valid. Brackets inside an item are counted,
not matched by kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from gristmill.formats.content import ContentFile

SPACES = b" \t\r\n"
PIECE_BYTES = 1 << 18
SIGNS = re.compile(rb'["\[\]{},]')
IN_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
OPENING = {ord("]"): ord("["), ord("}"): ord("{")}
BACKSLASH = ord("\\")


class Item(NamedTuple):
    """`num_bytes` from byte `start` of the content, without surrounding spaces. data: None if it is too large."""

    data: bytes | None
    start: int
    num_bytes: int


class Items:
    """Reads items from a content whose beginning `first` was already read. around: the brackets around the items, from outside: b"[", or
    b"{[" for the lists of an object. max_bytes: of an item.

    After the last item: num_read is the number of bytes read, fault says why the structure ends before the file does ("" if it does
    not), and lost_from is the byte after which no item was yielded. No items are yielded after a gap of a packed file.
    """

    def __init__(self, file: ContentFile, first: bytes, *, around: bytes, max_bytes: int) -> None:
        self.num_read = self.lost_from = 0
        self.fault = ""
        self._file, self._first, self._around, self._max_bytes = file, first, around, max_bytes
        self._depth, self._open = 0, bytearray(len(around))  # the outermost brackets that are open
        self._in_text = self._is_escaped = self._is_over = False
        self._kept, self._size = list[bytes](), 0  # of an item that began in an earlier piece

    def __iter__(self) -> Iterator[Item]:
        for base, piece in self._pieces():
            begun = 0  # where the part of this piece begins that was not yielded yet
            for place in self._signs(piece):
                sign = piece[place]
                if self._depth > len(self._around):  # inside an item, where only the depth matters
                    self._depth += (sign in b"[{") - (sign in b"]}")
                    continue
                if self._is_over:
                    self.fault = "there is more behind its end"
                    return
                if was_inside := (self._is_inside() and sign not in b"[{"):
                    yield from self._given(piece[begun:place])
                    self.lost_from = base + place
                if not self._follow(sign):
                    return
                if was_inside or self._is_over or (sign in b"[{" and self._is_inside()):
                    begun = place + 1
                    self.lost_from = base + begun
            if self._is_over and piece[begun:].strip(SPACES):
                self.fault = "there is more behind its end"
                return
            if self._is_inside(or_deeper=True):
                self._keep(piece[begun:])
        if not self._is_over and not self._file.gaps:
            self.fault = "it ends inside"

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """Pieces of the content up to its first gap, each with its offset."""
        piece = self._first
        while piece:
            base = self.num_read
            self.num_read += len(piece)
            if self._file.gaps and self._file.gaps[0].position <= self.num_read:
                yield base, piece[: max(0, self._file.gaps[0].position - base)]
                return
            yield base, piece
            piece = self._file.read(PIECE_BYTES)

    def _signs(self, piece: bytes) -> Iterator[int]:
        """The places of brackets and commas outside strings."""
        place = int(self._is_escaped)
        self._is_escaped = False
        while place < len(piece):
            if self._in_text:
                found = IN_TEXT.match(piece, place)
                assert found is not None, "the pattern matches no bytes, too"
                place = found.end()
                if place < len(piece):
                    self._is_escaped = piece[place] == BACKSLASH  # the last byte of the piece
                    self._in_text = self._is_escaped
                    place += 1
            elif (sign := SIGNS.search(piece, place)) is None:
                return
            else:
                place = sign.end()
                if sign[0] == b'"':
                    self._in_text = True
                else:
                    yield place - 1

    def _follow(self, sign: int) -> bool:
        """Follows a bracket; False if it does not match."""
        if sign in b"[{":
            if self._depth < len(self._open):
                self._open[self._depth] = sign
            self._depth += 1
        elif sign in OPENING:
            self._depth -= 1
            if self._depth < 0 or (self._depth < len(self._open) and self._open[self._depth] != OPENING[sign]):
                self.fault = f"a {chr(sign)} closes what was not opened"
                return False
            self._is_over = self._depth == 0
        return True

    def _is_inside(self, *, or_deeper: bool = False) -> bool:
        enough = self._depth >= len(self._around) if or_deeper else self._depth == len(self._around)
        return enough and self._open == self._around

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._max_bytes:
            self._kept.append(data)
        else:
            self._kept.clear()

    def _given(self, end: bytes) -> Iterator[Item]:
        """The item that ends with `end`; none if there are only spaces."""
        self._keep(end)
        data, size = b"".join(self._kept), self._size
        self._kept, self._size = [], 0
        if size > self._max_bytes:
            yield Item(None, self.lost_from, size)
        elif stripped := data.strip(SPACES):
            yield Item(stripped, self.lost_from + len(data) - len(data.lstrip(SPACES)), len(stripped))
