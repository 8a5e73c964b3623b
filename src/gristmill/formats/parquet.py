"""Parquet files, read by row groups.

A record is a row; its bytes are those of its text in UTF-8, so the content of a file is the length of its text column. A row of
another type, or without a value, has none. A file that cannot be opened as Parquet, or lacks a column that the recipe names, is one
failed record of the file's size on disk.

    metadata of a row group ─→ rows at once ─→ batches of Arrow ─→ one Python value at a time

Memory is bounded by what is in a batch, not by a number of rows: values of 12 MB are read one by one. Columns with a dictionary
stay encoded, because 256 rows that repeat one value of 12 MB are 12 MB there and 3 GB when they are written out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.data import deadline
from gristmill.data.document import open_parquet
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread
from gristmill.errors import DataError
from gristmill.formats.format import Content, Format, Span, cut_evenly, short, size_of
from gristmill.recipe.schema.formats import ReadParquet

BATCH_ROWS = 256
BATCH_BYTES = 16_000_000
READ_BYTES = 1 << 20  # of a column, at once; all of a row group's column would be read otherwise
# What Arrow raises at damage. A lack of memory is none: the same rows may fit when they are read one by one.
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError)


class Parquet(Format[ReadParquet]):
    """A row is a record; a file can be entered at a row group, which is `entry` of its first row."""

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """Spans are row groups."""
        if size_of(path) > limit:
            try:
                with open_parquet(path) as file:
                    return cut_evenly(path, name=name, units=file.num_row_groups, limit=limit)
            except DataError:
                pass  # `read` gives the reason, as one failed record
        return super().spans(path, name=name, limit=limit)

    def read(self, span: Span, settings: ReadParquet) -> Iterator[Record]:
        """The rows of the row groups of the span."""
        return read_parquet(
            span.path,
            name=span.name,
            start=span.start,
            end=span.end,
            alone=span.alone,
            text_column=settings.text_column,
            id_column=settings.id_column,
            url_column=settings.url_column,
        )

    def next_entry(self, span: Span, entry: int) -> int | None:
        """The next row group."""
        try:
            with open_parquet(span.path) as file:
                return entry + 1 if entry + 1 < _last_group(file, span.end) else None
        except DataError:
            return None

    def content(self, span: Span, settings: ReadParquet) -> Content:
        """The rows that the metadata tells, and the length of their text as Arrow computes it."""
        return measure(
            span.path,
            columns=_named(settings.text_column, settings.id_column, settings.url_column),
            start=span.start,
            end=span.end,
            alone=span.alone,
        )

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The first rows."""
        with open_parquet(path) as file:
            columns = list(dict.fromkeys(file.schema_arrow.names))
        try:
            with _open(path, columns) as file:
                if file.num_row_groups == 0:
                    return []
                rows = _rows(file, 0, columns, at_once=_at_once(file, 0, columns))
                return [dict(zip(columns, values)) for values in islice(rows, num_rows)]
        except (_NotReadable, *DAMAGE) as error:
            raise DataError(f"{path} is damaged: {error}. Remake or re-download the file.") from error


FORMAT = Parquet()


