"""The documents of one source in two runs, joined by id: columns of ids, fates and sizes, and no loop over documents.

An id may occur more than once. Then its first row in one run is paired with its first in the other, in the order train, validation, reasons; rows are
counted, not ids. Time grows with the rows; memory is that of one source: its ids, and some 100 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gristmill.data.document import open_parquet

KEPT = ("train", "validation")
SAMPLES = 3

Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Fates:
    """R rows of one source: id, bytes_in, and fate, one of KEPT or the reason of a rejection.

    paths, ends: the files, in order, and the number of rows up to the end of each.
    """

    table: pa.Table
    paths: Sequence[Path]
    ends: Int64

    @cached_property
    def names(self) -> list[str]:
        """The fates there are."""
        column = self.table.column("fate")
        return [str(name) for name in column.chunk(0).dictionary.to_pylist()] if column.num_chunks else []

    @cached_property
    def fate_R(self) -> Int64:
        """Which of `names` each row has."""
        return _flat([chunk.indices for chunk in self.table.column("fate").chunks])

    @cached_property
    def bytes_R(self) -> Int64:
        """Payload bytes of the record that each row was read from."""
        return _flat(self.table.column("bytes_in").chunks)

    def row(self, number: int) -> dict[str, Any]:
        """All columns of one row."""
        place = int(np.searchsorted(self.ends, number, side="right"))
        left = number - (int(self.ends[place - 1]) if place else 0)
        with open_parquet(self.paths[place]) as file:
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if left < size:
                    return dict(file.read_row_group(group).slice(left, 1).to_pylist()[0])
                left -= size
        raise AssertionError(f"{self.paths[place]} has no row {number}")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Documents with one fate in A and one in B; None in the run that has no such document.

    bytes: of the run that has it, A's where both do. samples: rows (of A, of B) of the first, the middle and the last of them.
    """

    a: str | None
    b: str | None
    documents: int
    bytes: int
    samples: Sequence[tuple[int | None, int | None]]


@dataclass(frozen=True, kw_only=True)
class Joined:
    """groups: the most documents first. repeated_a, repeated_b: rows beyond the first of their id."""

    groups: Sequence[Group]
    repeated_a: int
    repeated_b: int


def read_fates(files: Mapping[str, Sequence[Path]], rejected: Sequence[Path], pool: Executor) -> Fates:
    """files: fate → files of documents that had it. rejected: files that state a reason for each row."""
    asked = [*((path, fate) for fate, paths in files.items() for path in paths), *((path, None) for path in rejected)]
    tables = list(pool.map(_read, asked))
    schema = pa.schema(
        [("id", pa.large_string()), ("bytes_in", pa.int64()), ("fate", pa.dictionary(pa.int32(), pa.string()))]
    )
    table = pa.concat_tables([schema.empty_table(), *tables]).unify_dictionaries()
    return Fates(
        table=table, paths=[path for path, _ in asked], ends=np.cumsum([one.num_rows for one in tables], dtype=np.int64)
    )


def _read(asked: tuple[Path, str | None]) -> pa.Table:
    path, fate = asked
    with open_parquet(path) as file:
        table = file.read(columns=["id", "bytes_in", *(["reason"] if fate is None else [])], use_threads=False)
    fates = (
        table.column("reason").dictionary_encode()
        if fate is None
        else pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), pa.array([fate], pa.string()))
    )
    ids = table.column("id").cast(pa.large_string())  # those of all files may be more than 2 GB
    return pa.table({"id": ids, "bytes_in": table.column("bytes_in"), "fate": fates})


def join(a: Fates, b: Fates) -> Joined:
    """The documents of both by their two fates, and those that only one has."""
    names = [*KEPT, *sorted({*a.names, *b.names} - {*KEPT})]
    fate_A, fate_B = (np.array([names.index(name) for name in side.names], np.int64)[side.fate_R] for side in (a, b))
    (key_A, repeated_a), (key_B, repeated_b) = _keys((a.table.column("id"), fate_A), (b.table.column("id"), fate_B))
    _, row_A, row_B = np.intersect1d(key_A, key_B, assume_unique=True, return_indices=True)
    groups = list(_groups(names, fate_A[row_A], fate_B[row_B], a.bytes_R[row_A], row_A, row_B))
    alone_A, alone_B = _others(len(a.table), row_A), _others(len(b.table), row_B)
    none_A, none_B = np.full(len(alone_A), -1), np.full(len(alone_B), -1)
    groups += _groups(names, fate_A[alone_A], none_A, a.bytes_R[alone_A], alone_A, none_A)
    groups += _groups(names, none_B, fate_B[alone_B], b.bytes_R[alone_B], none_B, alone_B)
    groups.sort(key=lambda group: (-group.documents, group.a or "", group.b or ""))
    return Joined(groups=groups, repeated_a=repeated_a, repeated_b=repeated_b)


