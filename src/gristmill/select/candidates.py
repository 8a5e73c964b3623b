"""All documents of all sources as columns: where each lies, its score, and the fingerprint of those still in question.

Texts stay on the disk. A shard function reads one shard of documents (and its scores) and returns the columns; `texts_of`
reads the texts of chosen documents, shard by shard.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.data.document import read_batches
from gristmill.data.executor import Executor
from gristmill.errors import DataError
from gristmill.select.in_memory import Fingerprints, Keys, fingerprint_texts
from gristmill.select.rules import DuplicateRules
from gristmill.select.sets import ngram_set
from gristmill.select.words import Int64, UInt64

PASSED, HELD_OUT, LOW_SCORE, DUPLICATE_ID = 0, 1, 2, 3
BATCH_ROWS = 256
MAX_DUPLICATE_IDS = 0.5  # of a source's documents: beyond it the ids are no ids


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard of documents of a source, and the file with its scores where the source has a threshold."""

    source: str
    documents: Path
    scores: Path | None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What is known of the D documents of one shard or of all. score_D is NaN without a threshold.

    fate_D: PASSED, HELD_OUT, LOW_SCORE or DUPLICATE_ID. prints: fingerprints of the passed documents, in order.
    """

    ids: list[str]
    score_D: NDArray[np.float32]
    num_bytes_D: Int64
    bytes_in_D: Int64
    fate_D: NDArray[np.int8]
    prints: Fingerprints


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Columns of all shards, one after another; shard k has the documents offsets[k] to offsets[k + 1]."""

    shards: tuple[Shard, ...]
    offsets: Int64
    sources: list[str]
    columns: Columns

    @property
    def passed(self) -> Int64:
        """The documents that take part in deduplication."""
        return np.flatnonzero(self.columns.fate_D == PASSED)

    def keys(self, priority: Mapping[str, int]) -> Keys:
        """Survivor keys of the passed documents. A document without a score counts as score 0."""
        passed = self.passed
        sources = [self.sources[d] for d in passed.tolist()]
        return Keys(
            ids=[self.columns.ids[d] for d in passed.tolist()],
            sources=sources,
            priority_D=np.array([priority[source] for source in sources], dtype=np.int64),
            score_D=np.nan_to_num(self.columns.score_D[passed], nan=0.0),
            num_bytes_D=self.columns.num_bytes_D[passed],
        )

    def texts_of(self, wanted: Sequence[int] | Int64) -> Iterator[tuple[int, str]]:
        """(document, text) of the wanted documents, in order."""
        wanted_N = np.unique(np.asarray(wanted, dtype=np.int64))
        for k, shard in enumerate(self.shards):
            first, end = int(self.offsets[k]), int(self.offsets[k + 1])
            mine = wanted_N[np.searchsorted(wanted_N, first) : np.searchsorted(wanted_N, end)] - first
            if not len(mine):
                continue
            row = 0
            for batch in read_batches(shard.documents, columns=["text"], batch_rows=BATCH_ROWS):
                here = mine[np.searchsorted(mine, row) : np.searchsorted(mine, row + batch.num_rows)]
                texts = batch.column("text").take((here - row).tolist()).to_pylist() if len(here) else []
                yield from zip((here + first).tolist(), texts, strict=True)
                row += batch.num_rows

    def passed_texts(self, places: Int64) -> Iterator[tuple[int, str]]:
        """As texts_of, of passed documents, asked for and named by their place among the passed."""
        passed = self.passed
        for d, text in self.texts_of(passed[places]):
            yield int(np.searchsorted(passed, d)), text

    def ngram_sets(self, n: int) -> Callable[[Int64], dict[int, UInt64]]:
        """For deduplication: word n-gram sets of passed documents, asked for by their place among the passed."""
        return lambda places: {place: ngram_set(text, n) for place, text in self.passed_texts(places)}


@dataclass(frozen=True, kw_only=True)
class ReadShard:
    """The function over shards: columns of one shard."""

    above: Mapping[str, float]
    held_out: frozenset[str]
    rules: DuplicateRules
    seed: int

    def __call__(self, shard: Shard) -> Columns:
        """Reads, applies held-out ids and the threshold, fingerprints what is left."""
        scores = None if shard.scores is None else _read_scores(shard)
        parts: list[dict[str, Any]] = []
        row = 0
        for batch in read_batches(shard.documents, columns=["id", "text", "bytes_in"], batch_rows=BATCH_ROWS):
            batch_scores = None if scores is None else scores[row : row + batch.num_rows]
            parts.append(self._read(shard, batch, batch_scores))
            row += batch.num_rows
        if scores is not None and len(scores) != row:
            raise DataError(
                f"{shard.scores} scores {len(scores)} documents, {shard.documents} has {row}. Remake the scores."
            )
        return joined_columns([Columns(**part) for part in parts], num_bands=self.rules.num_bands)

    def _read(self, shard: Shard, batch: Any, scores: list[tuple[str, float]] | None) -> dict[str, Any]:
        ids, texts = batch.column("id").to_pylist(), batch.column("text").to_pylist()
        if scores is not None and [name for name, _ in scores] != ids:
            raise DataError(f"{shard.scores} does not list the documents of {shard.documents}. Remake the scores.")
        raw = np.full(len(ids), np.nan) if scores is None else np.array([score for _, score in scores])
        fate_D = np.full(len(ids), PASSED, dtype=np.int8)
        if scores is not None:
            fate_D[~(raw.astype(np.float32) > self.above[shard.source])] = LOW_SCORE
        fate_D[[name in self.held_out for name in ids]] = HELD_OUT
        left = [text for text, fate in zip(texts, fate_D) if fate == PASSED]
        return {
            "ids": ids,
            "score_D": raw.astype(np.float32),
            "num_bytes_D": np.array([len(text.encode()) for text in texts], dtype=np.int64),
            "bytes_in_D": np.array(batch.column("bytes_in").to_pylist(), dtype=np.int64),
            "fate_D": fate_D,
            "prints": fingerprint_texts(left, rules=self.rules, seed=self.seed),
        }