def read_parquet(
    path: Path,
    *,
    name: str,
    text_column: str = "text",
    id_column: str | None = None,
    url_column: str | None = None,
    start: int = 0,
    end: int | None = None,
    alone: bool = False,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[RawDocument | Unread]:
    """The rows of a Parquet file; `start` and `end` are row groups, as a half-open range. alone: one row at a time.

    Fails, one row each: field_is_not_text, bad_utf8, missing_field, row_too_large; corrupt_row_group for the rows of a group
    from its first damaged place on. Fails once for the file: corrupt_file, missing_column. Raises MemoryError when a batch
    does not fit into memory.
    """
    columns = _named(text_column, id_column, url_column)
    try:
        opened = _open(path, columns)
    except _NotReadable as error:
        if start == 0:
            yield _failed(f"{name}#0", error.reason, entry=0, bytes_in=size_of(path), detail=str(error))
        return
    with opened as file:
        row = sum(file.metadata.row_group(group).num_rows for group in range(min(start, file.num_row_groups)))
        for group in range(start, _last_group(file, end)):
            for number, values in enumerate(_sound_rows(file, group, columns, alone=alone)):
                entry = group if number == 0 else None
                origin = f"{name}#{row + number}"
                if isinstance(values, str):
                    yield _failed(origin, "corrupt_row_group", entry=entry, detail=values)
                    continue
                fields = dict(zip(columns, values))
                id = origin if id_column is None else fields[id_column]
                url = None if url_column is None else fields[url_column]
                yield _document(fields[text_column], id, url, origin=origin, entry=entry, max_bytes=max_bytes)
            row += file.metadata.row_group(group).num_rows


def measure(path: Path, *, columns: Sequence[str], start: int, end: int | None, alone: bool) -> Content:
    """Rows and bytes of text of some row groups, without a Python value of any; the text is the first of `columns`."""
    try:
        opened = _open(path, columns)
    except _NotReadable:
        return Content(num_bytes=size_of(path), num_records=1) if start == 0 else Content(num_bytes=0, num_records=0)
    with opened as file:
        num_bytes = num_records = 0
        for group in range(start, _last_group(file, end)):
            num_rows, done = file.metadata.row_group(group).num_rows, 0
            for at_once in _tries(file, group, columns, alone=alone):
                skip = done
                try:
                    for batch in _batches(file, group, columns, at_once=at_once):
                        if skip:
                            batch, skip = batch.slice(min(skip, len(batch))), max(0, skip - len(batch))
                        batch = batch.slice(0, num_rows - done)
                        num_bytes += _text_bytes(_column(batch, columns[0]))
                        done += len(batch)
                except MemoryError:
                    raise
                except DAMAGE:
                    pass
                if done == num_rows:
                    break
            num_records += num_rows
        return Content(num_bytes=num_bytes, num_records=num_records)


# ── files and batches ────────────────────────────────────────────────────────────────────────────────────────────────


class _NotReadable(Exception):
    """Why no row of a file can be read; `reason` as the ledger says it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail[:300])
        self.reason = reason


def _named(*columns: str | None) -> list[str]:
    return list(dict.fromkeys(column for column in columns if column is not None))


def _last_group(file: pq.ParquetFile, end: int | None) -> int:
    groups: int = file.num_row_groups
    return groups if end is None else min(end, groups)


def _open(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """The file, ready to read the columns; those with a dictionary stay encoded."""
    try:
        with open_parquet(path) as file:
            metadata, present = file.metadata, file.schema_arrow.names
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        chunks = [chunk for group in groups for chunk in _chunks(group, columns)]
        encoded = {chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page} & {*columns}
        if missing := [column for column in columns if column not in present]:
            listed = ", ".join(map(repr, present[:50]))
            raise _NotReadable("missing_column", f"no {', '.join(map(repr, missing))}; its columns are {listed}")
        flat = [
            (group, chunk) for group in groups for chunk in _chunks(group, columns) if "." not in chunk.path_in_schema
        ]
        if any(group.num_rows < 0 for group in groups) or any(
            chunk.num_values != group.num_rows for group, chunk in flat
        ):
            raise _NotReadable("corrupt_file", "its metadata contradicts itself about the number of rows")
        return pq.ParquetFile(
            path,
            metadata=metadata,
            read_dictionary=sorted(encoded),
            buffer_size=READ_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
    except MemoryError:
        raise
    except (DataError, *DAMAGE) as error:
        raise _NotReadable("corrupt_file", str(error)) from error


def _chunks(group: pq.RowGroupMetaData, columns: Sequence[str]) -> list[pq.ColumnChunkMetaData]:
    """The chunks of a row group that belong to the columns."""
    chunks = [group.column(number) for number in range(group.num_columns)]
    return [
        chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns or chunk.path_in_schema in columns
    ]


def _at_once(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> int:
    """How many rows of a row group take about BATCH_BYTES. A few large values among small ones may take more."""
    metadata = file.metadata.row_group(group)
    size: int = sum(max(0, chunk.total_uncompressed_size) for chunk in _chunks(metadata, columns))
    num_rows: int = metadata.num_rows
    return max(1, min(BATCH_ROWS, BATCH_BYTES * num_rows // max(1, size)))


def _tries(file: pq.ParquetFile, group: int, columns: Sequence[str], *, alone: bool) -> list[int]:
    """Rows to read at once: first as many as memory allows, then single ones."""
    return [1] if alone else list(dict.fromkeys((_at_once(file, group, columns), 1)))


def _batches(file: pq.ParquetFile, group: int, columns: Sequence[str], *, at_once: int) -> Iterator[pa.RecordBatch]:
    for batch in file.iter_batches(batch_size=at_once, row_groups=[group], columns=list(columns), use_threads=False):
        deadline.extend()
        yield batch


def _rows(file: pq.ParquetFile, group: int, columns: Sequence[str], *, at_once: int) -> Iterator[list[Any]]:
    """The values of each row, in the order of `columns`."""
    for batch in _batches(file, group, columns, at_once=at_once):
        fields = [_column(batch, column) for column in columns]
        for row in range(len(batch)):
            yield [_value(field[row]) for field in fields]


def _sound_rows(file: pq.ParquetFile, group: int, columns: Sequence[str], *, alone: bool) -> Iterator[list[Any] | str]:
    """The values of each row of a row group; what is wrong with it for each row from the first damaged place on.

    Damage ends a whole batch. The rows before it come when the group is read again, row by row.
    """
    num_rows, done, wrong = file.metadata.row_group(group).num_rows, 0, "it holds fewer rows than its metadata says"
    for at_once in _tries(file, group, columns, alone=alone):
        try:
            for values in islice(_rows(file, group, columns, at_once=at_once), done, num_rows):
                yield values
                done += 1
        except MemoryError:
            raise
        except DAMAGE as error:
            wrong = str(error)[:200]
        if done == num_rows:
            return
    for _ in range(done, num_rows):
        yield wrong


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The first column of a name: a hostile file has two."""
    return batch.column(batch.schema.get_all_field_indices(name)[0])


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _NotUtf8:
    """The bytes of a string that is none."""

    data: bytes


def _value(scalar: pa.Scalar) -> Any:
    """The Python value; None for one that Python has no value for, such as a date in the year 10,000."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return _NotUtf8(error.object)
    except (ValueError, OverflowError):
        return None


def _text_bytes(column: pa.Array) -> int:
    """The length of all strings and byte strings of a column; other types have none."""
    lengths = _lengths(column)
    num_bytes: int = 0 if lengths is None else pc.sum(lengths, min_count=0).as_py()
    return num_bytes


def _lengths(column: pa.Array) -> pa.Array | None:
    if isinstance(column, pa.DictionaryArray):
        lengths = _lengths(column.dictionary)
        return None if lengths is None else lengths.take(column.indices)
    if isinstance(column, pa.ExtensionArray):  # a string with a meaning, such as JSON, is a string in Python too
        return _lengths(column.storage) if pa.types.is_string(column.storage.type) else None
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    if not any(is_kind(column.type) for is_kind in (*kinds, pa.types.is_fixed_size_binary)):
        return None
    return pc.cast(pc.binary_length(column), pa.int64())


def _document(text: Any, id: Any, url: Any, *, origin: str, entry: int | None, max_bytes: int) -> RawDocument | Unread:
    def lost(reason: str, size: int, detail: str) -> Unread:
        return _failed(origin, reason, entry=entry, bytes_in=size, detail=detail)

    if isinstance(text, _NotUtf8):
        return lost("bad_utf8", len(text.data), f"the text begins with {short(text.data[:60])}")
    if not isinstance(text, str):
        size = len(text) if isinstance(text, bytes) else 0
        return lost("field_is_not_text", size, f"the text is {short(text[:60] if size else text)}")
    size = len(text.encode("utf-8", "surrogatepass"))
    if id is None or isinstance(id, _NotUtf8) or (isinstance(id, float) and math.isnan(id)):
        return lost("missing_field", size, f"the id is {short(id)}")
    if size > max_bytes:
        return lost("row_too_large", size, f"the limit is {max_bytes:,} bytes")
    url = url if isinstance(url, str) else None
    return RawDocument(id=str(id), origin=origin, bytes_in=size, text=text, url=url, entry=entry)


def _failed(origin: str, reason: str, *, entry: int | None, bytes_in: int = 0, detail: str = "") -> Unread:
    return Unread(id=origin, origin=origin, bytes_in=bytes_in, kind="failed", reason=reason, detail=detail, entry=entry)
