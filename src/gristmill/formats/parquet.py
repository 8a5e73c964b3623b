"""Parquet files, read by row groups.

A record is a row; its bytes are those of its text in UTF-8, so the content of a file is the length of its text column. A row of
another type, or without a value, has none. A file that cannot be opened as Parquet, or lacks a column that the recipe names, is one
failed record of the file's size on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from gristmill.data.document import open_parquet
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread
from gristmill.errors import DataError
from gristmill.formats.format import Content, Format, Span, cut_evenly, short, size_of
from gristmill.formats.row_groups import NotReadable, NotUtf8, RowGroups, is_text
from gristmill.recipe.schema.formats import ReadParquet


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
            repository_column=settings.repository_column,
        )

    def next_entry(self, span: Span, entry: int) -> int | None:
        """The next row group."""
        try:
            with RowGroups(span.path, []) as groups:
                return next(iter(groups.between(entry + 1, span.end)), None)
        except NotReadable:
            return None

    def content(self, span: Span, settings: ReadParquet) -> Content:
        """The rows that the metadata tells, and the length of their text as Arrow computes it."""
        columns = _columns(settings)
        try:
            with RowGroups(span.path, columns) as groups:
                numbers = groups.between(span.start, span.end)
                found = [groups.measured(number, settings.text_column, alone=span.alone) for number in numbers]
                return Content(num_bytes=sum(size for size, _ in found), num_records=sum(count for _, count in found))
        except NotReadable:
            is_first = span.start == 0
            return Content(num_bytes=size_of(span.path) if is_first else 0, num_records=int(is_first))

    def misfit(self, path: Path, settings: ReadParquet) -> str:
        """A column that is not there, or a text that is no text, by the file's schema; a file that is not Parquet is left to `read`."""
        try:
            with open_parquet(path) as file:
                schema, num_rows = file.schema_arrow, file.metadata.num_rows
        except DataError:
            return ""
        if not num_rows:
            return ""
        rows = f"rows 0 to {num_rows - 1:,}"
        columns = _columns(settings)
        if missing := [column for column in columns if column not in schema.names]:
            listed = ", ".join(map(repr, schema.names[:12])) + (", …" if len(schema.names) > 12 else "")
            return f"{rows} lack {', '.join(map(repr, missing))}; its columns are {listed}"
        kind = schema.field(settings.text_column).type if schema.names.count(settings.text_column) == 1 else None
        if kind is not None and not is_text(kind):
            return f"{rows} have {kind} in {settings.text_column!r}, where text is expected"
        return ""

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The first rows that are sound."""
        with open_parquet(path) as file:
            columns = list(dict.fromkeys(file.schema_arrow.names))
        try:
            with RowGroups(path, columns) as groups:
                rows = chain.from_iterable(map(groups.rows, groups.between(0, None)))
                first = islice(rows, num_rows)
                return [dict(zip(columns, values)) for values in first if not isinstance(values, str)]
        except NotReadable as error:
            raise DataError(f"{path} is damaged: {error}. Remake or re-download the file.") from error


FORMAT = Parquet()


def read_parquet(
    path: Path,
    *,
    name: str,
    text_column: str = "text",
    id_column: str | None = None,
    url_column: str | None = None,
    repository_column: str | None = None,
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
    try:
        opened = RowGroups(path, _named(text_column, id_column, url_column, repository_column))
    except NotReadable as error:
        if start == 0:
            yield _failed(f"{name}#0", error.reason, entry=0, bytes_in=size_of(path), detail=str(error))
        return
    with opened as groups:
        row = sum(groups.num_rows[:start])
        for group in groups.between(start, end):
            for number, values in enumerate(groups.rows(group, alone=alone), start=row):
                entry, origin = group if number == row else None, f"{name}#{number}"
                if isinstance(values, str):
                    yield _failed(origin, "corrupt_row_group", entry=entry, detail=values)
                    continue
                fields = dict(zip(groups.columns, values))
                id = origin if id_column is None else fields[id_column]
                url = None if url_column is None else fields[url_column]
                record = _document(fields[text_column], id, url, origin=origin, entry=entry, max_bytes=max_bytes)
                if repository_column is not None and isinstance(record, RawDocument):
                    record = replace(record, repository=_text_or_none(fields[repository_column]) or None)
                yield record
            row += groups.num_rows[group]


def _columns(settings: ReadParquet) -> list[str]:
    return _named(settings.text_column, settings.id_column, settings.url_column, settings.repository_column)


def _named(*columns: str | None) -> list[str]:
    return list(dict.fromkeys(column for column in columns if column is not None))


def _document(text: Any, id: Any, url: Any, *, origin: str, entry: int | None, max_bytes: int) -> RawDocument | Unread:
    def lost(reason: str, size: int, detail: str) -> Unread:
        return _failed(origin, reason, entry=entry, bytes_in=size, detail=detail)

    if isinstance(text, NotUtf8):
        return lost("bad_utf8", len(text.data), f"the text begins with {short(text.data[:60])}")
    if not isinstance(text, str):
        size = len(text) if isinstance(text, bytes) else 0
        return lost("field_is_not_text", size, f"the text is {short(text[:60] if size else text)}")
    size = len(text.encode("utf-8", "surrogatepass"))
    if id is None or id == "" or isinstance(id, NotUtf8) or (isinstance(id, float) and math.isnan(id)):
        return lost("missing_field", size, f"the id is {short(id)}")
    if size > max_bytes:
        return lost("row_too_large", size, f"the limit is {max_bytes:,} bytes")
    return RawDocument(id=str(id), origin=origin, bytes_in=size, text=text, url=_text_or_none(url), entry=entry)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _failed(origin: str, reason: str, *, entry: int | None, bytes_in: int = 0, detail: str = "") -> Unread:
    return Unread(id=origin, origin=origin, bytes_in=bytes_in, kind="failed", reason=reason, detail=detail, entry=entry)