def list_shards(source: str, documents: Sequence[Path], scores: Sequence[Path] | None) -> list[Shard]:
    """The shards of one source. Raises DataError when there is none or one has no scores."""
    found = []
    scored = None if scores is None else {path.name.replace("scores", "documents"): path for path in scores}
    for path in documents:
        score_path = None if scored is None else scored.get(path.name)
        if scored is not None and score_path is None:
            raise DataError(f"{path.name} of source {source!r} has no scores. Remake score/{source}.")
        found.append(Shard(source=source, documents=path, scores=score_path))
    if not found:
        raise DataError(f"source {source!r} is empty: extract left no documents-NNNNN.parquet.")
    return found


def read_candidates(shards: Sequence[Shard], function: ReadShard, executor: Executor) -> Candidates:
    """The columns of all shards in the order given, whatever the order in which they are read."""
    outcomes: dict[Path, Columns] = {}
    for shard, outcome in executor.map(function, shards):
        if isinstance(outcome, Exception):
            raise outcome
        outcomes[shard.documents] = outcome
    parts = [outcomes[shard.documents] for shard in shards]
    sizes = [len(part.ids) for part in parts]
    return Candidates(
        shards=tuple(shards),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        sources=[shard.source for shard, size in zip(shards, sizes, strict=True) for _ in range(size)],
        columns=joined_columns(parts, num_bands=function.rules.num_bands),
    )


def without_duplicate_ids(candidates: Candidates) -> Candidates:
    """An id names one document of a source: of several that passed with one id, the first that was read is kept.

    Raises DataError where more than MAX_DUPLICATE_IDS of a source's documents would be dropped.
    """
    columns, passed = candidates.columns, candidates.passed
    seen: dict[str, set[str]] = defaultdict(set)
    stays = np.ones(len(passed), dtype=bool)
    for place, d in enumerate(passed.tolist()):
        names, name = seen[candidates.sources[d]], columns.ids[d]
        stays[place] = name not in names
        names.add(name)
    if stays.all():
        return candidates
    _check_ids(candidates, passed, passed[~stays])
    fate_D = columns.fate_D.copy()
    fate_D[passed[~stays]] = DUPLICATE_ID
    prints = columns.prints
    left = Fingerprints(
        exact_D2=prints.exact_D2[stays], keys_DB=prints.keys_DB[stays], num_ngrams_D=prints.num_ngrams_D[stays]
    )
    return replace(candidates, columns=replace(columns, fate_D=fate_D, prints=left))


def joined_columns(parts: Sequence[Columns], *, num_bands: int) -> Columns:
    """One set of columns from several, in order."""
    empty = np.empty(0, dtype=np.int64)
    no_prints = Fingerprints(
        exact_D2=np.empty((0, 2), dtype=np.uint64),
        keys_DB=np.empty((0, num_bands), dtype=np.uint64),
        num_ngrams_D=empty,
    )
    prints = [no_prints, *(part.prints for part in parts)]
    return Columns(
        ids=[name for part in parts for name in part.ids],
        score_D=np.concatenate([empty.astype(np.float32), *(part.score_D for part in parts)]),
        num_bytes_D=np.concatenate([empty, *(part.num_bytes_D for part in parts)]),
        bytes_in_D=np.concatenate([empty, *(part.bytes_in_D for part in parts)]),
        fate_D=np.concatenate([empty.astype(np.int8), *(part.fate_D for part in parts)]),
        prints=Fingerprints(
            exact_D2=np.concatenate([one.exact_D2 for one in prints]),
            keys_DB=np.concatenate([one.keys_DB for one in prints]),
            num_ngrams_D=np.concatenate([one.num_ngrams_D for one in prints]),
        ),
    )


def _check_ids(candidates: Candidates, passed: Int64, later: Int64) -> None:
    total = Counter(candidates.sources[d] for d in passed.tolist())
    for source, count in Counter(candidates.sources[d] for d in later.tolist()).items():
        if count > MAX_DUPLICATE_IDS * total[source]:
            example = next(candidates.columns.ids[d] for d in later.tolist() if candidates.sources[d] == source)
            raise DataError(
                f"{count:,} of {total[source]:,} documents of source {source!r} have the id of an earlier one, such as "
                f"{example!r}.\n  An id names one document. Name a field that does in sources.{source}.read, or none, and look "
                "whether its paths name the same texts more than once."
            )


def _read_scores(shard: Shard) -> list[tuple[str, float]]:
    assert shard.scores is not None, shard
    rows: list[tuple[str, float]] = []
    for batch in read_batches(shard.scores, columns=["id", "score"]):
        rows += zip(batch.column("id").to_pylist(), batch.column("score").to_pylist(), strict=True)
    return rows
