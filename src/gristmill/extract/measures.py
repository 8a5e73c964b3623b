"""One pass over a text: its tokens, lines and n-grams, measured once and shared by all rules."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from gristmill.extract.english_words import english_words
from gristmill.extract.marks import PUNCTUATION

MAX_CHARACTERS = 5_000_000

_PARAGRAPH_END = re.compile(r"\n{2,}")
_LINE_END = re.compile(r"\n+")
_PLACE = re.compile(r"(?:#\d+)+\Z")
_WORD_OR_MARKS = re.compile(r"\w+|([^\w\s])\1*")
_HASH_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse
_HASH_INVERSE = np.uint64(pow(int(_HASH_BASE), -1, 2**64))

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class Measures:
    """What the rules ask about one text. Everything is computed when first asked for; shares of nothing are 0.

    tokens: cuts a text into words and punctuation marks. name: the id of the record, which for a file ends in its path.
    """

    def __init__(self, text: str, tokens: Callable[[str], Sequence[str]] = english_words, *, name: str = "") -> None:
        self.text = text
        self.name = name
        self._tokens = tokens
        self.num_characters = max(1, len(text))

    @property
    def extension(self) -> str:
        """What follows the last dot of the file's name, or a name without one, in lower case: "py", "makefile"."""
        return _PLACE.sub("", self.name).rpartition("/")[2].rpartition("#")[2].rpartition(".")[2].lower()

    @property
    def path(self) -> str:
        """The path of a file below the folder or archive that it lies in; of a file alone its name."""
        name = _PLACE.sub("", self.name)
        return name.partition("#")[2] or name

    # ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @functools.cached_property
    def _vocabulary(self) -> tuple[list[str], Ints]:
        """Distinct tokens in order of appearance, and the token of each place as an index into them."""
        table: dict[str, int] = {}
        ids = [table.setdefault(token, len(table)) for token in self._tokens(self.text[:MAX_CHARACTERS])]
        return list(table), np.array(ids, dtype=np.int64)

    @functools.cached_property
    def _lengths(self) -> Ints:
        """Characters of the token at each place."""
        tokens, ids = self._vocabulary
        return np.array([len(token) for token in tokens], dtype=np.int64)[ids] if tokens else ids

    @functools.cached_property
    def num_tokens(self) -> int:
        """Words and punctuation marks."""
        return len(self._vocabulary[1])

    @functools.cached_property
    def _word_lengths(self) -> Ints:
        """Characters of each token that is not all punctuation: those are the words."""
        tokens, ids = self._vocabulary
        is_word = np.array([not PUNCTUATION.issuperset(token) for token in tokens], dtype=bool)
        return self._lengths[is_word[ids]] if tokens else ids

    @property
    def num_words(self) -> int:
        return len(self._word_lengths)

    @property
    def mean_word_length(self) -> float:
        """Characters per word."""
        return float(self._word_lengths.mean()) if self.num_words else 0.0

    @functools.cached_property
    def share_with_letter(self) -> float:
        """Share of all tokens, punctuation included, that hold a letter."""
        tokens, ids = self._vocabulary
        if not tokens:
            return 0.0
        has_letter = np.array([any(map(str.isalpha, token)) for token in tokens], dtype=bool)
        return float(has_letter[ids].mean())

    def num_distinct(self, words: frozenset[str]) -> int:
        """How many of `words` occur as tokens, case-sensitively, each counted once."""
        return len(words.intersection(self._vocabulary[0]))

    def per_token(self, *marks: str) -> float:
        """Occurrences of any of `marks` in the text per token."""
        return sum(map(self.text.count, marks)) / self.num_tokens if self.num_tokens else 0.0

    # ── n-grams ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @functools.cached_property
    def _hashed(self) -> tuple[Hashes, Hashes]:
        """Of the token at each place, a hash of its characters and the factor that moves a hash before it past them: the hash of two
        texts in a row is before * factor + after, modulo 2^64."""
        tokens, ids = self._vocabulary
        lengths = np.array([len(token) for token in tokens], dtype=np.int64)
        ends = np.cumsum(lengths)
        with np.errstate(over="ignore"):
            powers = np.multiply.accumulate(np.full(int(lengths.max(initial=0)) + 1, _HASH_BASE)) * _HASH_INVERSE
        codes = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(
            np.uint64
        ) + np.uint64(1)
        places = np.repeat(ends, lengths) - np.arange(1, len(codes) + 1)  # characters of the token that follow
        hashes = np.add.reduceat(codes * powers[places], ends - lengths) if tokens else codes
        return hashes[ids], powers[lengths][ids]

    @functools.cached_property
    def _hashes(self) -> list[Hashes]:
        """For n = 1 ... 10 a 64-bit hash of the n-gram that begins at each place, joined without blanks."""
        return self._grams(10, blank=False)

    @functools.cached_property
    def _hashes_with_blanks(self) -> list[Hashes]:
        """For n = 1 ... 4 a 64-bit hash of the n-gram that begins at each place, joined with blanks."""
        return self._grams(4, blank=True)

    def _grams(self, most: int, *, blank: bool) -> list[Hashes]:
        hashes, factors = self._hashed
        grams = [hashes]
        for n in range(2, most + 1):
            before = grams[-1][: max(0, len(hashes) - n + 1)]
            if blank:
                before = before * _HASH_BASE
            grams.append(before * factors[n - 1 :] + hashes[n - 1 :])
        return grams

    @functools.cached_property
    def _offsets(self) -> Ints:
        """Characters of all tokens before each place."""
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self._lengths)])

    def top_ngram_share(self, n: int) -> float:
        """Characters of the most frequent n-gram (joined with blanks) times its count, over the text's characters.

        Among equally frequent ones the first counts.
        """
        hashes = self._hashes_with_blanks[n - 1]
        if not len(hashes):
            return 0.0
        _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        start = int(first[counts == counts.max()].min())
        length = int(self._offsets[start + n] - self._offsets[start]) + n - 1
        return length * int(counts.max()) / self.num_characters

    def most_repeats_in_a_row(self, n: int) -> int:
        """How often any n-gram of 1 to `n` words follows itself on the spot, itself counted: 3 for "a b a b a b". A run of one mark,
        as in a ruled line, is one word here."""
        table: dict[str, int] = {}
        found = _WORD_OR_MARKS.finditer(self.text[:MAX_CHARACTERS])
        ids = np.array([table.setdefault(word.group(), len(table)) for word in found], dtype=np.int64)
        most = min(1, len(ids))
        for period in range(1, min(n, len(ids) - 1) + 1):
            differs = np.flatnonzero(ids[period:] != ids[:-period])
            bounds = np.concatenate([np.array([-1]), differs, np.array([len(ids) - period])])
            most = max(most, 1 + (int(np.diff(bounds).max()) - 1) // period)
        return most

    def duplicated_ngram_share(self, n: int) -> float:
        """Characters in n-grams (joined without blanks) seen before, over the text's characters.

        Left to right; after a hit the window moves n tokens, so nothing is counted twice, and what it passes over is not seen.
        Only places that repeat an n-gram are walked through.
        """
        if n >= 5 and not self._repeats_5:
            return 0.0
        _, first, ids = np.unique(self._hashes[n - 1], return_index=True, return_inverse=True)
        again = np.flatnonzero(first[ids] != np.arange(len(ids)))
        offsets = self._offsets
        passed = bytearray(len(ids) + n)
        seen: set[int] = set()
        characters = free = 0
        for place, earlier, gram in zip(again.tolist(), first[ids[again]].tolist(), ids[again].tolist(), strict=True):
            if place < free:
                continue
            if passed[earlier] and gram not in seen:
                seen.add(gram)
                continue
            characters += int(offsets[place + n] - offsets[place])
            free = place + n
            passed[place:free] = b"\1" * n
        return characters / self.num_characters

    @functools.cached_property
    def _repeats_5(self) -> bool:
        """Whether any 5-gram occurs twice; if not, no longer one does."""
        return len(np.unique(self._hashes[4])) < len(self._hashes[4])

    # ── lines and paragraphs ────────────────────────────────────────────────────────────────────────────────────────

    @functools.cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank."""
        return [line for line in self.text.split("\n") if line.strip()]

    @functools.cached_property
    def duplicate_paragraphs(self) -> tuple[float, float]:
        """Share of paragraphs that are copies of an earlier one, and of characters in them."""
        return self._duplicates(_PARAGRAPH_END.split(self.text.strip()))

    @functools.cached_property
    def duplicate_lines(self) -> tuple[float, float]:
        """Share of lines that are copies of an earlier one, and of characters in them."""
        return self._duplicates(_LINE_END.split(self.text))

    def _duplicates(self, elements: list[str]) -> tuple[float, float]:
        extra = [(element, count - 1) for element, count in Counter(elements).items() if count > 1]
        characters = sum(len(element) * copies for element, copies in extra)
        return sum(copies for _, copies in extra) / len(elements), characters / self.num_characters

    @functools.cached_property
    def repeated_line_share(self) -> float:
        """Characters in lines seen before, over all characters but newlines."""
        repeated = sum(len(line) * (count - 1) for line, count in Counter(self.lines).items())
        return repeated / max(1, len(self.text) - self.text.count("\n"))

    def share_of_lines(self, holds: list[bool]) -> float:
        """Share of true values, one per line."""
        return sum(holds) / len(holds) if holds else 0.0
