"""Tables as comma- or tab-separated values with a line of column names (RFC 4180), plain or gzip."""

from __future__ import annotations

import codecs
import csv
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Skip, Unread, failed
from gristmill.errors import DataError
from gristmill.formats.format import Format, Span, is_packed, open_unpacked
from gristmill.recipe.schema.formats import ReadCsv


class Csv(Format[ReadCsv]):
    """A row is a record. A quoted field may hold line ends, so a file is entered at its beginning only."""

    def read(self, span: Span, settings: ReadCsv) -> Iterator[Record]:
        """The rows of the file."""
        return read_csv(
            span.path,
            name=span.name,
            text_column=settings.text_column,
            id_column=settings.id_column,
            url_column=settings.url_column,
            delimiter=settings.delimiter,
        )

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The first rows of as many fields as there are columns."""
        with open_unpacked(path) as file:
            try:
                rows = [
                    row
                    for row, _, _ in itertools.islice(_rows(file, delimiter_of(path), MAX_DOCUMENT_BYTES), num_rows + 1)
                ]
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{path} cannot be unpacked: {error}. Copy or download it again.") from error
        names = rows[0] if rows and not isinstance(rows[0], str) else []
        return [dict(zip(names, row)) for row in rows[1:] if not isinstance(row, str) and len(row) == len(names)]


FORMAT = Csv()


def read_csv(
    path: Path,
    *,
    name: str,
    text_column: str = "text",
    id_column: str | None = None,
    url_column: str | None = None,
    delimiter: str | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[Record]:
    """The rows below the line of column names, in UTF-8 with or without its mark; blank lines are no rows.

    Fails, one row each: bad_csv (quotes that do not close, another number of fields than columns, no UTF-8),
    row_too_large, missing_field; and corrupt_gzip once for all that follows a damaged place. Without `id_column` the id is
    "name#offset", the byte at which the row begins (after unpacking). Raises DataError when a named column is not there.
    """
    wanted = [column for column in (text_column, id_column, url_column) if column is not None]
    names: Sequence[str] | None = None
    offset = 0
    with open_unpacked(path) as file:
        try:
            for row, offset, size in _rows(file, delimiter or delimiter_of(path), max_bytes):
                origin = f"{name}#{offset}"
                offset += size
                if names is None:
                    if isinstance(row, str):
                        raise DataError(f"{path} has no line of column names: {row}.")
                    if missing := [column for column in wanted if column not in row]:
                        raise DataError(
                            f"{path} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, row[:50]))}."
                        )
                    names = row
                    yield Skip(reason="column_names", num_bytes=size)
                elif not row:
                    yield Skip(reason="blank_line", num_bytes=size)
                else:
                    yield _document(row, names, origin, size, text_column, id_column, url_column)
        except (OSError, EOFError, zlib.error) as error:
            if not is_packed(path):
                raise
            yield failed(f"{name}#{offset}", "corrupt_gzip", bytes_in=0, detail=str(error))


def delimiter_of(path: Path) -> str:
    """What parts the fields of a file, by its name."""
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


def _document(
    row: list[str] | str,
    names: Sequence[str],
    origin: str,
    size: int,
    text_column: str,
    id_column: str | None,
    url_column: str | None,
) -> RawDocument | Unread:
    if isinstance(row, str):
        reason = "row_too_large" if row.startswith("the limit") else "bad_csv"
        return failed(origin, reason, bytes_in=size, detail=row)
    if len(row) != len(names):
        return failed(origin, "bad_csv", bytes_in=size, detail=f"{len(row)} fields, the table has {len(names)} columns")
    values = dict(zip(names, row, strict=True))
    if id_column is not None and not values[id_column]:
        return failed(origin, "missing_field", bytes_in=size, detail=f"{id_column!r} is empty")
    id = origin if id_column is None else values[id_column]
    url = values[url_column] or None if url_column is not None else None
    return RawDocument(id=id, origin=origin, bytes_in=size, text=values[text_column], url=url)


def _rows(file: IO[bytes], delimiter: str, max_bytes: int) -> Iterator[tuple[list[str] | str, int, int]]:
    """(fields or what is wrong with the row, byte at which it begins, bytes) of each row; a blank line has no fields."""
    csv.field_size_limit(max_bytes)
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        while line := file.readline(max_bytes + 1):
            taken += len(line)
            if taken - start > max_bytes:
                while line and not line.endswith(b"\n"):
                    line = file.readline(1 << 20)
                    taken += len(line)
                raise csv.Error(f"the limit is {max_bytes:,} bytes")
            yield (line.removeprefix(codecs.BOM_UTF8) if taken == len(line) else line).decode("utf-8")

    while True:
        start = taken
        try:
            fields = next(csv.reader(lines(), delimiter=delimiter, strict=True), None)
        except (csv.Error, UnicodeDecodeError) as error:
            yield str(error), start, taken - start
            continue
        if fields is None:
            return
        yield fields, start, taken - start
