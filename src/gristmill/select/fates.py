"""Which documents take part in the search for duplicates, and why the others do not: a byte per document.

    opt-out lists → held-out ids → score threshold → items of packs → ids that an earlier document of the source has        the first decides

A document that holds an item is no first one with its id, so it takes none along. A shard function reads ids, scores and matches of
one shard, no text. Only ids need all shards of a source: their hashes are sorted, and where two are equal the ids themselves
are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from gristmill.data.document import read_batches
from gristmill.data.executor import Executor, results_of
from gristmill.data.lists import Lists
from gristmill.errors import DataError
from gristmill.select.catalogue import Catalogue, Shard, SourceRange
from gristmill.select.contamination import HELD_OUT_ID, read_matches
from gristmill.select.files import new_array
from gristmill.select.opt_out import IsOptedOut, opted_out_by
from gristmill.select.words import Int64
from gristmill.store.durable import atomic_path

PASSED, HELD_OUT, LOW_SCORE, DUPLICATE_ID, CONTAMINATED, OPTED_OUT = range(6)
FIRST_LOOK = np.dtype([("fate", "<i1"), ("has_item", "?"), ("score", "<f4"), ("id_hash", "<u8")])
BATCH_ROWS = 65_536
COMPARED_IDS = 1 << 18  # ids that are held at once
MAX_DUPLICATE_IDS = 0.5  # of a source's documents: beyond it the ids are no ids


@dataclass(frozen=True, kw_only=True)
class LookAtShard:
    """The function over shards: what can be said of each document without the others. Safe to repeat.

    Leaves an array of FIRST_LOOK: the fate by opt-out lists, held-out ids and the threshold, whether it holds an item, its score (NaN without
    a threshold), a hash of its id.
    """

    above: Mapping[str, float]
    opt_out: Lists | None
    out: Path

    def target(self, shard: Shard) -> Path:
        """Where the array of one shard lies."""
        return self.out / f"{shard.key}.npy"

    def __call__(self, shard: Shard) -> None:
        """Looks at one shard unless that was done before. Raises DataError for scores of other documents."""
        if self.target(shard).is_file():
            return
        found = np.zeros(shard.end - shard.first, dtype=FIRST_LOOK)
        scores = None if shard.scores is None else score_batches(shard)
        first = 0
        for batch in read_batches(shard.prints, columns=["id"], batch_rows=BATCH_ROWS):
            ids = batch.column("id").to_pylist()
            here = found[first : first + len(ids)]
            here["id_hash"] = [xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) for name in ids]
            here["score"] = np.nan if scores is None else _scores_of(ids, scores, shard)
            first += len(ids)
        if scores is not None:
            if (left := next(scores, None)) is not None:
                raise _other_documents(shard, f"has more rows, the first is {left[0][0]!r}")
            found["fate"][~(found["score"] > np.float32(self.above[shard.source]))] = LOW_SCORE
        for row, match in read_matches(shard.matches).items():
            if match.rule == HELD_OUT_ID:
                found["fate"][row] = HELD_OUT
            else:
                found["has_item"][row] = True
        if self.opt_out is not None:
            found["fate"][_opted_out(shard.documents, opted_out_by(self.opt_out))] = OPTED_OUT
        with atomic_path(self.target(shard)) as temporary, temporary.open("wb") as file:
            np.save(file, found)


def decide_fates(
    catalogue: Catalogue, function: LookAtShard, executor: Executor, *, fates: Path, scores: Path
) -> dict[str, int]:
    """Writes the fate of each document to `fates` (int8) and its score to `scores` (float32, 0 where it has none).

    Returns, per source, the documents that have the id of an earlier one. Raises DataError where these are more than
    MAX_DUPLICATE_IDS of those that no earlier rule drops. Beside the two files, memory is 24 bytes per document of one source.
    """
    for _ in results_of(executor, function, catalogue.shards):
        pass
    doubles: dict[str, int] = {}
    with atomic_path(fates) as fates_now, atomic_path(scores) as scores_now:
        fate_D = new_array(fates_now, np.int8, len(catalogue))
        score_D = new_array(scores_now, np.float32, len(catalogue))
        for source in catalogue.sources:
            looks = [
                (shard, np.load(function.target(shard), mmap_mode="r")) for shard in catalogue.shards_of(source.name)
            ]
            for shard, look in looks:
                here = fate_D[shard.first : shard.end]
                here[:] = look["fate"]
                here[(here == PASSED) & look["has_item"]] = CONTAMINATED
                score_D[shard.first : shard.end] = np.nan_to_num(look["score"], nan=0.0)
            hash_N = np.concatenate(
                [look["id_hash"][(look["fate"] == PASSED) & ~look["has_item"]] for _, look in looks]
            )
            passed_N = np.flatnonzero(fate_D[source.first : source.end] == PASSED) + source.first
            later = repeated_ids(hash_N, passed_N, ids_of=catalogue.ids_of)
            _check_ids(catalogue, source, later, total=len(passed_N))
            fate_D[later] = DUPLICATE_ID
            doubles[source.name] = len(later)
        fate_D.flush()
        score_D.flush()
    return doubles


def repeated_ids(
    hash_N: NDArray[np.uint64], document_N: Int64, *, ids_of: Callable[[Int64], Iterable[tuple[int, str]]]
) -> Int64:
    """The documents whose id an earlier one of them has; `document_N` is ascending, `ids_of` tells the ids behind hashes."""
    order = np.argsort(hash_N, kind="stable")
    same = hash_N[order[1:]] == hash_N[order[:-1]]
    in_group = np.zeros(len(order), dtype=bool)
    in_group[1:] |= same
    in_group[:-1] |= same
    members = order[in_group]
    repeated = [np.empty(0, dtype=np.int64)]
    for group in _whole_groups(hash_N[members]):
        some = np.sort(document_N[members[group]])
        seen: set[str] = set()
        later: list[int] = []
        for document, name in ids_of(some):
            if name in seen:
                later.append(document)
            seen.add(name)
        repeated.append(np.array(later, dtype=np.int64))
    return np.sort(np.concatenate(repeated))


def score_batches(shard: Shard) -> Iterator[tuple[str, float]]:
    """(id, score) of one shard, in order."""
    assert shard.scores is not None, shard
    for batch in read_batches(shard.scores, columns=["id", "score"], batch_rows=BATCH_ROWS):
        yield from zip(batch.column("id").to_pylist(), batch.column("score").to_pylist(), strict=True)


def _opted_out(documents: Path, is_opted_out: IsOptedOut) -> list[int]:
    """The rows of the documents of a shard that are on a list."""
    batches = read_batches(documents, columns=["id", "url"], batch_rows=BATCH_ROWS)
    named = itertools.chain.from_iterable(
        zip(batch.column("id").to_pylist(), batch.column("url").to_pylist(), strict=True) for batch in batches
    )
    return [row for row, (id, url) in enumerate(named) if is_opted_out(id, url)]


def _scores_of(ids: list[str], scores: Iterator[tuple[str, float]], shard: Shard) -> list[float]:
    rows = [row for _, row in zip(ids, scores)]  # not the other way round: one row too many would be taken
    if [name for name, _ in rows] != ids:
        raise _other_documents(shard, "has other ids, or fewer")
    return [score for _, score in rows]


def _other_documents(shard: Shard, how: str) -> DataError:
    return DataError(f"{shard.scores} does not list the documents of {shard.documents}: it {how}. Remake the scores.")


def _whole_groups(sorted_N: NDArray[np.uint64]) -> Iterator[slice]:
    """Slices of about COMPARED_IDS entries that part no run of equal ones."""
    first = 0
    while first < len(sorted_N):
        end = min(first + COMPARED_IDS, len(sorted_N))
        end = int(np.searchsorted(sorted_N, sorted_N[end - 1], side="right"))
        yield slice(first, end)
        first = end


def _check_ids(catalogue: Catalogue, source: SourceRange, later: Int64, *, total: int) -> None:
    if len(later) > MAX_DUPLICATE_IDS * total:
        ((_, example),) = catalogue.ids_of(later[:1])
        raise DataError(
            f"{len(later):,} of {total:,} documents of source {source.name!r} have the id of an earlier one, such as "
            f"{example!r}.\n  An id names one document. Name a field that does in sources.{source.name}.read, or none, and look "
            "whether its paths name the same texts more than once."
        )
