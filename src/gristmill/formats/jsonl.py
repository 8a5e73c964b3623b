"""JSON Lines, plain or packed.

A record is a line with its end; blank lines are none, and are skipped. Where a stretch of a packed file cannot be unpacked, the
halves of lines on both sides are looked at by themselves: what is an object is one, the rest is lost with the stretch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Skip, Unread, failed
from gristmill.errors import DataError
from gristmill.formats.content import packing_of
from gristmill.formats.format import Content, Format, Span, cut_evenly, short, size_of, unreadable
from gristmill.formats.lines import Line, Lines, lost_at_gaps, seek_to_line
from gristmill.formats.open_text import in_bytes_of_file, open_text, utf16_in
from gristmill.recipe.schema.formats import ReadJsonl


class Jsonl(Format[ReadJsonl]):
    """A line is a record. A plain file can be entered at any byte, one that is packed or in UTF-16 only at its beginning."""

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """Spans are bytes of a plain file."""
        try:
            is_whole = packing_of(path) is not None or utf16_in(path) is not None
        except OSError:
            is_whole = True  # `read` says what is wrong
        if is_whole:
            return super().spans(path, name=name, limit=limit)
        return cut_evenly(path, name=name, units=size_of(path), limit=limit)

    def read(self, span: Span, settings: ReadJsonl) -> Iterator[Record]:
        """The lines that begin in the span."""
        records = read_jsonl(
            span.path,
            name=span.name,
            start=span.start,
            end=span.end,
            text_field=settings.text_field,
            id_field=settings.id_field,
            url_field=settings.url_field,
        )
        return in_bytes_of_file(records, span.path)

    def next_entry(self, span: Span, entry: int) -> int | None:
        """The next line of a plain file."""
        with open_text(span.path) as file:
            if not file.seekable():
                return None
            following = seek_to_line(file, entry + 1)
        return following if following < (size_of(span.path) if span.end is None else span.end) else None

    def content(self, span: Span, settings: ReadJsonl) -> Content:
        """The bytes of a plain file between the ends of the span, or all that a packed one holds."""
        if span.start == 0 and span.end is None:
            return super().content(span, settings)
        return Content(num_bytes=(size_of(span.path) if span.end is None else span.end) - span.start)

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The objects among the first lines."""
        with open_text(path) as file:
            lines = Lines(file, max_bytes=MAX_DOCUMENT_BYTES)
            first = [line.data for line in islice(iter(lines.read, None), num_rows) if line and not line.is_too_large]
            if not first and file.gaps:
                raise DataError(f"{path} cannot be unpacked. Copy or download it again.")
        return [value for value in map(value_of, first) if isinstance(value, dict)]


FORMAT = Jsonl()


def read_jsonl(
    path: Path,
    *,
    name: str,
    text_field: str = "text",
    id_field: str | None = None,
    url_field: str | None = None,
    start: int = 0,
    end: int | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[Record]:
    """One JSON object a line, plain or packed; blank lines are not records.

    Fails, one line each: bad_json (NaN and Infinity included), line_too_large, missing_field, field_is_not_text;
    and corrupt_gzip or corrupt_zstd once for each damaged stretch, file_shrank once where `end` is no longer there. Without `id_field` the id
    is "name#offset", the byte at which the line begins (after unpacking): unlike its number, it is known without reading what
    comes before. `start` and `end` are byte offsets of a plain file: lines that begin in [start, end) are read.
    """
    fields = Fields(text=text_field, id=id_field, url=url_field)
    try:
        file = open_text(path)
    except OSError as error:
        yield unreadable(path, name, error)
        return
    with closing(file):
        packed = not file.seekable()
        assert not (packed and (start or end is not None)), "a packed file has no spans"
        lines = Lines(file, max_bytes=max_bytes, offset=seek_to_line(file, start) if start else 0)
        while end is None or lines.offset < end:
            if (line := lines.read()) is None:
                break
            if line.is_too_large:
                size = line.num_bytes + sum(gap.num_bytes for gap in line.gaps)
                detail = f"the limit is {max_bytes:,} bytes"
                lost = failed(f"{name}#{line.start}", "line_too_large", bytes_in=size, detail=detail)
                yield replace(lost, entry=None if packed else line.start)
            elif line.gaps:
                yield from _around_gaps(line, name, fields)
            elif line.data.isspace():
                blank = line.num_bytes
                while passed := lines.pass_blank(end):
                    blank += passed
                yield Skip(reason="blank_line", num_bytes=blank)
            else:
                yield document_of(line.data, f"{name}#{line.start}", fields, entry=None if packed else line.start)
        else:
            return
        if gaps := lines.rest():
            yield lost_at_gaps(name, gaps)
        if end is not None and (missing := end - max(lines.offset, start)) > 0:
            yield failed(f"{name}#{lines.offset}", "file_shrank", bytes_in=missing, detail=f"it was {end:,} bytes long")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """The keys of an object that hold its text, id and URL."""

    text: str
    id: str | None
    url: str | None


def _around_gaps(line: Line, name: str, fields: Fields) -> Iterator[Record]:
    """What there is of a line, or of two halves of lines, with gaps in it or beside it."""
    positions = [gap.position for gap in line.gaps]
    cuts = sorted({line.start, *positions, line.start + line.num_bytes})
    beside = 0
    for start, end in pairwise(cuts):
        record = document_of(line.data[start - line.start : end - line.start], f"{name}#{start}", fields, entry=None)
        if isinstance(record, RawDocument):
            yield record
        else:
            beside += end - start
    yield lost_at_gaps(name, line.gaps, beside=beside)


def document_of(line: bytes, origin: str, fields: Fields, *, entry: int | None) -> RawDocument | Unread:
    """The record of one JSON object."""

    def lost(reason: str, detail: str) -> Unread:
        return Unread(
            id=origin, origin=origin, bytes_in=len(line), kind="failed", reason=reason, detail=detail, entry=entry
        )

    try:
        value = json.loads(line, parse_constant=_refuse_constant)
        if not isinstance(value, dict):
            return lost("bad_json", f"expected an object, found {type(value).__name__}")
        for field in (fields.text, fields.id):
            if field is not None and field not in value:
                return lost("missing_field", f"no {field!r}; the object has {', '.join(map(repr, list(value)[:20]))}")
        if fields.id is not None and (value[fields.id] == "" or not isinstance(value[fields.id], str | int | float)):
            return lost("missing_field", f"{fields.id!r} is {short(value[fields.id])}, no text and no number")
        text, url = value[fields.text], value.get(fields.url) if fields.url is not None else None
        if not isinstance(text, str):
            return lost("field_is_not_text", f"{fields.text!r} is {short(text)}")
        id = origin if fields.id is None else str(value[fields.id])
    except (ValueError, RecursionError) as error:
        return lost("bad_json", what_is_wrong(error))
    url = url if isinstance(url, str) else None
    return RawDocument(id=id, origin=origin, bytes_in=len(line), text=text, url=url, entry=entry)


def what_is_wrong(error: ValueError | RecursionError) -> str:
    """In words. Where it is in the object, not in the file: that is the record's place."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, at character {error.pos + 1:,}"
    return str(error) or type(error).__name__


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def value_of(line: bytes) -> Any:
    """What the JSON stands for; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
