"""Parquet shards, each absent or complete.

The same rows give the same bytes: compression, row-group size and writer options are fixed here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.store.durable import atomic_path, publish, temporary_beside

ROWS_PER_GROUP = 1024


class ShardWriter:
    """Streams rows (plain dictionaries) into one zstd Parquet file; the file appears when the `with` block ends well.

    An exception inside the block removes the unfinished file. Rows are held until a row group is full, so memory is
    bounded by `rows_per_group` rows. A row that does not fit `schema` raises pyarrow's own error: that is our bug.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, rows_per_group: int = ROWS_PER_GROUP) -> None:
        self.path = path
        self.num_rows = 0
        self._schema = schema
        self._rows_per_group = rows_per_group
        self._rows: list[Mapping[str, Any]] = []
        self._temporary = temporary_beside(path)
        self._writer = pq.ParquetWriter(self._temporary, schema, compression="zstd")

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds one row; keys missing from it become null."""
        self._rows.append(row)
        self.num_rows += 1
        if len(self._rows) >= self._rows_per_group:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                publish(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def write_table(path: Path, table: pa.Table) -> None:
    """One whole table as a zstd Parquet shard, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROWS_PER_GROUP)


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> int:
    """Streams `rows` into one Parquet shard, atomically; returns how many there were."""
    with ShardWriter(path, schema) as writer:
        for row in rows:
            writer.write(row)
    return writer.num_rows
