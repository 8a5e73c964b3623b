"""Evaluation items as arrays: the words that are looked for, how much each tells, and the seeds by which they are found.

An item is looked for in one of three ways, by the words of its question:

    BARE         8 words or more, which tell enough     the question, also with words changed
    WITH_ANSWER  5 words or more                        the whole question, and the answer close by
    ONE_RUN      fewer                                  question and answer, one behind the other, 5 words or more
    NOT          too few words, or words that tell too little: counted as unprotected

`item_words` makes them of packs, `decontaminate` finds them in texts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.select.words import Int64, UInt64

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

MARGIN = 0.05  # that more of a question must be found than of it stands in its own passage
NOT, BARE, WITH_ANSWER, ONE_RUN = range(4)

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Items as arrays. way_I: BARE and so on; need_I: the share of a BARE question, by weight, that must be found. Item i has the words word_Q[start_I1[i]:start_I1[i + 1]] with weight_Q, and the
    answer answer_A[answer_start_I1[i]:...], whose information is answer_tells_I; of its words the first asked_I are the question, the
    others of ONE_RUN the answer. Seeds are runs of `seed_words` words, sorted by
    hash: of which item, at which of its words."""

    seed_words: int
    names: tuple[str, ...]
    way_I: NDArray[np.int8]
    need_I: Float32
    word_Q: UInt64
    weight_Q: Float32
    start_I1: Int64
    asked_I: Int64
    answer_A: UInt64
    answer_start_I1: Int64
    answer_tells_I: Float32
    hash_S: UInt64
    item_S: Int32
    place_S: Int32

    @cached_property
    def length_I(self) -> Int64:
        """Words of each question."""
        return np.diff(self.start_I1)

    @cached_property
    def total_I(self) -> Float32:
        """Weight of each whole question."""
        return weight_each(self.weight_Q, self.start_I1)

    @cached_property
    def _sieve(self) -> NDArray[np.bool_]:
        sieve = np.zeros(1 << max(16, (16 * len(self.hash_S)).bit_length()), dtype=bool)
        sieve[self.hash_S & np.uint64(len(sieve) - 1)] = True
        return sieve

    @property
    def unprotected(self) -> tuple[str, ...]:
        """The items that are not looked for."""
        return tuple(self.names[i] for i in np.flatnonzero(self.way_I == NOT).tolist())

    def asking_more(self, share_I: Float32) -> Questions:
        """The same, but of an item that is found with that share in its own passage more is asked: a page with the passage is no hit.
        Where no more can be asked, the item is not looked for."""
        more = share_I > 0
        need_I = np.where(more, np.maximum(self.need_I, share_I + MARGIN), self.need_I).astype(np.float32)
        way_I = np.where(more & ((need_I > 1) | (self.way_I != BARE)), NOT, self.way_I).astype(np.int8)
        held = way_I[self.item_S] != NOT
        return replace(
            self,
            need_I=need_I,
            way_I=way_I,
            hash_S=self.hash_S[held],
            item_S=self.item_S[held],
            place_S=self.place_S[held],
        )

    def write(self, folder: Path) -> None:
        """Leaves the arrays in a folder, where other processes map them."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "names.txt").write_text(
            "\n".join([str(self.seed_words), *self.names]), encoding="utf-8", newline="\n"
        )
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def read(cls, folder: Path) -> Questions:
        """What `write` left."""
        seed_words, *names = (folder / "names.txt").read_text(encoding="utf-8").split("\n")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(seed_words=int(seed_words), names=tuple(names), **arrays)

    def answer(self, item: int) -> UInt64:
        """The words of one answer."""
        return self.answer_A[self.answer_start_I1[item] : self.answer_start_I1[item + 1]]

    def question(self, item: int) -> UInt64:
        """The words of one question."""
        return self.word_Q[self.start_I1[item] : self.start_I1[item + 1]]

    def look_up(self, grams: UInt64) -> tuple[Int64, Int64]:
        """(place in `grams`, seed) of all pairs with the same hash; the cost is that of one look for most grams."""
        if not len(self.hash_S):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        likely = np.flatnonzero(self._sieve[grams & np.uint64(len(self._sieve) - 1)])
        order = np.argsort(grams[likely])  # sorted needles are found much faster
        likely = likely[order]
        left = np.searchsorted(self.hash_S, grams[likely], side="left")
        held = np.flatnonzero(self.hash_S[np.minimum(left, len(self.hash_S) - 1)] == grams[likely])
        likely, left = likely[held], left[held]
        counts = np.searchsorted(self.hash_S, grams[likely], side="right") - left
        seeds = np.repeat(left - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return np.repeat(likely, counts), seeds


_ARRAYS = tuple(field.name for field in dataclasses.fields(Questions) if field.name not in ("seed_words", "names"))


def weight_each(weight_Q: Float32, start_I1: Int64) -> Float32:
    """The weight of each item's words together; 0 for none."""
    total = np.concatenate(([0.0], np.cumsum(weight_Q, dtype=np.float64)))
    return (total[start_I1[1:]] - total[start_I1[:-1]]).astype(np.float32)
