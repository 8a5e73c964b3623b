"""Tables as comma- or tab-separated values with or without a line of column names (RFC 4180), plain or packed.

A record is a row with its line ends; the line of column names and blank lines are skipped. A table without a column that the recipe
names is one failed record. "column2" is the second column unless one has that name; the first line is then a row unless it looks like
names.

    Lines ─→ _Source: the lines of one row, and where it begins ─→ csv.reader ─→ fields

One reader of Python's csv serves all rows, because creating one takes longer than reading a row. Only after an error a new one is
created, which begins at the next line.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.data.charset import decode
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Skip, Unread, failed
from gristmill.errors import DataError
from gristmill.formats.format import Format, Span, unreadable
from gristmill.formats.lines import Lines, drain, lost_at_gaps
from gristmill.formats.members import Gap
from gristmill.formats.open_text import in_bytes_of_file, open_text
from gristmill.recipe.schema.formats import ReadCsv, without_packing

LINE_ENDS = b"\r\n"
STRAY_RETURN = "new-line character seen in unquoted field"  # how Python's csv begins
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
SNIFF_BYTES = 1 << 16
SNIFF_ROWS = 200
MAX_NAME_WORDS = 6
PLACE = re.compile("column([1-9][0-9]{0,5})")


class Csv(Format[ReadCsv]):
    """A row is a record. A quoted field may contain line ends, so a file is read from its beginning only."""

    def read(self, span: Span, settings: ReadCsv) -> Iterator[Record]:
        """The rows of the file."""
        records = read_csv(
            span.path,
            name=span.name,
            text_column=settings.text_column,
            id_column=settings.id_column,
            url_column=settings.url_column,
            delimiter=settings.delimiter,
        )
        return in_bytes_of_file(records, span.path)

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The first rows that have as many fields as there are columns."""
        rows = _first_rows(path, delimiter_of(path), num_rows)
        if not rows:
            return []
        names = rows.pop(0) if _are_names(rows[0]) else _by_place(len(rows[0]))
        return [dict(zip(names, row)) for row in rows if len(row) == len(names)]

    def told(self, path: Path) -> str:
        """The delimiter, and whether the first line names the columns."""
        delimiter = delimiter_of(path)
        rows = _first_rows(path, delimiter, 1)
        named = "named by the first line" if rows and _are_names(rows[0]) else "without names"
        return f"separated by {DELIMITERS.get(delimiter, repr(delimiter))}, {named}"


FORMAT = Csv()


