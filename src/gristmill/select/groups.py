"""Documents that share a hash, grouped outside memory: exact copies, and those that share the key of a band.

    each shard: (hash, rank) sorted by hash, cut into ranges of hashes ─→ each range of all shards: groups of two and more

Exact copies come first; only the first document of each group, in survivor order, takes part in the bands. What the bands leave
is live entries: (rank, slot), one for each band in which a document shares its key with another. A slot is where the group
keeps its list of kept documents during the walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.select.corpus import Corpus
from gristmill.select.files import (
    Array,
    mapped,
    read_flat,
    read_part,
    read_part_of_all,
    write_flat,
    write_parts,
)
from gristmill.select.order import SortPaths
from gristmill.select.signatures import exact_column, keys_column
from gristmill.select.stages import Stage
from gristmill.select.words import Int64, UInt64

EXACT = np.dtype([("high", "<u8"), ("low", "<u8"), ("rank", "<i8")])
KEYED = np.dtype([("key", "<u8"), ("rank", "<i8")])
PAIR = np.dtype([("rank", "<i8"), ("other", "<i8")])
LIVE = np.dtype([("rank", "<i8"), ("slot", "<i8")])
ROW_BYTES = 150  # of a worker's memory per row of a range


@dataclass(frozen=True, kw_only=True)
class SpillExact:
    """The function over shards: exact hashes and ranks of one shard, cut into ranges."""

    corpus: Corpus
    sort: SortPaths
    num_ranges: int

    def target(self, k: int) -> Path:
        """Where they lie: a part per range, of EXACT."""
        return self.sort.folder / f"exact-of-{k:05d}.bin"

    def __call__(self, k: int) -> None:
        rank_D = _ranks(self.corpus, self.sort, k)
        mine = rank_D >= 0
        exact_D2 = exact_column(self.corpus.prints_of(k, "exact").column("exact"))[mine]
        rows = np.empty(len(exact_D2), dtype=EXACT)
        rows["high"], rows["low"], rows["rank"] = exact_D2[:, 0], exact_D2[:, 1], rank_D[mine]
        write_parts(self.target(k), cut(rows, exact_D2[:, 0], self.num_ranges), count=self.num_ranges)


@dataclass(frozen=True, kw_only=True)
class GroupExact:
    """The function over ranges: (rank, rank of the first with the same hash) for all but the first of each group."""

    spilled: SpillExact

    def target(self, r: int) -> Path:
        """Where they lie: rows of PAIR."""
        return self.spilled.sort.folder / f"exact-copies-{r:05d}.bin"

    def __call__(self, r: int) -> None:
        rows = read_part_of_all(map(self.spilled.target, range(len(self.spilled.corpus.shards))), r, EXACT)
        rows = rows[np.lexsort((rows["rank"], rows["low"], rows["high"]))]
        begins = begins_of(rows["high"], rows["low"])
        first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
        pairs = np.empty(int((~begins).sum()), dtype=PAIR)
        pairs["rank"], pairs["other"] = rows["rank"][~begins], rows["rank"][first[~begins]]
        write_flat(self.target(r), [pairs])


def group_exact(stage: Stage, corpus: Corpus, sort: SortPaths, *, count: int, num_ranges: int) -> Path:
    """A flat file: for each of `count` ranks the first rank with the same exact hash, its own where it is the first."""
    path = exact_path(stage)
    if path.is_file():
        return path
    spill = SpillExact(corpus=corpus, sort=sort, num_ranges=num_ranges)
    group = GroupExact(spilled=spill)
    stage.make(spill, range(len(corpus.shards)))
    stage.make(group, range(num_ranges))
    first_R = stage.array("exact.scratch", count, np.int64)
    first_R[:] = np.arange(count)
    for r in range(num_ranges):
        pairs = read_flat(group.target(r), PAIR)
        first_R[pairs["rank"]] = pairs["other"]
    write_flat(path, [first_R])
    stage.remove(stage.folder / "exact.scratch", *map(spill.target, range(len(corpus.shards))))
    stage.remove(*map(group.target, range(num_ranges)))
    return path


@dataclass(frozen=True, kw_only=True)
class SpillBands:
    """The function over shards: band keys and ranks of the documents of one shard that are no exact copies, cut into ranges."""

    corpus: Corpus
    sort: SortPaths
    exact: Path
    num_bands: int
    num_ranges: int

    def target(self, k: int) -> Path:
        """Where they lie: a part per band and range, of KEYED."""
        return self.sort.folder / f"bands-of-{k:05d}.bin"

    def __call__(self, k: int) -> None:
        rank_D = _ranks(self.corpus, self.sort, k)
        prints = self.corpus.prints_of(k, "keys", "num_ngrams")
        mine = (rank_D >= 0) & (prints.column("num_ngrams").to_numpy() > 0)
        mine[mine] = mapped(self.exact, np.int64)[rank_D[mine]] == rank_D[mine]
        keys_DB = keys_column(prints.column("keys"), num_bands=self.num_bands)[mine]
        write_parts(self.target(k), self._parts(keys_DB, rank_D[mine]), count=self.num_bands * self.num_ranges)

    def _parts(self, keys_DB: UInt64, rank_D: Int64) -> Iterator[Array]:
        for band in range(self.num_bands):
            rows = np.empty(len(rank_D), dtype=KEYED)
            rows["key"], rows["rank"] = keys_DB[:, band], rank_D
            yield from cut(rows, keys_DB[:, band], self.num_ranges)


@dataclass(frozen=True, kw_only=True)
class GroupBand:
    """The function over bands and ranges (number = band × num_ranges + range): live entries of groups of two and more.

    Slots are counted from 0 in each file: a group takes one for the length of its list, and one for each document that the
    list may hold.
    """

    spilled: SpillBands
    max_listed: int
    num_windows: int
    window_ranks: int

    def target(self, number: int) -> Path:
        """Where they lie: the number of slots, then a part of LIVE per window of ranks, sorted by rank."""
        return self.spilled.sort.folder / f"live-{number:06d}.bin"

    def __call__(self, number: int) -> None:
        rows = read_part_of_all(map(self.spilled.target, range(len(self.spilled.corpus.shards))), number, KEYED)
        rows = rows[np.argsort(rows["key"], kind="stable")]
        begins = begins_of(rows["key"])
        group_N = np.cumsum(begins) - 1
        size_G = np.bincount(group_N)
        space_G = np.where(size_G > 1, 1 + np.minimum(size_G, self.max_listed), 0)
        slot_G = np.cumsum(space_G) - space_G
        shared = size_G[group_N] > 1
        live = np.empty(int(shared.sum()), dtype=LIVE)
        live["rank"], live["slot"] = rows["rank"][shared], slot_G[group_N[shared]]
        live = live[np.argsort(live["rank"], kind="stable")]
        ends = np.searchsorted(live["rank"], np.arange(1, self.num_windows) * self.window_ranks)
        num_slots = np.array([space_G.sum()], dtype=np.int64)
        write_parts(self.target(number), [num_slots, *np.split(live, ends)], count=1 + self.num_windows)


class LiveEntries:
    """Live entries of all bands and ranges, window by window, with slots that are counted over all files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        spaces = [int(read_part(path, 0, np.int64)[0]) for path in files]
        self._bases = np.cumsum([0, *spaces])

    @property
    def num_slots(self) -> int:
        """Slots of all groups."""
        return int(self._bases[-1])

    def of_window(self, window: int) -> Array:
        """The entries of one window, sorted by rank; each document's by slot."""
        found = [np.empty(0, dtype=LIVE)]
        for path, base in zip(self._files, self._bases.tolist()):
            part = read_part(path, 1 + window, LIVE).copy()
            part["slot"] += base
            found.append(part)
        live = np.concatenate(found)
        return live[np.argsort(live["rank"], kind="stable")]


