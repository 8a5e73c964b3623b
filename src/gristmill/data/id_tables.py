"""Tables of the ids of files: Parquet, lines of JSON, or text with an id a line. A row is a file; or, in Parquet, a repository with a list of
its files, which are then rows with the columns of both.

    the-stack-v2               blob_id, path, repo_name, src_encoding, length_bytes, ...
    the-stack-v2-train-…-ids   repo_name, ..., files: [blob_id, path, src_encoding, length_bytes, ...]
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gristmill.data.document import open_parquet
from gristmill.errors import DataError
from gristmill.recipe.schema.formats import ReadJsonl, ReadParquet
from gristmill.store.jsonl import numbered_objects

ROWS_AT_ONCE = 1000
MAX_COUNTED = 20_000_000  # rows whose lengths plan adds up
MAX_COUNTED_BYTES = 200_000_000  # of lines that plan counts
LENGTH = "length_bytes"  # the column of The Stack v2

Row = Mapping[str, str | None]


def open_table(paths: Sequence[Path], id_column: str) -> tuple[list[str], Iterator[Row]]:
    """The columns of the first table, and the rows of all, one after the other; what is no text is written as JSON. Of lines of
    JSON, the columns are the keys of the first line.

    Raises DataError where there is no column of ids, in the first table at once, in a later one when it is its turn.
    """
    columns = _columns(paths[0], id_column)
    rows = chain.from_iterable(_rows(path, id_column) for path in paths)
    return columns, ({column: _as_text(row.get(column)) for column in columns} for row in rows)


def told_of_tables(
    paths: Sequence[Path], id_column: str, *, max_files: int | None, max_bytes: int | None
) -> tuple[int | None, int | None]:
    """How many files the ids of tables ask for and how large their content is, by the column LENGTH. None for what not all of them tell, or
    only after a long look."""
    tables = [path for path in paths if ReadParquet.suffix_in(path.name)]
    lines = [path for path in paths if path not in tables]
    if sum(path.stat().st_size for path in lines) > MAX_COUNTED_BYTES:
        return None, None
    found = [_lengths(path, id_column) for path in tables]
    lengths = [length for length, _ in found if length is not None]
    counts = [count for _, count in found] + [_count_lines(path) for path in lines]
    if None in counts:
        return None, None
    num_ids = sum(count or 0 for count in counts)
    num_ids = min(num_ids, max_files or num_ids)
    if len(lengths) < len(paths):
        return num_ids, None
    ends = np.cumsum(np.concatenate(lengths)[:num_ids])
    fitting = int(np.searchsorted(ends, max_bytes or math.inf, side="right"))
    return fitting, int(ends[fitting - 1]) if fitting else 0


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if not line.isspace())


def _lengths(path: Path, id_column: str) -> tuple[NDArray[np.int64] | None, int | None]:
    """(the lengths of the files, their number)."""
    with open_parquet(path) as file:
        num_rows, listed = file.metadata.num_rows, _list_with(file.schema_arrow, id_column)
        if num_rows > MAX_COUNTED:
            return None, num_rows if listed is None else None
        if listed is None and LENGTH not in file.schema_arrow.names:
            return None, num_rows
        column = file.read(columns=[LENGTH if listed is None else listed]).column(0)
    if listed is not None:
        items = pc.list_flatten(column)
        column = pc.struct_field(items, LENGTH) if items.type.get_field_index(LENGTH) >= 0 else pa.nulls(len(items))
    is_known = pa.types.is_integer(column.type) and not column.null_count
    return column.to_numpy().astype(np.int64) if is_known else None, len(column)


def _columns(path: Path, id_column: str) -> list[str]:
    if ReadParquet.suffix_in(path.name):
        with open_parquet(path) as file:
            schema = file.schema_arrow
        listed = _list_with(schema, id_column)
        columns = list(schema.names)
        if listed is not None:
            columns = [name for name in columns if name != listed]
            columns += [field.name for field in schema.field(listed).type.value_type if field.name not in columns]
    elif ReadJsonl.suffix_in(path.name):
        columns = [*next((row for _, row in numbered_objects(path)), {})]
    else:
        columns = [id_column]
    if id_column not in columns:
        raise DataError(f"{path} has no column {id_column!r}; it has {', '.join(map(repr, columns)) or 'none'}.")
    return columns


def _list_with(schema: pa.Schema, id_column: str) -> str | None:
    """The column that holds lists of files with ids; None where ids have a column of their own, or none."""
    if id_column in schema.names:
        return None
    lists = [field for field in schema if pa.types.is_list(field.type) or pa.types.is_large_list(field.type)]
    of_files = [
        field.name
        for field in lists
        if pa.types.is_struct(field.type.value_type) and field.type.value_type.get_field_index(id_column) >= 0
    ]
    return str(of_files[0]) if of_files else None


def _rows(path: Path, id_column: str) -> Iterator[dict[str, Any]]:
    _columns(path, id_column)
    if ReadParquet.suffix_in(path.name):
        yield from _parquet_rows(path, id_column)
    elif ReadJsonl.suffix_in(path.name):
        yield from (row for _, row in numbered_objects(path))
    else:
        yield from _lines(path, id_column)


def _parquet_rows(path: Path, id_column: str) -> Iterator[dict[str, Any]]:
    with open_parquet(path) as file:
        listed = _list_with(file.schema_arrow, id_column)
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            if listed is None:
                yield from batch.to_pylist()
                continue
            for row in batch.to_pylist():
                yield from ({**row, **(item or {})} for item in row[listed] or ())


def _lines(path: Path, id_column: str) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip():
                yield {id_column: line.strip()}


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
