"""The units of a text that may be repeated in others, paragraphs or lines: where they are, when two are the same, a text without some.

    paragraph    neighbouring lines that are not blank
    line         one line that is not blank

Two units are the same when they have the same words, as `words` has them: case, punctuation, white space and the way an accent was typed
do not count, digits do. They are known by 128 bits of a hash over the 64-bit hashes of their words: among ten billion units the odds
that two with other words share one are 2e-19, and 3e-6 that any two of ten million words do, which would have to stand in the same place
of units that are otherwise the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np
import xxhash

from gristmill.select.corpus import BATCH_BYTES, pieces, text_pieces
from gristmill.select.words import Int64, UInt64, split_words

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

Unit = Literal["paragraph", "line"]
Span = tuple[int, int]
_LINE = re.compile(r"[^\n]+")


def units_of(text: str, unit: Unit) -> list[Span]:
    """First character and end of each unit, in order; between two there is white space only, with a line feed in it."""
    lines = (found.span() for found in _LINE.finditer(text) if not found.group().isspace())
    return list(lines if unit == "line" else _joined(lines))


def _joined(lines: Iterator[Span]) -> Iterator[Span]:
    """Neighbouring lines as one."""
    first = end = -1
    for start, stop in lines:
        if start != end + 1 or end < 0:
            if end >= 0:
                yield first, end
            first = start
        end = stop
    if end >= 0:
        yield first, end


def unit_hashes(units: Sequence[str], *, min_words: int = 1) -> tuple[UInt64, Int64]:
    """Of U units: 128 bits each (U, 2), high half first, zeros for those with fewer words, and their numbers of words (U,)."""
    hashes_U2, words_U = np.zeros((len(units), 2), dtype=np.uint64), np.zeros(len(units), dtype=np.int64)
    sizes = np.array([len(unit) for unit in units], dtype=np.int64)
    for first, end in pieces(sizes, BATCH_BYTES):
        if end - first == 1:
            digest, words_U[first] = _of_long(units[first])
            hashes_U2[first] = np.frombuffer(digest, dtype=">u8")
            continue
        words = split_words(units[first:end])
        words_U[first:end] = np.diff(words.offsets_D1)
        long_enough = np.flatnonzero(words_U[first:end] >= min_words)
        view = memoryview(words.hashes_W.tobytes())
        edges = zip((8 * words.offsets_D1[long_enough]).tolist(), (8 * words.offsets_D1[long_enough + 1]).tolist())
        digests = b"".join(xxhash.xxh3_128_digest(view[start:stop]) for start, stop in edges)
        hashes_U2[first + long_enough] = np.frombuffer(digests, dtype=">u8").reshape(-1, 2)
    return hashes_U2, words_U


def num_words(text: str) -> int:
    """Words of a text of any length."""
    return sum(len(split_words([piece]).hashes_W) for piece in text_pieces(text))


def without(text: str, units: Sequence[Span], gone: Collection[int]) -> str:
    """The text without the units of these numbers. Of the white space around them the piece with most line feeds stays between two
    that are left; what stood before the first and after the last unit stays where that unit does."""
    left = [number for number in range(len(units)) if number not in gone]
    if len(left) == len(units):
        return text
    if not left:
        return ""
    parts = [text[: units[0][0]] if left[0] == 0 else ""]
    for number, after in zip(left, [*left[1:], None]):
        parts.append(text[slice(*units[number])])
        if after is not None:
            gaps = [text[units[n][1] : units[n + 1][0]] for n in range(number, after)]
            parts.append(max(gaps, key=lambda gap: gap.count("\n")))
    parts.append(text[units[-1][1] :] if left[-1] == len(units) - 1 else "")
    return "".join(parts)


def _of_long(unit: str) -> tuple[bytes, int]:
    digest, count = xxhash.xxh3_128(), 0
    for piece in text_pieces(unit):
        hashes_W = split_words([piece]).hashes_W
        digest.update(hashes_W.tobytes())
        count += len(hashes_W)
    return digest.digest(), count
