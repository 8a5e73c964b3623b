"""The row groups of a Parquet file in bounded memory, and in spite of damage.

    metadata of a row group ─→ rows at once ─→ batches of Arrow ─→ one Python value at a time

Memory is bounded by what is in a batch, not by a number of rows: values of 12 MB are read one by one. Strings are read as
dictionaries, because 256 rows that repeat one value of 12 MB are 12 MB there and 3 GB when they are written out.

Damage ends a batch with all its rows. So a damaged group is read again row by row, and the rows before the damage come.

What the metadata tell of a column chunk (its size, its encodings) would serve better than what they tell of a row group. But
pyarrow (26) ends the process where they are damaged, instead of raising.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.data import deadline
from gristmill.data.document import open_parquet
from gristmill.errors import DataError

BATCH_ROWS = 256
BATCH_BYTES = 16_000_000
READ_BYTES = 1 << 20  # of a column, at once; all of a row group's column would be read otherwise
MAX_LOST_ROWS = 100_000  # told one by one: a damaged group may say that it has any number of them
STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
VIEWS = (pa.types.is_string_view, pa.types.is_binary_view)  # which are not read as dictionaries
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
# What Arrow raises at damage. A lack of memory is none: the same rows may fit when they are read one by one.
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError)


class NotReadable(Exception):
    """Why no row of a file can be read; `reason` as the ledger says it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail[:300])
        self.reason = reason


@dataclass(frozen=True, slots=True)
class NotUtf8:
    """The bytes of a string that is none."""

    data: bytes


class RowGroups:
    """Some columns of a Parquet file, open. `num_rows`: of each row group, as the metadata says.

    Raises NotReadable where the file is not Parquet, contradicts itself or lacks a column; anything else that is wrong with
    it costs rows. Raises MemoryError, here and in reading, where memory is not enough.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        try:
            with open_parquet(path) as file:
                metadata, schema = file.metadata, file.schema_arrow
            if missing := [column for column in columns if column not in schema.names]:
                listed = ", ".join(map(repr, schema.names[:50]))
                raise NotReadable("missing_column", f"no {', '.join(map(repr, missing))}; its columns are {listed}")
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            self.columns = list(columns)
            self.num_rows = [group.num_rows for group in groups]
            self._sizes = [group.total_byte_size for group in groups]
            if min(self.num_rows, default=0) < 0 or sum(self.num_rows) != metadata.num_rows:
                raise NotReadable("corrupt_file", "its metadata contradicts itself about the number of rows")
            strings = [field.name for field in schema if field.name in columns and _is_any(field.type, STRINGS)]
            self._file = pq.ParquetFile(
                path,
                metadata=metadata,
                read_dictionary=strings,
                buffer_size=READ_BYTES,
                pre_buffer=False,
                page_checksum_verification=True,
            )
        except MemoryError:
            raise
        except (DataError, *DAMAGE) as error:
            raise NotReadable("corrupt_file", str(error).removeprefix(f"{path} ")) from error

    def __enter__(self) -> RowGroups:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def between(self, start: int, end: int | None) -> range:
        """The row groups [start, end), as far as there are any."""
        return range(start, len(self.num_rows) if end is None else min(end, len(self.num_rows)))

    def rows(self, group: int, *, alone: bool = False) -> Iterator[list[Any] | str]:
        """The values of each row in the order of `columns`; for each row from the first damaged place on what is wrong.

        A string that is not UTF-8 is NotUtf8, a value that Python does not have is None. alone: one row at a time. Of more
        than MAX_LOST_ROWS rows that are lost, the last item stands for the rest.
        """
        num_rows, done, wrong = self.num_rows[group], 0, "it holds fewer rows than its metadata says"
        for at_once in self._tries(group, alone=alone):
            try:
                for values in islice(self._values(group, at_once), done, num_rows):
                    yield values
                    done += 1
            except MemoryError:
                raise
            except DAMAGE as error:
                wrong = str(error)[:200]
            if done == num_rows:
                return
        for _ in range(min(num_rows - done, MAX_LOST_ROWS)):
            yield wrong
        if num_rows - done > MAX_LOST_ROWS:
            yield f"{num_rows - done - MAX_LOST_ROWS:,} further rows: {wrong}"

    def measured(self, group: int, column: str, *, alone: bool = False) -> tuple[int, int]:
        """(bytes of a column's strings in the rows before any damage, items that `rows` gives), as Arrow computes them.

        No value becomes one of Python.
        """
        num_rows, done, num_bytes = self.num_rows[group], 0, 0
        for at_once in self._tries(group, alone=alone):
            skip = done
            try:
                for batch in self._batches(group, at_once):
                    passed = min(skip, len(batch))
                    skip -= passed
                    new = batch.slice(passed, num_rows - done)
                    num_bytes += _num_bytes(_column(new, column))
                    done += len(new)
            except MemoryError:
                raise
            except DAMAGE:
                continue
            if done == num_rows:
                break
        return num_bytes, done + min(num_rows - done, MAX_LOST_ROWS + 1)

    def _tries(self, group: int, *, alone: bool) -> list[int]:
        """Rows to read at once: as many as take about BATCH_BYTES by their mean, then single ones."""
        at_once = BATCH_BYTES * self.num_rows[group] // max(1, self._sizes[group])
        return [1] if alone else list(dict.fromkeys((max(1, min(BATCH_ROWS, at_once)), 1)))

    def _batches(self, group: int, at_once: int) -> Iterator[pa.RecordBatch]:
        batches = self._file.iter_batches(
            batch_size=at_once, row_groups=[group], columns=self.columns, use_threads=False
        )
        for batch in batches:
            deadline.extend()
            yield batch

    def _values(self, group: int, at_once: int) -> Iterator[list[Any]]:
        for batch in self._batches(group, at_once):
            fields = [_column(batch, column) for column in self.columns]
            for row in range(len(batch)):
                yield [_value(field[row]) for field in fields]


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The first column of a name: a hostile file has two."""
    return batch.column(batch.schema.get_all_field_indices(name)[0])


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return NotUtf8(error.object)
    except (ValueError, OverflowError):  # a date in the year 10,000
        return None


def _num_bytes(column: pa.Array) -> int:
    """Bytes of the strings and byte strings of a column; other types have none."""
    lengths = _lengths(column)
    num_bytes: int = 0 if lengths is None else pc.sum(lengths, min_count=0).as_py()
    return num_bytes


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type may be strings: as they are, by a dictionary, with a meaning, or all absent."""
    if isinstance(kind, pa.DictionaryType):
        return is_text(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return is_text(kind.storage_type)
    return _is_any(kind, (*TEXTS, pa.types.is_null))


def _is_any(kind: pa.DataType, kinds: Sequence[Callable[[pa.DataType], bool]]) -> bool:
    return any(is_kind(kind) for is_kind in kinds)


def _lengths(column: pa.Array) -> pa.Array | None:
    if isinstance(column, pa.DictionaryArray):
        lengths = _lengths(column.dictionary)
        return None if lengths is None else lengths.take(column.indices)
    if isinstance(column, pa.ExtensionArray):  # a string with a meaning, such as JSON, is a string in Python too
        return _lengths(column.storage) if _is_any(column.storage.type, TEXTS) else None
    if _is_any(column.type, VIEWS):
        column = column.cast(pa.large_binary())
    if not (_is_any(column.type, STRINGS) or pa.types.is_fixed_size_binary(column.type)):
        return None
    return pc.cast(pc.binary_length(column), pa.int64())
