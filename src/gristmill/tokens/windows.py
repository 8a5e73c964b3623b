"""A selection of a shard's documents, read as one run of tokens in windows of any length.

Window w at seq_len T is tokens [w*T, w*T + T + 1) of the selected documents laid end to end: T inputs and their targets, the
last token being the next window's first. A selection keeps the spans of its documents, never a copy of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.planning.budget import num_windows
from gristmill.tokens.shards import TokenShard


@dataclass(frozen=True, kw_only=True)
class Part:
    """Tokens [first, end) of a document, its eos id included; document: a row of the shard's index."""

    document: int
    first: int
    end: int


class Selection:
    """The documents of `shard` with at least `min_document_tokens` tokens (eos included), or all of them.

    num_tokens      of the selected documents together; one epoch draws those that fill whole windows
    """

    def __init__(self, shard: TokenShard, *, min_document_tokens: int | None = None) -> None:
        self.shard = shard
        if min_document_tokens is None:
            starts = np.zeros(1, dtype=np.int64)
            stops = np.array([shard.num_tokens], dtype=np.int64)
        else:
            lengths = shard.document_lengths()
            ends = np.cumsum(lengths)
            chosen = np.flatnonzero(lengths >= min_document_tokens)
            # Neighbours in the file join into one run, so that few windows are made of pieces.
            opens = np.flatnonzero(np.diff(chosen, prepend=-2) != 1)
            closes = np.append(opens[1:], len(chosen)) - 1 if len(chosen) else opens
            starts, stops = (ends - lengths)[chosen[opens]], ends[chosen[closes]]
        self._starts = starts
        self._offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
        self.num_tokens = int(self._offsets[-1])
        self._only_start = int(starts[0]) if len(starts) == 1 else None

    def num_windows(self, seq_len: int) -> int:
        """Whole windows of `seq_len` inputs; the rest, less than a window, is never drawn."""
        return num_windows(self.num_tokens, seq_len)

    def pieces(self, start: int, count: int) -> list[tuple[int, int]]:
        """Where tokens [start, start + count) of the selection lie in the shard: spans [from, to), in order."""
        run = int(np.searchsorted(self._offsets, start, side="right")) - 1
        spans: list[tuple[int, int]] = []
        while count:
            here = min(count, int(self._offsets[run + 1]) - start)
            at = int(self._starts[run]) + start - int(self._offsets[run])
            spans.append((at, at + here))
            start, count, run = start + here, count - here, run + 1
        return spans

    def read(self, start: int, count: int) -> memoryview | bytes:
        """The ids of tokens [start, start + count) of the selection, as bytes. Raises DamagedShard, as the shard does."""
        if self._only_start is not None:
            begin = self._only_start + start
            return self.shard.read(begin, begin + count)
        return b"".join([self.shard.read(*span) for span in self.pieces(start, count)])

    def parts(self, start: int, count: int) -> list[Part]:
        """What tokens [start, start + count) are of which documents, in order."""
        found: list[Part] = []
        for begin, end in self.pieces(start, count):
            document = self.shard.document_at(begin)
            while begin < end:
                opens, closes = self.shard.place(document)
                stop = min(end, closes)
                found.append(Part(document=document, first=begin - opens, end=stop - opens))
                begin, document = stop, document + 1
        return found

    def place_of(self, document: int) -> tuple[int, int] | None:
        """The selection's tokens [first, end) that are the document's; None where it is not selected."""
        opens, closes = self.shard.place(document)
        run = int(np.searchsorted(self._starts, opens, side="right")) - 1
        if run < 0:
            return None
        first = int(self._offsets[run]) + opens - int(self._starts[run])
        return (first, first + closes - opens) if first < int(self._offsets[run + 1]) else None
