"""The documents of all sources as one numbered list: the early sources in their order, then the late ones, each shard by shard.

    number = the shard's first + row        the same in prints-NNNNN, documents-NNNNN and scores-NNNNN of a shard

Sources are therefore ranges of numbers, and so is each level (`levels_of`). What is known of each document lies in files, by
shard or as one array over all numbers that is mapped into memory; texts and ids are read for the documents that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gristmill.data.document import open_parquet
from gristmill.data.executor import Executor, InProcess, executor_for
from gristmill.errors import DataError
from gristmill.extract.outputs import Extracted
from gristmill.graph.step import StepContext, by_source
from gristmill.score.outputs import Scored
from gristmill.select.corpus import Corpus, PrintedShard, corpus_of
from gristmill.select.outputs import Searched, Signed
from gristmill.select.words import Int64

# Roles of inputs, each followed by a source.
DOCUMENTS, PRINTS, MATCHES, SCORES = "documents of ", "prints of ", "matches of ", "scores of "
BATCH_ROWS = 256
FEW_DOCUMENTS = 50_000
BLOCK = 1 << 20  # documents of an array that are looked at together


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard of documents and what earlier steps found of them. scores: None for a source without a threshold.

    name: "00003" of documents-00003.parquet. Its documents have the numbers first to end, which is not included.
    """

    source: str
    level: int
    name: str
    documents: Path
    prints: Path
    matches: Path
    scores: Path | None
    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.source}/{self.documents.name}"

    @property
    def key(self) -> str:
        """A file name for it."""
        return f"{self.source}-{self.name}"


