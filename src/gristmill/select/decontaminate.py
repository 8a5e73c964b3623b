"""Evaluation items found in any text: documents, conversations, preference pairs.

Question and answer of an item are looked for apart. With n = 13 words, an item is found in a text by one of

    long_question        min(2n, all) consecutive words of a question of n words or more
    question_and_answer  n consecutive words of such a question, and the right answer close behind
    short_item           a question of 5 to n - 1 words, whole, and the right answer close behind; or, where even the
                         question is shorter, question and answer as one sequence of 5 or more words

"Close behind" is within ANSWER_WINDOW words of where the question ends; of a long answer its first n words count.
A shorter part of a question, or an answer without its question, is ordinary text. N-grams that many items share are the
wording of the pack, not of an item, and are left out. Items too short for all three are counted as unprotected: their
documents must be held out by id. `plant` puts known items into real texts, to measure that they are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gristmill.data.packs import Item, Pack
from gristmill.errors import DataError
from gristmill.select.outputs import PlantedRecall
from gristmill.select.words import Int64, UInt64, Words, composed, ngram_hashes, ngrams_per_text, split_words

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

ANSWER_WINDOW = 30
MIN_EXACT_WORDS = 5
COMMON_ITEMS = 20  # an n-gram in more items than this, and in more than COMMON_SHARE of all, is common wording
COMMON_SHARE = 0.01
EXCERPT_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class Match:
    """Items found in a text. `start` and `end` are characters of the first hit in the composed text (NFC); `words` is its
    length in words."""

    item_ids: tuple[str, ...]
    rule: str
    words: int
    start: int
    end: int
    excerpt: str

    @property
    def detail(self) -> str:
        """One line for a ledger."""
        return f"{', '.join(self.item_ids[:5])} by {self.rule}, characters {self.start}-{self.end}: {self.excerpt!r}"


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A text into which one item was put, question and right answer."""

    item_id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Indexed:
    """An item as word hashes. need: words of the question that suffice without the answer; 0 where they never do."""

    id: str
    question: UInt64
    answer: UInt64
    need: int


@dataclass(frozen=True, kw_only=True)
class _Hit:
    item_id: str
    rule: str
    first: int
    end: int


class Decontaminator:
    """Finds the items of packs in texts. `unprotected` are the ids of items too short or too common to be found."""

    def __init__(self, packs: Iterable[Pack], *, ngram: int = 13) -> None:
        self.ngram = ngram
        self.packs = tuple(packs)
        names = [item_name(pack, item) for pack in self.packs for item in pack.items]
        items = [item for pack in self.packs for item in pack.items]
        questions, answers = split_words([i.prompt for i in items]), split_words([i.gold for i in items])
        self._items = [
            _Indexed(id=name, question=questions.of(k), answer=answers.of(k)[:ngram], need=0)
            for k, name in enumerate(names)
        ]
        self._long = _Table.of(
            self._items, ngram, (k for k, item in enumerate(self._items) if len(item.question) >= ngram)
        )
        self._long = self._long.without_common(len(items))
        for k, run in self._long.longest_runs().items():
            self._items[k] = replace(self._items[k], need=min(2 * ngram, run + ngram - 1))
        self._sequences = {k: sequence for k in range(len(items)) if len(sequence := self._short_sequence(k))}
        self._short = _Table.anchors(self._sequences)
        protected = {k for k, item in enumerate(self._items) if item.need} | set(self._sequences)
        self.unprotected = tuple(name for k, name in enumerate(names) if k not in protected)

    def match(self, text: str) -> Match | None:
        """The items in one text, or None."""
        return self.match_all([text])[0]

    def match_all(self, texts: Sequence[str]) -> list[Match | None]:
        """As match, for many texts at once; the cost per text is a few look-ups in sorted tables."""
        found: list[Match | None] = [None] * len(texts)
        if not texts or not self._items:
            return found
        words = split_words(texts)
        touched: set[int] = set()
        for table in (self._long, self._short):
            if table.size:
                grams, offsets = ngrams_per_text(words, table.size)
                places = table.found(grams)
                touched.update((np.searchsorted(offsets, places, side="right") - 1).tolist())
        for d in sorted(touched):
            hits = self._hits(words.of(d))
            if hits:
                found[d] = _to_match(words, d, hits, composed(texts[d]))
        return found

    def _short_sequence(self, k: int) -> UInt64:
        """The words of an item that must occur one after another, for items without a long question."""
        item = self._items[k]
        if len(item.question) >= self.ngram or not len(item.answer):
            return np.empty(0, dtype=np.uint64)
        if len(item.question) >= MIN_EXACT_WORDS:
            return item.question
        both = np.concatenate([item.question, item.answer])[: self.ngram]
        return both if len(both) >= MIN_EXACT_WORDS else np.empty(0, dtype=np.uint64)

    def _hits(self, words_W: UInt64) -> list[_Hit]:
        hits = []
        for k, place, q_start, length in self._long.runs(words_W):
            item = self._items[k]
            rest = len(item.question) - q_start - length
            if length >= item.need:
                hits.append(_Hit(item_id=item.id, rule="long_question", first=place, end=place + length))
            elif _follows(words_W, item.answer, place, place + length + rest + ANSWER_WINDOW):
                hits.append(_Hit(item_id=item.id, rule="question_and_answer", first=place, end=place + length))
        for k, place, _, _ in self._short.runs(words_W):
            item, sequence = self._items[k], self._sequences[k]
            end = place + len(sequence)
            if not np.array_equal(words_W[place:end], sequence):
                continue
            answered = len(item.question) < MIN_EXACT_WORDS or _follows(words_W, item.answer, end, end + ANSWER_WINDOW)
            if answered:
                hits.append(_Hit(item_id=item.id, rule="short_item", first=place, end=end))
        return hits


