"""The outcome of the search by document: copies.parquet and links.parquet, each written once, in one order.

    near copies by rank ─┐
    exact copies by rank ┴→ each shard: its removed documents and the survivor that is left of each → all shards, one after another

An exact copy of a document that itself went as a near copy is a near copy of the one that is left, by the same evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.select.corpus import Corpus
from gristmill.select.files import Array, mapped, read_flat, write_flat
from gristmill.select.order import SortPaths
from gristmill.select.stages import Stage
from gristmill.select.walk import NEAR, Outcomes
from gristmill.select.words import Int64
from gristmill.store.durable import atomic_path

COPIES = "copies.parquet"
LINKS = "links.parquet"
COPIES_SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),
        pa.field("survivor", pa.int64(), nullable=False),
        pa.field("exact", pa.bool_(), nullable=False),
        pa.field("jaccard", pa.float64(), nullable=False),
        pa.field("containment", pa.float64(), nullable=False),
    ]
)
LINKS_SCHEMA = pa.schema(
    [pa.field("document", pa.int64(), nullable=False), pa.field("other", pa.int64(), nullable=False)]
)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What was found, by rank: flat files of the sort, of exact copies and of near ones."""

    sort: SortPaths
    exact: Path

    @property
    def near(self) -> Path:
        """Near copies of all windows: rows of NEAR, which name ranks, by rank of the document."""
        return self.sort.folder / "near.bin"

    @property
    def near_ranks(self) -> Path:
        """The ranks of the documents in `near`, to be searched."""
        return self.sort.folder / "near-ranks.bin"


@dataclass(frozen=True, kw_only=True)
class ResultShard:
    """The function over shards: the removed documents of one shard, and its exact links."""

    corpus: Corpus
    ranked: Ranked

    def target(self, k: int) -> Path:
        """Where its copies lie."""
        return self.ranked.sort.folder / f"copies-{k:05d}.parquet"

    def links(self, k: int) -> Path:
        """Where its exact links lie."""
        return self.ranked.sort.folder / f"links-{k:05d}.parquet"

    def __call__(self, k: int) -> None:
        first, end = (int(number) for number in self.corpus.firsts_S1[k : k + 2])
        rank_D = read_flat(self.ranked.sort.ranks, np.int64, first=first, count=end - first)
        rows = np.flatnonzero(rank_D >= 0)
        original = mapped(self.ranked.exact, np.int64)[rank_D[rows]]  # the first with the same hash, maybe itself
        near, is_near = self._near(original)
        exact = original != rank_D[rows]
        gone = exact | is_near
        survivor = np.where(is_near, near["survivor"], original)
        document_R = mapped(self.ranked.sort.order, np.int64)
        columns = {
            "document": rows[gone] + first,
            "survivor": document_R[survivor[gone]],
            "exact": ~is_near[gone],
            "jaccard": np.where(is_near, near["jaccard"], 1.0)[gone],
            "containment": np.where(is_near, near["containment"], 1.0)[gone],
        }
        links = {"document": rows[exact] + first, "other": document_R[original[exact]]}
        _write(self.links(k), LINKS_SCHEMA, [pa.table(links, schema=LINKS_SCHEMA)])
        _write(self.target(k), COPIES_SCHEMA, [pa.table(columns, schema=COPIES_SCHEMA)])

    def _near(self, rank_N: Int64) -> tuple[Array, Array]:
        """The row of NEAR of each rank, and whether there is one."""
        near, ranks = mapped(self.ranked.near, NEAR), mapped(self.ranked.near_ranks, np.int64)
        if not len(ranks):
            return np.zeros(len(rank_N), dtype=NEAR), np.zeros(len(rank_N), dtype=bool)
        place = np.minimum(np.searchsorted(ranks, rank_N), len(ranks) - 1)
        return near[place], ranks[place] == rank_N


def write_results(
    stage: Stage, corpus: Corpus, outcomes: Outcomes, ranked: Ranked, *, touched: Path, out: Path
) -> None:
    """Writes copies.parquet and links.parquet to `out`."""
    rank_T = mapped(touched, np.int64)
    document_R = mapped(ranked.sort.order, np.int64)
    windows = range(outcomes.num_windows)
    shards = range(len(corpus.shards))
    if not ranked.near_ranks.is_file():
        write_flat(ranked.near, (_in_ranks(outcomes.near(number), rank_T) for number in windows))
        write_flat(ranked.near_ranks, (rank_T[outcomes.near(number)["document"]] for number in windows))
    result = ResultShard(corpus=corpus, ranked=ranked)
    stage.make(result, shards)

    def links() -> Iterator[pa.Table]:
        yield from _tables(map(result.links, shards))
        for number in windows:
            found = outcomes.links(number)
            ends = {name: document_R[rank_T[found[name]]] for name in ("document", "other")}
            yield pa.table(ends, schema=LINKS_SCHEMA)

    _write(out / LINKS, LINKS_SCHEMA, links())
    _write(out / COPIES, COPIES_SCHEMA, _tables(map(result.target, shards)))


def _in_ranks(near: Array, rank_T: Int64) -> Array:
    named = near.copy()
    named["document"], named["survivor"] = rank_T[near["document"]], rank_T[near["survivor"]]
    return named


def _tables(paths: Iterable[Path]) -> Iterator[pa.Table]:
    return map(pq.read_table, paths)


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables:
            if table.num_rows:
                writer.write_table(table)
