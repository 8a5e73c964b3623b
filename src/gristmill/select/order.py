"""The survivor order of all documents that take part, sorted outside memory.

    shards ─→ splitters ─→ each shard sorted, cut at the splitters ─→ each range of all shards sorted ─→ order.bin, ranks.bin

A rank is a place in that order, 0 for the document to be kept before all others. order.bin holds the document of each rank,
ranks.bin the rank of each document, or -1 where it takes no part. No two documents tie: equal keys are told apart by their
number, and two such documents have the same id, source and text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.select.corpus import Corpus
from gristmill.select.files import read_flat, write_flat
from gristmill.select.stages import Stage, run_all
from gristmill.select.words import Int64
from gristmill.store.durable import atomic_path

ROW_BYTES = 300  # of a worker's memory per document that it sorts, and COPIES_OF_IDS times its id
COPIES_OF_IDS = 4
SAMPLES_PER_RANGE = 200
KEY_SCHEMA = pa.schema(
    [
        ("turn", pa.int8()),
        ("priority", pa.int32()),
        ("score", pa.float32()),  # negated, and so are the bytes: all sort upwards
        ("bytes", pa.int64()),
        ("id", pa.large_string()),
        ("source", pa.int32()),
        ("text_hash", pa.uint64()),
        ("document", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class SortPaths:
    """Where the parts and the results of the sort lie."""

    folder: Path

    @property
    def splitters(self) -> Path:
        """The keys at which every shard is cut, an Arrow file."""
        return self.folder / "splitters.arrow"

    @property
    def order(self) -> Path:
        """The document of each rank."""
        return self.folder / "order.bin"

    @property
    def ranks(self) -> Path:
        """The rank of each document, or -1."""
        return self.folder / "ranks.bin"

    def run(self, k: int) -> Path:
        """The sorted keys of shard k, a record batch per range."""
        return self.folder / f"run-{k:05d}.arrow"

    def range(self, r: int) -> Path:
        """The documents of range r in order."""
        return self.folder / f"order-{r:05d}.bin"


def num_ranges(corpus: Corpus, documents: int, *, worker_bytes: int) -> int:
    """Into how many ranges the keys of so many documents are cut, so that a worker that sorts one holds `worker_bytes`."""
    return max(1, math.ceil((documents * ROW_BYTES + corpus.id_bytes() * COPIES_OF_IDS) / worker_bytes))


def sort_corpus(stage: Stage, corpus: Corpus, *, num_ranges: int) -> SortPaths:
    """Sorts all documents that take part."""
    paths = SortPaths(folder=stage.folder)
    if paths.ranks.is_file():
        return paths
    shards = range(len(corpus.shards))
    if not paths.splitters.is_file():
        stride = max(1, len(corpus) // (num_ranges * SAMPLES_PER_RANGE))
        samples = run_all(stage.columns, SampleKeys(corpus=corpus, stride=stride), shards) if num_ranges > 1 else {}
        _write_batches(paths.splitters, [_splitters([samples[k] for k in sorted(samples)], num_ranges)])
    sort_shard = SortShard(corpus=corpus, paths=paths)
    stage.make(sort_shard, shards)
    sort_range = SortRange(paths=paths, num_shards=len(shards))
    stage.make(sort_range, range(num_ranges))
    ranges = [paths.range(r) for r in range(num_ranges)]
    write_flat(paths.order, (read_flat(path, np.int64) for path in ranges))
    write_flat(paths.ranks, [_inverse(ranges, stage.array("ranks.scratch", len(corpus), np.int64))])
    stage.remove(paths.splitters, paths.folder / "ranks.scratch", *map(paths.run, shards), *ranges)
    return paths


@dataclass(frozen=True, kw_only=True)
class SampleKeys:
    """The function over shards: the keys of every `stride`-th document."""

    corpus: Corpus
    stride: int

    def __call__(self, k: int) -> pa.Table:
        keys = _keys(self.corpus, k)
        return keys.take(pa.array(np.arange(0, keys.num_rows, self.stride)))


@dataclass(frozen=True, kw_only=True)
class SortShard:
    """The function over shards: the sorted keys of one shard, cut at the splitters."""

    corpus: Corpus
    paths: SortPaths

    def target(self, k: int) -> Path:
        """Where they lie."""
        return self.paths.run(k)

    def __call__(self, k: int) -> None:
        keys = _keys(self.corpus, k)
        splitters = _read_batch(self.paths.splitters, 0)
        both = pa.concat_tables([keys, splitters])
        is_splitter = np.arange(both.num_rows) >= keys.num_rows
        order = _sorted(both.append_column("is_splitter", pa.array(is_splitter)))  # a document before its own splitter
        cuts = np.flatnonzero(is_splitter[order]) - np.arange(splitters.num_rows)
        ends = [0, *cuts.tolist(), keys.num_rows]
        keys = keys.take(pa.array(order[~is_splitter[order]]))
        _write_batches(self.target(k), [keys.slice(a, b - a) for a, b in itertools.pairwise(ends)])


@dataclass(frozen=True, kw_only=True)
class SortRange:
    """The function over ranges: the documents of one range in order, from the runs of all shards."""

    paths: SortPaths
    num_shards: int

    def target(self, r: int) -> Path:
        """Where they lie."""
        return self.paths.range(r)

    def __call__(self, r: int) -> None:
        keys = pa.concat_tables([_read_batch(self.paths.run(k), r) for k in range(self.num_shards)])
        documents: Int64 = keys.column("document").to_numpy()
        write_flat(self.target(r), [documents[_sorted(keys)]])


def _keys(corpus: Corpus, k: int) -> pa.Table:
    """The sort keys of the documents of shard k that take part."""
    shard, passed = corpus.shards[k], corpus.passed_of(k)
    rows = np.flatnonzero(passed)
    prints = corpus.prints_of(k, "id", "num_bytes", "text_hash").filter(pa.array(passed))
    sources = sorted({each.source for each in corpus.shards})
    columns = {
        "turn": corpus.turns_of(k)[rows],
        "priority": np.full(len(rows), shard.priority),
        "score": np.float32(0) - np.nan_to_num(corpus.scores_of(k)[rows], nan=0.0),
        "bytes": -prints.column("num_bytes").to_numpy(),
        "id": prints.column("id").cast(pa.large_string()),  # beyond 2 GB of them in a range, 32-bit offsets end
        "source": np.full(len(rows), sources.index(shard.source)),
        "text_hash": prints.column("text_hash"),
        "document": rows + int(corpus.firsts_S1[k]),
    }
    return pa.table(columns).cast(KEY_SCHEMA)


def _sorted(keys: pa.Table) -> Int64:
    places: Int64 = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]).to_numpy()
    return places.astype(np.int64)


def _splitters(samples: list[pa.Table], num_ranges: int) -> pa.Table:
    """num_ranges - 1 keys, evenly spaced among the samples; fewer where there are fewer samples, which leaves ranges empty."""
    keys = pa.concat_tables([KEY_SCHEMA.empty_table(), *samples])
    places = np.linspace(0, keys.num_rows, num_ranges + 1).astype(np.int64)[1:-1]
    return keys.take(pa.array(_sorted(keys)[places])) if keys.num_rows else keys


def _write_batches(path: Path, tables: list[pa.Table]) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        pa.ipc.new_file(file, KEY_SCHEMA, options=options) as writer,
    ):
        for table in tables:
            writer.write_batch(_one_batch(table))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=KEY_SCHEMA)


def _read_batch(path: Path, number: int) -> pa.Table:
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        if number >= reader.num_record_batches:  # fewer splitters than asked for
            return KEY_SCHEMA.empty_table()
        return pa.Table.from_batches([reader.get_batch(number)])


def _inverse(ranges: list[Path], rank_D: Int64) -> Int64:
    """rank_D, filled from the documents in order."""
    rank_D[:] = -1
    first = 0
    for documents in _each(ranges):
        rank_D[documents] = np.arange(first, first + len(documents))
        first += len(documents)
    return rank_D


def _each(ranges: list[Path]) -> Iterator[Int64]:
    for path in ranges:
        yield read_flat(path, np.int64)