@dataclass(frozen=True, kw_only=True)
class _Table:
    """N-grams of items, sorted by hash: of which item, at which of its words."""

    size: int
    hash_G: UInt64
    item_G: Int64
    place_G: Int64

    @cached_property
    def _sieve(self) -> NDArray[np.bool_]:
        """True at the low bits of every hash: most n-grams of ordinary text are told by one look."""
        sieve = np.zeros(1 << max(16, (16 * len(self.hash_G)).bit_length()), dtype=bool)
        sieve[self.hash_G & np.uint64(len(sieve) - 1)] = True
        return sieve

    @classmethod
    def of(cls, items: Sequence[_Indexed], size: int, which: Iterable[int]) -> _Table:
        return cls._sorted(size, [(k, ngram_hashes(items[k].question, size)) for k in which])

    @classmethod
    def anchors(cls, sequences: dict[int, UInt64]) -> _Table:
        """The first words of each sequence."""
        rows = [(k, ngram_hashes(sequence[:MIN_EXACT_WORDS], MIN_EXACT_WORDS)) for k, sequence in sequences.items()]
        return cls._sorted(MIN_EXACT_WORDS, rows)

    @classmethod
    def _sorted(cls, size: int, rows: list[tuple[int, UInt64]]) -> _Table:
        if not rows:
            nothing = np.empty(0, dtype=np.int64)
            return cls(size=0, hash_G=np.empty(0, dtype=np.uint64), item_G=nothing, place_G=nothing)
        hashes = np.concatenate([grams for _, grams in rows])
        item = np.concatenate([np.full(len(grams), k, dtype=np.int64) for k, grams in rows])
        place = np.concatenate([np.arange(len(grams), dtype=np.int64) for _, grams in rows])
        order = np.lexsort((place, item, hashes))
        return cls(size=size, hash_G=hashes[order], item_G=item[order], place_G=place[order])

    def without_common(self, num_items: int) -> _Table:
        """Without the n-grams that are the common wording of many items."""
        _, group, counts = np.unique(self.hash_G, return_inverse=True, return_counts=True)
        keep = counts[group] <= max(COMMON_ITEMS, COMMON_SHARE * num_items)
        return replace(self, hash_G=self.hash_G[keep], item_G=self.item_G[keep], place_G=self.place_G[keep])

    def found(self, grams: UInt64) -> Int64:
        """The places of the n-grams that are in the table."""
        if not len(self.hash_G):
            return np.empty(0, dtype=np.int64)
        likely = np.flatnonzero(self._sieve[grams & np.uint64(len(self._sieve) - 1)])
        places = np.minimum(np.searchsorted(self.hash_G, grams[likely]), len(self.hash_G) - 1)
        held: Int64 = likely[self.hash_G[places] == grams[likely]]
        return held

    def longest_runs(self) -> dict[int, int]:
        """Per item the longest run of consecutive n-grams of its question that are in the table."""
        longest: dict[int, int] = {}
        order = np.lexsort((self.place_G, self.item_G))
        for k, _, _, grams in _diagonal_runs(self.item_G[order], self.place_G[order], self.place_G[order]):
            longest[k] = max(longest.get(k, 0), grams)
        return longest

    def runs(self, words_W: UInt64) -> list[tuple[int, int, int, int]]:
        """(item, first word in the text, first word in the question, words) of each maximal common run."""
        if not self.size or len(words_W) < self.size:
            return []
        grams = ngram_hashes(words_W, self.size)
        places = self.found(grams)
        left = np.searchsorted(self.hash_G, grams[places], side="left")
        counts = np.searchsorted(self.hash_G, grams[places], side="right") - left
        entry = np.repeat(left - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        found = _diagonal_runs(self.item_G[entry], np.repeat(places, counts), self.place_G[entry])
        return [(k, place, q_start, grams + self.size - 1) for k, place, q_start, grams in found]


def item_name(pack: Pack, item: Item) -> str:
    """How an item is named in ledgers: "pack/item", which is often what its id says already."""
    return item.id if item.id.startswith(f"{pack.name}/") else f"{pack.name}/{item.id}"


def plant(pack: Pack, documents: Sequence[str], *, seed: int, max_items: int = 500) -> list[Planted]:
    """Copies of the documents with one item each at a random gap between words: question, space, right answer.

    All items where the pack has at most `max_items`, else a sample. Raises ValueError when there are no documents.
    """
    if not documents:
        raise ValueError("planting needs at least one document")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(pack.items))[:max_items])
    planted = []
    for k in chosen.tolist():
        item = pack.items[k]
        document = documents[int(rng.integers(len(documents)))]
        gap = document.find(" ", int(rng.integers(len(document) + 1)))
        cut = len(document) if gap < 0 else gap
        text = f"{document[:cut]}\n\n{item.prompt} {item.gold}\n\n{document[cut:]}"
        planted.append(Planted(item_id=item_name(pack, item), text=text))
    return planted


