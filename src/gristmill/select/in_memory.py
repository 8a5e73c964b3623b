"""The search for duplicates over prints in memory, which select still uses; `dedup.py` finds the same in bounded memory.

    normalised text hash -> exact duplicates -> MinHash candidates -> verification on full text -> survivors, clusters

Documents are taken in one stated order: priority of the source, score (high first), length in bytes (long first),
id, source. A document is removed when it is a verified copy of a *kept* document that comes before it, so

- every removed document names the survivor it was compared with: chains of copies never join strangers,
- nothing depends on the order of the input, and a second pass makes the same comparisons and removes nothing.

Verified means, on sets of word n-grams of the whole text: Jaccard similarity of at least `min_jaccard`, or, where the
survivor is the longer one, at least MIN_CONTAINMENT of the document's n-grams occur in it. Documents shorter than
one n-gram take part in the exact pass only.

Clusters are for the validation split: the connected parts (`components`) of all links found, removed documents included. A
survivor that occurs in a longer document which comes later makes no copy of it, but is linked to it. A link is found when the
later of the two is decided, so documents never change what was decided of those before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gristmill.select.minhash import candidate_edges
from gristmill.select.rules import MIN_CONTAINMENT, DuplicateRules
from gristmill.select.sets import overlap
from gristmill.select.signatures import print_texts
from gristmill.select.words import Int64, UInt64


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """What deduplication keeps of D texts: exact_D2 (128 bits), keys_DB (a key per band), num_ngrams_D."""

    exact_D2: UInt64
    keys_DB: UInt64
    num_ngrams_D: Int64


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What decides who survives, an entry a document. `priority_D`: 0 is the most wanted source."""

    ids: Sequence[str]
    sources: Sequence[str]
    priority_D: NDArray[np.int64]
    score_D: NDArray[np.float32]
    num_bytes_D: NDArray[np.int64]

    def order(self) -> Int64:
        """All documents, the one to be kept first."""
        columns = pa.table(
            {
                "priority": self.priority_D,
                "score": -self.score_D,
                "bytes": -self.num_bytes_D,
                "id": pa.array(self.ids, pa.large_string()),  # numpy would pad all to the longest
                "source": pa.array(self.sources, pa.string()),
            }
        )
        places: Int64 = pc.sort_indices(columns, [(name, "ascending") for name in columns.column_names]).to_numpy()
        return places.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A removed document, the survivor, and the evidence between the two."""

    document: int
    survivor: int
    exact: bool
    jaccard: float
    containment: float


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """All copies, by document, and links_E2: (document, one before it in the order) that a split must not part."""

    copies: dict[int, Copy] = field(repr=False)
    links_E2: Int64 = field(repr=False)
    num_candidates: int
    num_compared: int
    num_refused: int
    num_capped: int


def fingerprint_texts(texts: Sequence[str], *, rules: DuplicateRules, seed: int) -> Fingerprints:
    """Exact hashes and band keys of all texts. The same rules and seed must be used for all that is compared."""
    prints = print_texts(texts, bands=rules.bands, seed=seed)
    return Fingerprints(exact_D2=prints.exact_D2, keys_DB=prints.keys_DB, num_ngrams_D=prints.num_ngrams_D)


def find_duplicates(
    prints: Fingerprints,
    keys: Keys,
    *,
    rules: DuplicateRules,
    ngrams_of: Callable[[Int64], dict[int, UInt64]],
) -> Duplicates:
    """Who is a copy of whom. `ngrams_of` gives `ngram_set` of the full texts of the documents asked for.

    It is asked once, for the documents that share a band with another: memory is 8 bytes per word of those.
    """
    order = keys.order()
    survivor_D = _exact_survivors(prints.exact_D2, order)
    count = len(order)
    exact = {
        int(d): Copy(document=int(d), survivor=int(survivor_D[d]), exact=True, jaccard=1.0, containment=1.0)
        for d in np.flatnonzero(survivor_D != np.arange(count))
    }
    near = _near_pass(prints, survivor_D, order, rules, ngrams_of)
    moved = {d: _follow(copy, near.copies) for d, copy in exact.items()}
    links = [(copy.document, copy.survivor) for copy in exact.values()] + near.links
    return Duplicates(
        copies=dict(sorted({**moved, **near.copies}.items())),
        links_E2=np.array(links, dtype=np.int64).reshape(-1, 2),
        num_candidates=near.num_candidates,
        num_compared=near.num_compared,
        num_refused=near.num_refused,
        num_capped=near.num_capped,
    )


class _NearPass:
    """The walk through candidates in survivor order, with its counts."""

    def __init__(self, rules: DuplicateRules, sets: dict[int, UInt64]) -> None:
        self.rules = rules
        self.sets = sets
        self.copies: dict[int, Copy] = {}
        self.links: list[tuple[int, int]] = []
        self.kept: dict[tuple[int, int], list[int]] = {}  # (band, key) -> kept documents, in survivor order
        self.num_candidates = self.num_compared = self.num_refused = self.num_capped = 0

    def take(self, d: int, rank_D: Int64, keys_B: list[int]) -> None:
        """Decides document d: a copy of a kept one, or kept itself."""
        shared: dict[int, int] = {}
        for place in enumerate(keys_B):
            for other in self.kept.get(place, ()):
                shared[other] = shared.get(other, 0) + 1
        self.num_candidates += len(shared)
        candidates = sorted(shared, key=lambda other: (-shared[other], rank_D[other]))
        self.num_capped += len(candidates) > self.rules.max_comparisons
        for other in candidates[: self.rules.max_comparisons]:
            copy, is_copy, belong = self._compare(d, other)
            if belong:
                self.links.append((d, other))
            if is_copy and self.rules.remove_near:
                self.copies[d] = copy
                return
        for place in enumerate(keys_B):
            listed = self.kept.setdefault(place, [])
            if len(listed) < self.rules.max_listed:
                listed.append(d)

    def _compare(self, d: int, other: int) -> tuple[Copy, bool, bool]:
        """The evidence, whether d is a copy of the other, and whether one of the two occurs in the other at all."""
        mine, theirs = self.sets[d], self.sets[other]
        jaccard, containment = overlap(mine, theirs)
        self.num_compared += 1
        contained = len(theirs) >= len(mine) and containment >= MIN_CONTAINMENT
        contains = containment * len(mine) >= MIN_CONTAINMENT * len(theirs)
        is_copy = jaccard >= self.rules.min_jaccard or contained
        self.num_refused += not is_copy
        copy = Copy(document=d, survivor=other, exact=False, jaccard=jaccard, containment=containment)
        return copy, is_copy, is_copy or contains


def _near_pass(
    prints: Fingerprints,
    survivor_D: Int64,
    order: Int64,
    rules: DuplicateRules,
    ngrams_of: Callable[[Int64], dict[int, UInt64]],
) -> _NearPass:
    count = len(order)
    eligible = (survivor_D == np.arange(count)) & (prints.num_ngrams_D > 0)
    lefts, rights = candidate_edges(prints.keys_DB, eligible)
    touched = np.zeros(count, dtype=bool)
    touched[lefts] = touched[rights] = True
    found = _NearPass(rules, ngrams_of(np.flatnonzero(touched)))
    rank_D = np.empty(count, dtype=np.int64)
    rank_D[order] = np.arange(count)
    for d in order[touched[order]]:
        found.take(int(d), rank_D, prints.keys_DB[d].tolist())
    return found


def _exact_survivors(exact_D2: UInt64, order: Int64) -> Int64:
    """For each document the first one in the order that has the same hash; itself where it is the first."""
    if not len(order):
        return order
    _, group = np.unique(exact_D2[order], axis=0, return_inverse=True)
    _, first = np.unique(group, return_index=True)
    survivor_D = np.empty(len(order), dtype=np.int64)
    survivor_D[order] = order[first[group.reshape(-1)]]
    return survivor_D


def _follow(copy: Copy, near: dict[int, Copy]) -> Copy:
    """An exact copy of a near copy that was removed is a near copy of the one that is left, by the same evidence."""
    onward = near.get(copy.survivor)
    return copy if onward is None else replace(onward, document=copy.document)