@dataclass(frozen=True, kw_only=True)
class SourceRange:
    """The numbers of one source's documents, first to end, and the level at which it is decided."""

    name: str
    level: int
    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All shards, in the order of their numbers."""

    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return self.shards[-1].end if self.shards else 0

    @cached_property
    def sources(self) -> tuple[SourceRange, ...]:
        """The sources, in the order of their numbers."""
        groups = [list(group) for _, group in groupby(self.shards, key=lambda shard: shard.source)]
        return tuple(
            SourceRange(name=own[0].source, level=own[0].level, first=own[0].first, end=own[-1].end) for own in groups
        )

    def shards_of(self, source: str) -> list[Shard]:
        """The shards of one source, in order."""
        return [shard for shard in self.shards if shard.source == source]

    @cached_property
    def _first_K(self) -> Int64:
        return np.array([shard.first for shard in self.shards], dtype=np.int64)

    def source_of(self, document: int) -> str:
        """The source of a document."""
        return self.shards[int(np.searchsorted(self._first_K, document, side="right")) - 1].source

    def texts_of(self, wanted: Sequence[int] | Int64) -> Iterator[tuple[int, str]]:
        """(document, text) of the wanted documents, in order."""
        return self._column_of(wanted, "text")

    def ids_of(self, wanted: Sequence[int] | Int64) -> Iterator[tuple[int, str]]:
        """(document, id) of the wanted documents, in order."""
        return self._column_of(wanted, "id")

    def _column_of(self, wanted: Sequence[int] | Int64, column: str) -> Iterator[tuple[int, str]]:
        wanted_N = np.unique(np.asarray(wanted, dtype=np.int64))
        for shard in self.shards:
            mine = wanted_N[np.searchsorted(wanted_N, shard.first) : np.searchsorted(wanted_N, shard.end)]
            for row, value in values_at(shard.documents, mine - shard.first, column):
                yield row + shard.first, value


def values_at(path: Path, rows: Int64, column: str) -> Iterator[tuple[int, str]]:
    """(row, value) of the sorted `rows` of one column; row groups without any are not read."""
    if not len(rows):
        return
    with open_parquet(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if np.searchsorted(rows, start) < np.searchsorted(rows, end):
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=[column]):
                    mine = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + batch.num_rows)]
                    taken = batch.column(0).take(pa.array(mine - start, pa.int64()))
                    yield from zip(mine.tolist(), taken.to_pylist(), strict=True)
                    start += batch.num_rows
            start = end


def read_column(path: Path, column: str) -> NDArray[Any]:
    """One column of numbers of one shard, whole: 8 bytes or fewer for each of its documents."""
    with open_parquet(path) as file:
        values: NDArray[Any] = file.read(columns=[column]).column(0).to_numpy()
        return values


def levels_of(early: Sequence[str], late: Sequence[str]) -> dict[str, int]:
    """When each source is decided: at 0 with all others, or as a late one at 1, 2, … in their order."""
    return {**dict.fromkeys(early, 0), **{source: level for level, source in enumerate(late, start=1)}}


def survivor_ranks(early: Sequence[str], late: Sequence[str], priority: Sequence[str]) -> dict[str, int]:
    """Whose copy survives, 0 first: sources of `priority`, then others by name, then late ones in their order."""
    unlisted = sorted(set(early) - set(priority))
    return {source: rank for rank, source in enumerate([*priority, *unlisted, *late])}


def catalogue_of(ctx: StepContext) -> Catalogue:
    """The catalogue that a step is given. Raises DataError where a source has no documents, or files do not belong together."""
    documents: dict[str, Extracted] = by_source(ctx.inputs, DOCUMENTS)
    prints: dict[str, Signed] = by_source(ctx.inputs, PRINTS)
    matches: dict[str, Searched] = by_source(ctx.inputs, MATCHES)
    scores: dict[str, Scored] = by_source(ctx.inputs, SCORES)
    shards: list[Shard] = []
    for source, level in levels_of(ctx.config["early"], ctx.config["late"]).items():
        shards += list_shards(
            source,
            documents[source].documents,
            prints=prints[source].prints,
            matches=matches[source].matches,
            scores=scores[source].scores if source in scores else None,
            level=level,
            first=shards[-1].end if shards else 0,
        )
    return Catalogue(shards=tuple(shards))


def list_shards(
    source: str,
    documents: Sequence[Path],
    *,
    prints: Sequence[Path],
    matches: Sequence[Path],
    scores: Sequence[Path] | None,
    level: int = 0,
    first: int = 0,
) -> list[Shard]:
    """The shards of one source. Raises DataError when there is none, or when one lacks its prints, matches or scores."""
    found: list[Shard] = []
    print_of, match_of = _by_name(prints), _by_name(matches)
    score_of = None if scores is None else _by_name(scores)
    for path in documents:
        name = _name(path)
        for what, known in (("prints", print_of), ("matches", match_of), ("scores", score_of)):
            if known is not None and name not in known:
                raise DataError(f"{path.name} of source {source!r} has no {what}. Remake the step that leaves them.")
        first = found[-1].end if found else first
        shard = Shard(
            source=source,
            level=level,
            name=name,
            documents=path,
            prints=print_of[name],
            matches=match_of[name],
            scores=None if score_of is None else score_of[name],
            first=first,
            end=first + _num_rows(print_of[name]),
        )
        found.append(shard)
    if not found:
        raise DataError(f"source {source!r} is empty: extract left no documents-NNNNN.parquet.")
    return found


def executor_of(ctx: StepContext, catalogue: Catalogue) -> Executor:
    """Where functions over its shards run; few documents are done sooner than processes are started."""
    if len(catalogue) <= FEW_DOCUMENTS:
        return InProcess(should_stop=ctx.should_stop)
    return executor_for(ctx.machine, num_items=len(catalogue.shards), should_stop=ctx.should_stop)


def search_corpus(catalogue: Catalogue, ranks: Mapping[str, int], *, turns: Path, scores: Path) -> Corpus:
    """What the searches of `dedup` and `resemblance` take. ranks: source → its place in the survivor order, 0 where absent."""
    shards = [
        PrintedShard(
            documents=shard.documents, prints=shard.prints, source=shard.source, priority=ranks.get(shard.source, 0)
        )
        for shard in catalogue.shards
    ]
    return corpus_of(shards, turns=turns, scores=scores)


def blocks(first: int, end: int) -> Iterator[slice]:
    """The range cut into pieces of BLOCK documents."""
    for start in range(first, end, BLOCK):
        yield slice(start, min(start + BLOCK, end))


def places(array_D: NDArray[np.int8], value: int, *, first: int, end: int) -> Int64:
    """The documents from first to end at which the array has the value; memory is that of what is found."""
    found = [np.flatnonzero(array_D[some] == value) + some.start for some in blocks(first, end)]
    return np.concatenate(found).astype(np.int64) if found else np.empty(0, dtype=np.int64)


def _by_name(paths: Sequence[Path]) -> Mapping[str, Path]:
    return {_name(path): path for path in paths}


def _name(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def _num_rows(path: Path) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)