def num_with_other_text(a: Sequence[Path], b: Sequence[Path], pool: Executor) -> int:
    """How many rows of one id have another text, by the hashes in files of prints."""
    (id_A, hash_A), (id_B, hash_B) = (_hashes(paths, pool) for paths in (a, b))
    (key_A, _), (key_B, _) = _keys((id_A, hash_A), (id_B, hash_B))
    _, row_A, row_B = np.intersect1d(key_A, key_B, assume_unique=True, return_indices=True)
    return int(np.count_nonzero(hash_A[row_A] != hash_B[row_B]))


def _hashes(paths: Sequence[Path], pool: Executor) -> tuple[pa.ChunkedArray, NDArray[np.uint64]]:
    schema = pa.schema([("id", pa.large_string()), ("text_hash", pa.uint64())])
    table = pa.concat_tables([schema.empty_table(), *pool.map(_read_hashes, paths)])
    return table.column("id"), table.column("text_hash").to_numpy()


def _read_hashes(path: Path) -> pa.Table:
    with open_parquet(path) as file:
        table = file.read(columns=["id", "text_hash"], use_threads=False)
    return pa.table({"id": table.column("id").cast(pa.large_string()), "text_hash": table.column("text_hash")})


def _keys(*sides: tuple[pa.ChunkedArray, NDArray[Any]]) -> list[tuple[Int64, int]]:
    """A number for each row, the same for the same id in all sides, and how many rows repeat an id.

    sides: ids, and the rank by which rows with one id are told apart.
    """
    ids = pa.chunked_array([chunk for column, _ in sides for chunk in column.chunks], pa.large_string())
    encoded = ids.dictionary_encode()
    code = _flat([chunk.indices for chunk in encoded.chunks])
    num_ids = len(encoded.chunk(0).dictionary) if encoded.num_chunks else 0
    found: list[tuple[Int64, int]] = []
    start = 0
    for column, rank_R in sides:
        key_R = code[start : start + len(column)]
        start += len(column)
        again = np.flatnonzero(np.bincount(key_R, minlength=num_ids)[key_R] > 1)
        again = again[np.lexsort((rank_R[again], key_R[again]))]
        _, first, counts = np.unique(key_R[again], return_index=True, return_counts=True)
        nth = np.arange(len(again)) - np.repeat(first, counts)
        key_R[again] += nth * num_ids
        found.append((key_R, int(np.count_nonzero(nth))))
    return found


def _groups(
    names: Sequence[str], fate_A: Int64, fate_B: Int64, bytes_P: Int64, row_A: Int64, row_B: Int64
) -> Iterable[Group]:
    """One group for each pair of fates that occurs; -1 stands for no fate, and for no row."""
    pair_P = (fate_A + 1) * (len(names) + 1) + fate_B + 1
    counts = np.bincount(pair_P)
    sizes = np.bincount(pair_P, weights=bytes_P) if len(pair_P) else counts
    for pair in np.flatnonzero(counts).tolist():
        rows = np.flatnonzero(pair_P == pair)
        shown = np.unique(np.linspace(0, len(rows) - 1, SAMPLES).astype(np.int64))
        a, b = divmod(pair, len(names) + 1)
        yield Group(
            a=names[a - 1] if a else None,
            b=names[b - 1] if b else None,
            documents=len(rows),
            bytes=int(sizes[pair]),
            samples=[(_or_none(row_A[row]), _or_none(row_B[row])) for row in rows[shown]],
        )


def _others(count: int, taken: Int64) -> Int64:
    """The rows that are not taken."""
    is_other = np.ones(count, bool)
    is_other[taken] = False
    return np.flatnonzero(is_other)


def _or_none(row: np.int64) -> int | None:
    return None if row < 0 else int(row)


def _flat(chunks: Sequence[pa.Array]) -> Int64:
    return np.concatenate([np.empty(0, np.int64), *(chunk.to_numpy(zero_copy_only=False) for chunk in chunks)]).astype(
        np.int64
    )
