"""Parquet files, read by row groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.data.document import open_parquet
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread, failed
from gristmill.errors import DataError
from gristmill.formats.format import Format, Span, cut_evenly, short, size_of
from gristmill.recipe.schema.formats import ReadParquet


class Parquet(Format[ReadParquet]):
    """A row is a record."""

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """Spans are row groups."""
        if size_of(path) <= limit:
            return super().spans(path, name=name, limit=limit)
        with open_parquet(path) as file:
            return cut_evenly(path, name=name, units=file.num_row_groups, limit=limit)

    def read(self, span: Span, settings: ReadParquet) -> Iterator[Record]:
        """The rows of the row groups of the span."""
        return read_parquet(
            span.path,
            name=span.name,
            start=span.start,
            end=span.end,
            text_column=settings.text_column,
            id_column=settings.id_column,
            url_column=settings.url_column,
        )

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The first rows."""
        with open_parquet(path) as file:
            batch = next(file.iter_batches(batch_size=num_rows), None)
            return [] if batch is None else batch.to_pylist()


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
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[RawDocument | Unread]:
    """The rows of a Parquet file; `start` and `end` are row groups, as a half-open range.

    Raises DataError when the file is not Parquet or lacks a named column. A row group that cannot be read is
    counted as failed row by row (corrupt_row_group) and the next one is read.
    """
    columns = [column for column in (text_column, id_column, url_column) if column is not None]
    with open_parquet(path) as file:
        present = file.schema_arrow.names
        if missing := [column for column in columns if column not in present]:
            raise DataError(
                f"{path} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, present))}."
            )
        row = sum(file.metadata.row_group(group).num_rows for group in range(start))
        for group in range(start, file.num_row_groups if end is None else min(end, file.num_row_groups)):
            done = 0
            try:
                for batch in file.iter_batches(batch_size=256, row_groups=[group], columns=columns):
                    for values in batch.to_pylist():
                        yield _parquet_document(
                            values, f"{name}#{row + done}", text_column, id_column, url_column, max_bytes
                        )
                        done += 1
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                for lost in range(done, file.metadata.row_group(group).num_rows):
                    yield failed(f"{name}#{row + lost}", "corrupt_row_group", bytes_in=0, detail=str(error)[:200])
            row += file.metadata.row_group(group).num_rows


def _parquet_document(
    values: dict[str, Any], origin: str, text_column: str, id_column: str | None, url_column: str | None, max_bytes: int
) -> RawDocument | Unread:
    text, id = values[text_column], values[id_column] if id_column is not None else origin
    if not isinstance(text, str):
        return failed(origin, "field_is_not_text", bytes_in=0, detail=f"{text_column!r} is {short(text)}")
    size = len(text.encode("utf-8", "surrogatepass"))
    if id is None or (isinstance(id, float) and math.isnan(id)):
        return failed(origin, "missing_field", bytes_in=size, detail=f"{id_column!r} is {id}")
    if size > max_bytes:
        return failed(origin, "row_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
    url = values[url_column] if url_column is not None else None
    return RawDocument(id=str(id), origin=origin, bytes_in=size, text=text, url=url if isinstance(url, str) else None)