def read_csv(
    path: Path,
    *,
    name: str,
    text_column: str | None = "text",
    id_column: str | None = None,
    url_column: str | None = None,
    delimiter: str | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[Record]:
    """The rows after the line of column names, in UTF-8 with or without its mark, or in the charset detected from the beginning of the
    file.

    Fails, one row each: bad_csv (quotes that do not close, a number of fields other than that of the columns, bytes not of the
    table's charset), row_too_large, missing_field; corrupt_gzip or corrupt_zstd once for each damaged part and the rows that it
    touches. Fails once for the file: no_column_names, missing_column. Without `id_column` the id is "name#offset", the byte at which
    the row begins (after unpacking). text_column: None for the column with the most text in the first rows. delimiter: None to detect
    it (`delimiter_of`).
    """
    try:
        wanted = [column for column in (text_column, id_column, url_column) if column is not None]
        delimiter = delimiter or delimiter_of(path, wanted)
        text_column = text_column or _with_most_text(path, delimiter)
        file = open_text(path)
    except OSError as error:
        yield unreadable(path, name, error)
        return
    with closing(file):
        lines = Lines(file, max_bytes=max_bytes)
        rows = _rows(lines, delimiter, max_bytes, charset_of(path))
        head = next((row for row in rows if row.fields or row.reason), None)
        if head is None:
            if lines.offset:
                yield Skip(reason="blank_line", num_bytes=lines.offset)
            return
        names, is_row = head.fields, False
        if names and not {*wanted, text_column} <= {*names} and all(map(PLACE.fullmatch, [*wanted, text_column])):
            names, is_row = _by_place(len(names)), not _are_names(names)
        missing = [column for column in (text_column, id_column, url_column) if column not in (None, *names)]
        if missing:
            size = lines.offset + drain(file) + sum(gap.num_bytes for gap in file.gaps)
            detail = f"no {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, names[:50]))}"
            reason = "missing_column" if names else "no_column_names"
            yield failed(f"{name}#0", reason, bytes_in=size, detail=detail if names else head.detail)
            return
        if is_row:
            rows = itertools.chain([head], rows)
            if head.start:
                yield Skip(reason="blank_line", num_bytes=head.start)
        else:
            yield Skip(reason="column_names", num_bytes=lines.offset)
        places = _Places(
            width=len(names),
            text=names.index(text_column),
            id=None if id_column is None else names.index(id_column),
            url=None if url_column is None else names.index(url_column),
        )
        for row in rows:
            if row.gaps:
                yield lost_at_gaps(name, row.gaps, beside=row.num_bytes)
            elif row.fields or row.reason:
                yield _document(row, f"{name}#{row.start}", places)
            else:
                yield Skip(reason="blank_line", num_bytes=row.num_bytes)


# ── dialect ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def delimiter_of(path: Path, wanted: Sequence[str] = ()) -> str:
    """The delimiter of a file: a tab in .tsv files, otherwise a comma, if the columns `wanted` then exist; else the one of DELIMITERS
    with which they exist. Without wanted columns, the one with which most of the first rows have as many fields as the first row,
    and more than one."""
    usual = "\t" if without_packing(path.name.lower()).endswith(".tsv") else ","
    best, best_score = usual, 1
    sample = _sample(path)
    text = sample.removeprefix(codecs.BOM_UTF8).decode(_charset(sample), "replace")
    for delimiter in (usual, *(other for other in DELIMITERS if other != usual)):
        rows = _parsed(text, delimiter, is_cut=len(sample) == SNIFF_BYTES)
        if wanted and rows and {*wanted} <= {*rows[0], *_by_place(len(rows[0]))}:
            return delimiter
        like_first = [row for row in rows if len(row) == len(rows[0]) > 1]
        if not wanted and len(like_first) > best_score:
            best, best_score = delimiter, len(like_first)
    return best


def charset_of(path: Path) -> str:
    """The charset of a table: UTF-8 unless its beginning has more bytes that are not UTF-8 than characters beyond ASCII that are."""
    return _charset(_sample(path))


def _sample(path: Path) -> bytes:
    with open_text(path) as file:
        return file.read(SNIFF_BYTES)


def _charset(sample: bytes) -> str:
    text = sample.decode("utf-8", "replace")
    bad = text.count("\ufffd") - (len(sample) == SNIFF_BYTES)  # a character may be cut there
    if 2 * bad <= sum(character > "\x7f" for character in text):
        return "utf-8"
    charset = decode(sample)[1]
    return "utf-8" if charset.startswith("utf-16") else charset  # its line ends are two bytes: the rows are told as bad


def _parsed(text: str, delimiter: str, *, is_cut: bool) -> list[list[str]]:
    """The first rows of a text; without the last one of a text that may be cut off, unless it is the only one."""
    rows: list[list[str]] = []
    lines = text.splitlines(keepends=True)
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    with contextlib.suppress(csv.Error):
        rows.extend(filter(None, csv.reader(lines, delimiter=delimiter)))
    return rows[: max(1, len(rows) - is_cut)]


def _are_names(row: Sequence[str]) -> bool:
    """Whether a first row is column names: no numbers, no sentences, no texts of many words, no repetition."""
    named = [field for field in row if field]
    return len({*named}) == len(named) > 0 and not any(map(_is_a_value, named))


def _is_a_value(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return len(field.split()) > MAX_NAME_WORDS or field.endswith((".", "!", "?")) or "\n" in field
    return True


def _by_place(width: int) -> list[str]:
    return [f"column{number + 1}" for number in range(width)]


def _first_rows(path: Path, delimiter: str, num_rows: int) -> list[list[str]]:
    """The first rows that have fields, including column names. Raises DataError for a file that cannot be unpacked."""
    with open_text(path) as file:
        found = _rows(Lines(file, max_bytes=MAX_DOCUMENT_BYTES), delimiter, MAX_DOCUMENT_BYTES, charset_of(path))
        rows = [row.fields for row in itertools.islice(found, num_rows + 1) if row.fields]
        if not rows and file.gaps:
            raise DataError(f"{path} cannot be unpacked. Copy or download it again.")
    return rows


def _with_most_text(path: Path, delimiter: str) -> str:
    """The column with the most characters in the first rows; the first of several with as many."""
    try:
        rows = _first_rows(path, delimiter, SNIFF_ROWS)
    except DataError:
        rows = []
    if not rows:
        return "text"
    names = rows.pop(0) if _are_names(rows[0]) else _by_place(len(rows[0]))
    totals = dict.fromkeys(names, 0)
    for row in rows:
        for name, field in zip(names, row):
            totals[name] += len(field)
    return max(totals, key=lambda name: totals[name])


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Row(NamedTuple):
    """The fields of a row, none for blank lines; or why there are none, and the gaps that damaged it."""

    fields: list[str]
    start: int
    num_bytes: int
    reason: str = ""
    detail: str = ""
    gaps: Sequence[Gap] = ()


class _RowError(csv.Error):
    """An error in a row that is not about its quotes."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Source:
    """The lines of rows, as csv.reader requests them. An error in one ends the row, not the source."""

    def __init__(self, lines: Lines, max_bytes: int, charset: str) -> None:
        self.row_start = 0
        self.gaps: list[Gap] = []
        self._lines = lines
        self._max_bytes = max_bytes
        self._charset = charset

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._lines.read()
        if line is None:
            raise StopIteration
        if line.gaps:
            self.gaps = line.gaps
            raise _RowError("corrupt", "a gap")
        if line.is_too_large or self._lines.offset - self.row_start > self._max_bytes:
            raise _RowError("row_too_large", f"the limit is {self._max_bytes:,} bytes")
        data = line.data.removeprefix(codecs.BOM_UTF8) if line.start == 0 else line.data
        return data.decode(self._charset)


def _rows(lines: Lines, delimiter: str, max_bytes: int, charset: str) -> Iterator[_Row]:
    """The whole content as rows, in order."""
    csv.field_size_limit(max_bytes)
    source = _Source(lines, max_bytes, charset)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        start = source.row_start = lines.offset
        try:
            fields = next(reader)
        except StopIteration:
            break
        except (csv.Error, UnicodeDecodeError) as error:
            gaps, source.gaps = source.gaps, []
            reason = error.reason if isinstance(error, _RowError) else "bad_csv"
            yield _Row([], start, lines.offset - start, reason, _what_is_wrong(error), gaps)
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            continue
        if not fields:
            while lines.pass_blank(spaces=LINE_ENDS):
                pass
        yield _Row(fields, start, lines.offset - start)
    if gaps := lines.rest():
        yield _Row([], lines.offset, 0, "corrupt", gaps=gaps)


def _what_is_wrong(error: csv.Error | UnicodeDecodeError) -> str:
    """In words. Python's advice on a stray carriage return is for those who open the file."""
    if str(error).startswith(STRAY_RETURN):
        return "a carriage return without a line feed, outside quotes; lines must end in LF or CRLF"
    return str(error)[:300]


# ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Places(NamedTuple):
    """The number of columns, and the places of text, id and URL."""

    width: int
    text: int
    id: int | None
    url: int | None


def _document(row: _Row, origin: str, places: _Places) -> RawDocument | Unread:
    fields, size = row.fields, row.num_bytes
    if row.reason:
        return failed(origin, row.reason, bytes_in=size, detail=row.detail)
    if len(fields) != places.width:
        detail = f"{len(fields)} fields, the table has {places.width} columns"
        return failed(origin, "bad_csv", bytes_in=size, detail=detail)
    id = origin if places.id is None else fields[places.id]
    if not id:
        return failed(origin, "missing_field", bytes_in=size, detail="the id is empty")
    url = None if places.url is None else fields[places.url] or None
    return RawDocument(id=id, origin=origin, bytes_in=size, text=fields[places.text], url=url)
