"""The survivor walk: documents with candidates in rank order, each compared in full with kept ones before it.

    window   a fixed range of ranks; its outcome is one file, and a walk that was killed resumes at the first window without one
    block    consecutive documents of a window whose n-gram sets, and those that they may be compared with, fit in memory

The candidates of a document are the kept documents that share a band key with it, those that share most keys first, then the
one that comes first. What was kept before a block is known when the block begins: of it, no document can need more than its
first `max_comparisons`. The other sharers are in the block itself. So a block knows which sets to load, and where blocks end
has no influence on what is found.

Each group of equal band keys has a list of kept documents (`Lists`). The lists hold nothing but what earlier windows kept, so
they are filled again from the outcomes of those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gristmill.graph.progress import Position
from gristmill.select.files import Array, read_part, write_parts
from gristmill.select.groups import LiveEntries
from gristmill.select.rules import MIN_CONTAINMENT, DuplicateRules
from gristmill.select.sets import NgramSets, similarity
from gristmill.select.stages import Stage
from gristmill.select.words import Int64, UInt64

NEAR = np.dtype([("document", "<i8"), ("survivor", "<i8"), ("jaccard", "<f8"), ("containment", "<f8")])
LINK = np.dtype([("document", "<i8"), ("other", "<i8")])
COUNTS = ("candidate_pairs", "compared_pairs", "refused_pairs", "capped")


class Lists:
    """The kept documents that each group of equal keys leads to, in survivor order; the first `max_listed` of them.

    One array for all: at the slot of a group the length of its list, then the list. 4 bytes per entry below 2**32 documents.
    """

    def __init__(self, stage: Stage, *, num_slots: int, num_touched: int, max_listed: int) -> None:
        kind = np.uint32 if num_touched < 2**32 else np.uint64
        self._entries = stage.array("lists.scratch", num_slots, kind)
        self._max_listed = max_listed

    def candidates(self, slots: Int64) -> list[int]:
        """The kept documents in the lists at these slots, in the order of comparison."""
        lengths = self._entries[slots]
        if not lengths.any():
            return []
        listed = [self._entries[slot + 1 : slot + 1 + length] for slot, length in zip(slots.tolist(), lengths.tolist())]
        shared = Counter(np.concatenate(listed).tolist())
        return sorted(shared, key=lambda t: (-shared[t], t))

    def add(self, t: int, slots: Int64) -> None:
        """Adds one document to the lists at its slots, which differ."""
        lengths = self._entries[slots].astype(np.int64)
        fits = lengths < self._max_listed
        self._entries[slots[fits] + 1 + lengths[fits]] = t
        self._entries[slots[fits]] = lengths[fits] + 1

    def append(self, touched_N: Int64, slots_N: Int64) -> None:
        """As `add`, for many documents: a pair of document and slot in each row."""
        order = np.lexsort((touched_N, slots_N))
        touched, slots = touched_N[order], slots_N[order]
        _, first, count = np.unique(slots, return_index=True, return_counts=True)
        place = self._entries[slots].astype(np.int64) + np.arange(len(slots)) - np.repeat(first, count)
        fits = place < self._max_listed
        self._entries[slots[fits] + 1 + place[fits]] = touched[fits]
        self._entries[slots[fits]] = place[fits] + 1  # the last of a list writes last, which is its length


@dataclass(kw_only=True)
class Found:
    """What one window found, named by place among the documents with candidates: rows of NEAR and LINK, and COUNTS."""

    near: list[tuple[int, int, float, float]] = field(default_factory=list)
    links: list[tuple[int, int]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))


@dataclass(frozen=True, kw_only=True)
class Window:
    """The documents of one window: places `first` to `first` + N - 1, with the slots of each."""

    first: int
    slots: tuple[Int64, ...]

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """All that the walk needs. block_ngrams: how many n-grams of the compared documents are held."""

    rules: DuplicateRules
    lists: Lists
    sets: NgramSets
    block_ngrams: int

    def take(self, window: Window, before_block: Callable[[], None]) -> Found:
        """Decides all documents of a window."""
        found = Found()
        first = 0
        while first < len(window):
            before_block()
            end, wanted = self._block(window, first)
            loaded = self.sets.load(wanted)
            for n in range(first, end):
                t, slots = window.first + n, window.slots[n]
                if not self._is_copy(found, t, slots, loaded):
                    self.lists.add(t, slots)
            first = end
        return found

    def _block(self, window: Window, first: int) -> tuple[int, Int64]:
        """Where the block that begins at `first` ends, and the documents whose sets it needs.

        A document that does not fit by itself is a block without sets: its pairs are read in pieces.
        """
        wanted: set[int] = set()
        ngrams = 0
        end = first
        while end < len(window):
            before = self.lists.candidates(window.slots[end])
            new = {window.first + end, *before[: self.rules.max_comparisons]} - wanted
            ngrams += sum(map(self.sets.length, new))
            if ngrams > self.block_ngrams:
                break
            wanted |= new
            end += 1
        return max(end, first + 1), np.array(sorted(wanted), dtype=np.int64)

    def _is_copy(self, found: Found, t: int, slots: Int64, loaded: dict[int, UInt64]) -> bool:
        """Compares document t with its candidates until it is a copy of one that makes it leave."""
        candidates = self.lists.candidates(slots)
        found.counts["candidate_pairs"] += len(candidates)
        found.counts["capped"] += len(candidates) > self.rules.max_comparisons
        for other in candidates[: self.rules.max_comparisons]:
            jaccard, containment = self._compare(t, other, loaded)
            size, other_size = int(self.sets.size_T[t]), int(self.sets.size_T[other])
            is_copy = jaccard >= self.rules.min_jaccard or (other_size >= size and containment >= MIN_CONTAINMENT)
            contains = containment * size >= MIN_CONTAINMENT * other_size
            if (is_copy or contains) and self._differ_in_order(t, other, loaded):
                is_copy = contains = False
            found.counts["compared_pairs"] += 1
            found.counts["refused_pairs"] += not is_copy
            if is_copy or contains:
                found.links.append((t, other))
            if is_copy and self.rules.remove_near:
                found.near.append((t, other, jaccard, containment))
                return True
        return False

    def _compare(self, t: int, other: int, loaded: dict[int, UInt64]) -> tuple[float, float]:
        shared = self._shared(t, other, loaded, wide=False)
        return similarity(shared, int(self.sets.size_T[t]), int(self.sets.size_T[other]))

    def _differ_in_order(self, t: int, other: int, loaded: dict[int, UInt64]) -> bool:
        """Whether two repetitive documents that have the same n-grams have them in other orders."""
        wide, other_wide = int(self.sets.wide_T[t]), int(self.sets.wide_T[other])
        if not min(wide, other_wide):
            return False
        shared = self._shared(t, other, loaded, wide=True)
        return not bool(self.rules.same_order(np.array(shared), np.array(wide), np.array(other_wide)))

    def _shared(self, t: int, other: int, loaded: dict[int, UInt64], *, wide: bool) -> int:
        return self.sets.num_shared(t, other, loaded, wide=wide, chunk=max(1, self.block_ngrams // 2))


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The files of finished windows: rows of NEAR, rows of LINK, COUNTS."""

    folder: Path
    num_windows: int

    @property
    def is_complete(self) -> bool:
        """Whether all windows have an outcome."""
        return all(self.target(number).is_file() for number in range(self.num_windows))

    def target(self, number: int) -> Path:
        """Where the outcome of a window lies."""
        return self.folder / f"walked-{number:06d}.bin"

    def write(self, number: int, found: Found) -> None:
        """Leaves the outcome of a window."""
        near, links = np.array(found.near, dtype=NEAR), np.array(found.links, dtype=LINK)
        counts = np.array([found.counts[name] for name in COUNTS], dtype=np.int64)
        write_parts(self.target(number), [near, links, counts], count=3)

    def near(self, number: int) -> Array:
        """Near copies of a window, by place of the document."""
        return read_part(self.target(number), 0, NEAR)

    def links(self, number: int) -> Array:
        """Links of a window, in the order of the walk."""
        return read_part(self.target(number), 1, LINK)

    def counts(self) -> dict[str, int]:
        """COUNTS of all windows."""
        total = sum(read_part(self.target(number), 2, np.int64) for number in range(self.num_windows))
        return dict(zip(COUNTS, np.broadcast_to(total, len(COUNTS)).tolist(), strict=True))