def group_bands(
    stage: Stage, spill: SpillBands, *, max_listed: int, num_windows: int, window_ranks: int
) -> LiveEntries:
    """Groups all bands. Also leaves touched.bin: the ranks of the documents that have live entries, ascending."""
    group = GroupBand(spilled=spill, max_listed=max_listed, num_windows=num_windows, window_ranks=window_ranks)
    numbers = range(spill.num_bands * spill.num_ranges)
    shards = range(len(spill.corpus.shards))
    path = touched_path(stage)
    if not path.is_file():
        stage.make(spill, shards)
        stage.make(group, numbers)
    live = LiveEntries([group.target(number) for number in numbers])
    if not path.is_file():
        write_flat(path, (np.unique(live.of_window(window)["rank"]) for window in range(num_windows)))
    stage.remove(*map(spill.target, shards))
    return live


def exact_path(stage: Stage) -> Path:
    """For each rank the first rank with the same exact hash."""
    return stage.folder / "exact.bin"


def touched_path(stage: Stage) -> Path:
    """The ranks of the documents that share a band key with another."""
    return stage.folder / "touched.bin"


def _ranks(corpus: Corpus, sort: SortPaths, k: int) -> Int64:
    first, end = (int(number) for number in corpus.firsts_S1[k : k + 2])
    ranks: Int64 = read_flat(sort.ranks, np.int64, first=first, count=end - first)
    return ranks


def cut(rows: Array, hash_N: UInt64, num_ranges: int) -> list[Array]:
    """The rows sorted by hash, in ranges that divide all hashes evenly."""
    order = np.argsort(hash_N, kind="stable")
    bounds = np.array([(r << 64) // num_ranges for r in range(1, num_ranges)], dtype=np.uint64)
    return np.split(rows[order], np.searchsorted(hash_N[order], bounds))


def begins_of(*columns: Array) -> NDArray[np.bool_]:
    """Where a group of equal neighbours begins."""
    begins = np.zeros(len(columns[0]), dtype=bool)
    begins[:1] = True
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    return begins