def planted_recall(
    finder: Decontaminator, documents: Sequence[str], *, seed: int, max_items: int = 500
) -> dict[str, PlantedRecall]:
    """Per pack: items planted, found, and too short to be protected. Raises DataError when a protected one is missed."""
    report: dict[str, PlantedRecall] = {}
    unprotected = set(finder.unprotected)
    for pack in finder.packs:
        planted = [p for p in plant(pack, documents, seed=seed, max_items=max_items) if p.item_id not in unprotected]
        matches = finder.match_all([p.text for p in planted])
        missed = [p.item_id for p, m in zip(planted, matches, strict=True) if m is None or p.item_id not in m.item_ids]
        if missed:
            raise DataError(
                f"decontamination missed {len(missed)} of {len(planted)} planted items of pack {pack.name!r}, "
                f"the first is {missed[0]!r}. All verbatim items must be found, so nothing was selected.\n"
                f"  Look at that item in {pack.path / 'items.jsonl'}; report it if its text is not unusual."
            )
        own = [name for name in finder.unprotected if name.startswith(f"{pack.name}/")]
        report[pack.name] = PlantedRecall(
            items=len(pack.items),
            sha256=pack.sha256,
            planted=len(planted),
            found=len(planted),
            unprotected_items=len(own),
            unprotected_examples=tuple(own[:10]),
        )
    return report


def _diagonal_runs(item: Int64, place: Int64, question_place: Int64) -> list[tuple[int, int, int, int]]:
    """(item, first place, first place in the question, length) of the maximal runs where both places rise by one."""
    if not len(item):
        return []
    diagonal = place - question_place
    order = np.lexsort((place, diagonal, item))
    item, place, question_place, diagonal = item[order], place[order], question_place[order], diagonal[order]
    breaks = (np.diff(item) != 0) | (np.diff(diagonal) != 0) | (np.diff(place) != 1)
    starts = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    lengths = np.diff(np.concatenate((starts, [len(item)])))
    columns = (item[starts], place[starts], question_place[starts], lengths)
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in zip(*columns, strict=True)]


def _follows(words_W: UInt64, answer: UInt64, first: int, end: int) -> bool:
    """Does the answer begin somewhere in words first..end of the text?"""
    if not len(answer):
        return False
    begins = first + np.flatnonzero(words_W[first:end] == answer[0])
    return any(np.array_equal(words_W[place : place + len(answer)], answer) for place in begins.tolist())


def _to_match(words: Words, d: int, hits: list[_Hit], text: str) -> Match:
    hits = sorted(hits, key=lambda hit: (hit.first, -hit.end, hit.item_id))
    start, end = words.characters(d, hits[0].first, hits[0].end)
    return Match(
        item_ids=tuple(dict.fromkeys(hit.item_id for hit in hits)),
        rule=hits[0].rule,
        words=hits[0].end - hits[0].first,
        start=start,
        end=end,
        excerpt=text[start : min(end, start + EXCERPT_CHARS)],
    )
