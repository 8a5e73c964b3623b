"""Corpora on disk for tests of the search for duplicates, and its answer in the form that the oracle gives."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.data.document import Document as Row
from gristmill.data.document import write_documents
from gristmill.data.executor import Executor, InProcess
from gristmill.select.corpus import Corpus, PrintedShard, corpus_of
from gristmill.select.dedup import SearchMemory, find_duplicates
from gristmill.select.rules import DuplicateRules
from gristmill.select.signatures import PrintShard, keys_column

SEED = 1


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where the system has one: a law writes thousands of small files, each flushed to the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def write_corpus(
    folder: Path,
    documents: Sequence[oracle.Document],
    *,
    rules: DuplicateRules,
    shard_size: int = 7,
    keys: Sequence[Sequence[int]] | None = None,
) -> Corpus:
    """Documents and their prints; a shard holds documents of one source. `keys` replaces the keys of the bands.

    Documents must come source by source, as the numbers of a corpus do.
    """
    print_shard = PrintShard(out=folder, bands=rules.bands, seed=SEED)
    shards = []
    for number, (first, end) in enumerate(_cuts(documents, shard_size)):
        path = folder / f"documents-{number:05d}.parquet"
        mine = documents[first:end]
        write_documents(
            path, [Row(id=d.id, source=d.source, text=d.text, origin="test#0", bytes_in=len(d.text)) for d in mine]
        )
        print_shard(path)
        if keys is not None:
            _replace_keys(print_shard.target(path), keys[first:end])
        shards.append(
            PrintedShard(
                documents=path, prints=print_shard.target(path), source=mine[0].source, priority=mine[0].priority
            )
        )
    np.save(folder / "passed.npy", np.array([d.passed for d in documents], dtype=bool))
    np.save(folder / "scores.npy", np.array([d.score for d in documents], dtype=np.float32))
    return corpus_of(shards, turns=folder / "passed.npy", scores=folder / "scores.npy")


def opened(folder: Path) -> Corpus:
    """A corpus that `write_corpus` wrote, of one source."""
    shards = [
        PrintedShard(
            documents=path, prints=path.with_name(path.name.replace("documents", "prints")), source="web", priority=0
        )
        for path in sorted(folder.glob("documents-*.parquet"))
    ]
    return corpus_of(shards, turns=folder / "passed.npy", scores=folder / "scores.npy")


def search(
    corpus: Corpus,
    work: Path,
    *,
    rules: DuplicateRules,
    memory: SearchMemory | None = None,
    executor: Executor | None = None,
) -> oracle.Answer:
    """What the search finds."""
    work.mkdir(exist_ok=True)
    counts = find_duplicates(
        corpus,
        rules=rules,
        work=work,
        executor=InProcess() if executor is None else executor,
        memory=memory,
        should_stop=lambda: False,
        say=lambda _: None,
    )
    links = pq.read_table(work / "links.parquet").to_pydict()
    return oracle.Answer(
        copies=[oracle.Copy(**row) for row in pq.read_table(work / "copies.parquet").to_pylist()],
        links=list(zip(links["document"], links["other"], strict=True)),
        counts=asdict(counts),
    )


def expected(corpus: Corpus, documents: Sequence[oracle.Document], rules: DuplicateRules) -> oracle.Answer:
    """What the oracle finds, with the keys that the prints hold."""
    keys: list[list[int]] = []
    hashes: list[int] = []
    for shard in corpus.shards:
        column = pq.read_table(shard.prints)
        hashes += column["text_hash"].to_pylist()
        keys += keys_column(column["keys"], num_bands=rules.num_bands).tolist()
    return oracle.find_duplicates(list(documents), keys, hashes, rules)


def _cuts(documents: Sequence[oracle.Document], shard_size: int) -> list[tuple[int, int]]:
    cuts = [0]
    for d in range(1, len(documents)):
        if documents[d].source != documents[d - 1].source or d - cuts[-1] >= shard_size:
            cuts.append(d)
    return list(zip(cuts, [*cuts[1:], len(documents)], strict=True))


def _replace_keys(path: Path, keys: Sequence[Sequence[int]]) -> None:
    table = pq.read_table(path)
    place = table.column_names.index("keys")
    width = table.schema.field("keys").type
    values = pa.array([np.array(row, dtype="<u8").tobytes() for row in keys], width)
    pq.write_table(table.set_column(place, table.schema.field("keys"), values), path)
