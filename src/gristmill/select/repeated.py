"""Units of text that occur again in later documents: which documents lose which of them, and to which document. Memory is bounded.

    documents that take part ── order.py ─→ ranks: validation text and training text in the order of survivors
    texts ─→ each shard: (hash, row, unit) sorted by hash, cut into ranges of hashes
          ─→ each range of all shards: first document, held-out document, number of documents of each unit
                                    ─→ the same rows again: those that go, a part per shard of documents

Only kept documents are here, so one that was dropped marks nothing. The first training document in the order of survivors keeps a unit,
and those after it lose it, once `min_documents` have it. A unit of validation text leaves all training text, however few have it:
what is measured on must not stand in training text under another cut. Validation documents themselves are not edited, so a score with
and without this rule is a score on the same text. A document is decided by those of its level and of levels before it, so late sources
change nothing of others. What a document says twice stays, unless another one has it.

A unit that stays makes its document `min_words` long, and a document is dropped only when less is left. So a document that keeps a
unit for others is kept, and no decision depends on another one.

A range is summed up by its distinct units, however many documents have one. Every stage leaves finished files, as in `dedup`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gristmill.select.corpus import Corpus, batches_of_texts
from gristmill.select.files import Array, mapped, read_flat, read_part, read_part_of_all, write_parts
from gristmill.select.groups import begins_of, cut
from gristmill.select.order import SortPaths, num_ranges, sort_corpus
from gristmill.select.stages import Stage
from gristmill.select.units import Unit, unit_hashes, units_of
from gristmill.select.words import Int64

VERSION = 3  # of every step that uses it: rises when the meaning of what it computes changes

ROW_BYTES = 400  # of a worker's memory per distinct unit of a range
WORD_BYTES = 2  # at least, with what parts it from the next one
MOST_FREQUENT = 20
SUMMED_ROWS = 1 << 19  # rows that wait at least before they are summed up with those before them
NONE = np.iinfo(np.int64).max  # no rank

UNIT = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i4"), ("unit", "<i4")])
SUM = np.dtype(
    [
        ("high", "<u8"),
        ("low", "<u8"),
        ("level", "<i8"),
        ("documents", "<i8"),
        ("trained", "<i8"),
        ("first", "<i8"),
        ("held", "<i8"),
    ]
)
LOST = np.dtype([("row", "<i4"), ("unit", "<i4"), ("owner", "<i8"), ("is_held", "?")])
FREQUENT = np.dtype([("high", "<u8"), ("low", "<u8"), ("lost", "<i8"), ("owner", "<i8"), ("is_held", "?")])


@dataclass(frozen=True, kw_only=True)
class RepeatedRules:
    """What counts as repeated. min_words: of a unit; shorter ones stay. min_documents: that have it, the first one too."""

    unit: Unit
    min_words: int
    min_documents: int


@dataclass(frozen=True, kw_only=True)
class SpillUnits:
    """The function over shards: hashes of the units of one shard that are long enough, cut into ranges. Reads texts."""

    corpus: Corpus
    rules: RepeatedRules
    num_ranges: int
    out: Path

    def target(self, k: int) -> Path:
        """Where they lie: a part per range, of UNIT, sorted by hash, then by row and unit."""
        return self.out / f"units-of-{k:05d}.bin"

    def __call__(self, k: int) -> None:
        rows = np.concatenate([np.empty(0, dtype=UNIT), *self._batches(k)])
        write_parts(self.target(k), cut(rows, rows["high"], self.num_ranges), count=self.num_ranges)

    def _batches(self, k: int) -> Iterator[Array]:
        wanted = np.flatnonzero(self.corpus.passed_of(k))
        for row_D, texts in batches_of_texts(self.corpus.shards[k].documents, wanted):
            spans = [units_of(text, self.rules.unit) for text in texts]
            hashes_U2, words_U = unit_hashes(
                [text[first:end] for text, own in zip(texts, spans) for first, end in own],
                min_words=self.rules.min_words,
            )
            count_D = np.array([len(own) for own in spans], dtype=np.int64)
            found = np.empty(len(words_U), dtype=UNIT)
            found["high"], found["low"] = hashes_U2[:, 0], hashes_U2[:, 1]
            found["row"] = np.repeat(row_D, count_D)
            found["unit"] = np.arange(len(words_U)) - np.repeat(np.cumsum(count_D) - count_D, count_D)
            yield found[words_U >= self.rules.min_words]


@dataclass(frozen=True, kw_only=True)
class GroupUnits:
    """The function over ranges: which documents lose which units of one range.

    level_S: of the source of each shard. held: an .npy file with a boolean per document, whether it is validation text.
    """

    spilled: SpillUnits
    sort: SortPaths
    level_S: tuple[int, ...]
    held: Path

    @property
    def num_shards(self) -> int:
        return len(self.spilled.corpus.shards)

    def target(self, r: int) -> Path:
        """Where they lie: a part of LOST per shard, the documents that keep a unit for others, a part of FREQUENT."""
        return self.spilled.out / f"lost-{r:05d}.bin"

    def __call__(self, r: int) -> None:
        sums = decided(self._sums(r), min_documents=self.spilled.rules.min_documents)
        write_parts(self.target(r), self._parts(sums, r), count=self.num_shards + 2)

    def _sums(self, r: int) -> Array:
        """One row of SUM for each distinct unit and level."""
        sums, waiting, count = np.empty(0, dtype=SUM), list[Array](), 0
        for k in range(self.num_shards):
            waiting.append(self._sums_of_shard(k, r))
            count += len(waiting[-1])
            if count > max(len(sums), SUMMED_ROWS):
                sums, waiting, count = summed([sums, *waiting]), [], 0
        return summed([sums, *waiting])

    def _sums_of_shard(self, k: int, r: int) -> Array:
        """Each document counts once, whatever it says twice."""
        units, rank_N, held_N = self._shard(k, r)
        once = begins_of(units["high"], units["low"], units["row"])
        rows = np.empty(int(once.sum()), dtype=SUM)
        rows["high"], rows["low"], rows["level"] = units["high"][once], units["low"][once], self.level_S[k]
        rows["documents"], rows["trained"] = 1, ~held_N[once]
        rows["first"] = np.where(held_N[once], NONE, rank_N[once])
        rows["held"] = np.where(held_N[once], rank_N[once], NONE)
        return summed([rows])

    def _shard(self, k: int, r: int) -> tuple[Array, Int64, Array]:
        """The units of a shard that are in the range, with the rank of their document and whether it is validation text."""
        units = read_part(self.spilled.target(k), r, UNIT)
        units = units[np.lexsort((units["unit"], units["row"], units["low"], units["high"]))]
        first, end = (int(number) for number in self.spilled.corpus.firsts_S1[k : k + 2])
        rank_D = read_flat(self.sort.ranks, np.int64, first=first, count=end - first)
        return units, rank_D[units["row"]], self.spilled.corpus.mask(self.held, k)[units["row"]]

    def _parts(self, sums: Array, r: int) -> Iterator[Array]:
        document_R = mapped(self.sort.order, np.int64)
        owners = [np.empty(0, dtype=np.int64)]
        for k in range(self.num_shards):
            units, rank_N, held_N = self._shard(k, r)
            mine = sums[sums["level"] == self.level_S[k]]
            place_N, found_N = places_of(units, mine)
            owner_N, is_held_N = owner_of(mine)
            gone = np.flatnonzero(found_N & ~held_N)
            gone = gone[owner_N[place_N[gone]] != rank_N[gone]]
            lost = np.empty(len(gone), dtype=LOST)
            lost["row"], lost["unit"] = units["row"][gone], units["unit"][gone]
            lost["owner"] = document_R[owner_N[place_N[gone]]]
            lost["is_held"] = is_held_N[place_N[gone]]
            owners.append(np.unique(lost["owner"]))
            yield lost
        yield np.unique(np.concatenate(owners))
        yield most_frequent([_frequent(sums, document_R)])


def summed(parts: Sequence[Array]) -> Array:
    """Rows of SUM as one for each unit and level, sorted by these."""
    rows = np.concatenate(parts)
    rows = rows[np.lexsort((rows["level"], rows["low"], rows["high"]))]
    starts = np.flatnonzero(begins_of(rows["high"], rows["low"], rows["level"]))
    sums = rows[starts]
    if len(sums):
        for name, fold in (("documents", np.add), ("trained", np.add), ("first", np.minimum), ("held", np.minimum)):
            sums[name] = fold.reduceat(rows[name], starts)
    return sums


def decided(sums: Array, *, min_documents: int) -> Array:
    """Of sorted rows of SUM, one for each unit and level, those whose documents lose the unit to one before them; what earlier levels
    have is added to each. `trained` becomes the number of documents of the level that lose it."""
    begins = begins_of(sums["high"], sums["low"])
    found, own_first = sums.copy(), sums["first"]
    depth = np.arange(len(sums)) - np.maximum.accumulate(np.where(begins, np.arange(len(sums)), 0))
    for level in range(1, int(depth.max(initial=0)) + 1):  # the second, third … level that has the unit
        here = np.flatnonzero(depth == level)
        found["documents"][here] += found["documents"][here - 1]
        for name in ("first", "held"):
            found[name][here] = np.minimum(found[name][here], found[name][here - 1])
    is_held = found["held"] != NONE
    keeps_it = ~is_held & (found["first"] == own_first) & (found["trained"] > 0)
    found["trained"] -= keeps_it
    loses = (is_held | (found["documents"] >= min_documents)) & (found["trained"] > 0)
    chosen: Array = found[loses]
    return chosen


def owner_of(sums: Array) -> tuple[Int64, Array]:
    """The rank of the document that keeps each unit, and whether that is validation text, which goes before all training text."""
    is_held = sums["held"] != NONE
    return np.where(is_held, sums["held"], sums["first"]), is_held


def places_of(units: Array, sums: Array) -> tuple[Int64, Array]:
    """For each unit the place of its row among those of one level, and whether there is one."""
    high, low = (np.concatenate([sums[half], units[half]]) for half in ("high", "low"))
    order = np.lexsort((np.arange(len(high)) >= len(sums), low, high))
    begins = begins_of(high[order], low[order])
    head = order[np.maximum.accumulate(np.where(begins, np.arange(len(high)), 0))]
    head_of = np.empty(len(high), dtype=np.int64)
    head_of[order] = head
    place_N = head_of[len(sums) :]
    found_N = place_N < len(sums)
    return np.where(found_N, place_N, 0), found_N


def _frequent(sums: Array, document_R: Array) -> Array:
    """Rows of FREQUENT: how many documents of all levels lose each unit."""
    starts = np.flatnonzero(begins_of(sums["high"], sums["low"]))
    rows = np.empty(len(starts), dtype=FREQUENT)
    if len(starts):
        owner_N, is_held_N = owner_of(sums[starts])
        rows["high"], rows["low"] = sums["high"][starts], sums["low"][starts]
        rows["lost"] = np.add.reduceat(sums["trained"], starts)
        rows["owner"], rows["is_held"] = document_R[owner_N], is_held_N
    return rows


def most_frequent(parts: Sequence[Array]) -> Array:
    """The MOST_FREQUENT rows of FREQUENT that most documents lose, in that order."""
    rows = np.concatenate([np.empty(0, dtype=FREQUENT), *parts])
    return rows[np.lexsort((rows["low"], rows["high"], -rows["lost"]))[:MOST_FREQUENT]]


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """What was found: the files of all ranges."""

    rules: RepeatedRules
    files: tuple[Path, ...]
    num_shards: int

    def lost_by(self, k: int) -> Array:
        """What the documents of shard k lose: rows of LOST, by row and unit."""
        lost = read_part_of_all(self.files, k, LOST)
        return lost[np.lexsort((lost["unit"], lost["row"]))]

    @property
    def owners(self) -> Int64:
        """The documents that keep a unit for others, ascending."""
        owners: Int64 = np.unique(read_part_of_all(self.files, self.num_shards, np.int64))
        return owners

    @property
    def most_frequent(self) -> Array:
        """Rows of FREQUENT."""
        return most_frequent([read_part(path, self.num_shards + 1, FREQUENT) for path in self.files])


def num_units(text_bytes: float, documents: float, *, min_words: int) -> float:
    """About how many units of so many words or more a text has: one in 330 bytes of it for 13 words, in 500 for 30.

    As measured on pages of C4, manuals in HTML, manual pages and novels: 260 to 430 for paragraphs and 250 to 330 for lines of 13 words or
    more. Lines of wrapped books are shorter, and web pages without blank lines are one paragraph each."""
    return text_bytes / (200 + 10 * min_words) + documents


def disk_bytes(documents: float, units: float, *, share_lost: float) -> int:
    """The bytes on disk at the peak of the search: the order of the documents, their units, and those that go. Ids of 40 bytes."""
    known = 1 + 1 + 4  # whether it takes part, whether it is held out, its score
    sorting = documents * (known + 40 + 40 + 4 * 8)
    grouping = documents * (known + 8 + 8) + units * (UNIT.itemsize + share_lost * LOST.itemsize)
    return math.ceil(max(sorting, grouping))


def find_repeated(
    stage: Stage, corpus: Corpus, *, rules: RepeatedRules, level_S: Sequence[int], held: Path, worker_bytes: int
) -> Repeated:
    """Finds what repeats among the documents of the corpus that passed: training text, and validation text as `held` has it.

    Raises Interrupted when asked to stop; the same call resumes with the files that are missing.
    """
    documents = sum(int(corpus.passed_of(k).sum()) for k in range(len(corpus.shards)))
    num_bytes = sum(int(corpus.prints_of(k, "num_bytes").column(0).to_numpy().sum()) for k in range(len(corpus.shards)))
    most_units = num_bytes / (WORD_BYTES * rules.min_words) + documents
    ranges = max(1, math.ceil(most_units * ROW_BYTES / worker_bytes))
    sort = sort_corpus(stage, corpus, num_ranges=num_ranges(corpus, documents, worker_bytes=worker_bytes))
    spill = SpillUnits(corpus=corpus, rules=rules, num_ranges=ranges, out=stage.folder)
    group = GroupUnits(spilled=spill, sort=sort, level_S=tuple(level_S), held=held)
    shards = range(len(corpus.shards))
    if not all(group.target(r).is_file() for r in range(ranges)):
        stage.make(spill, shards, executor=stage.texts)
        stage.make(group, range(ranges))
    stage.remove(*map(spill.target, shards))
    return Repeated(rules=rules, files=tuple(group.target(r) for r in range(ranges)), num_shards=len(shards))