def walk(
    stage: Stage,
    live: LiveEntries,
    outcomes: Outcomes,
    *,
    rules: DuplicateRules,
    sets: NgramSets,
    lists: Lists,
    block_ngrams: int,
) -> None:
    """Walks all windows; those that have an outcome only fill the lists. Raises Interrupted between blocks when asked to stop."""
    steps = Walk(rules=rules, lists=lists, sets=sets, block_ngrams=block_ngrams)
    for number, (first, entries) in enumerate(_windows(live, outcomes.num_windows)):
        ranks, place_N = np.unique(entries["rank"], return_inverse=True)
        if outcomes.target(number).is_file():
            leaves = np.isin(first + place_N, outcomes.near(number)["document"])
            lists.append((first + place_N)[~leaves], entries["slot"][~leaves])
            continue
        ends = np.searchsorted(place_N, np.arange(1, len(ranks)))
        slots = tuple(np.split(entries["slot"], ends)) if len(ranks) else ()
        outcomes.write(number, steps.take(Window(first=first, slots=slots), stage.leave_if_asked))
        compared = first + len(ranks)
        stage.progress(
            Position(
                done=number + 1,
                total=outcomes.num_windows,
                unit="window",
                part="comparing",
                counts={"documents": compared},
                figures=(f"{compared:,} documents compared",),
            )
        )


def _windows(live: LiveEntries, count: int) -> Iterator[tuple[int, Array]]:
    """(place of the first document, live entries) of each window."""
    first = 0
    for number in range(count):
        entries = live.of_window(number)
        yield first, entries
        first += len(np.unique(entries["rank"]))
