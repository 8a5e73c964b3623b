"""JSON Lines, plain or gzip."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread, failed
from gristmill.errors import DataError
from gristmill.formats.format import Format, Span, cut_evenly, is_packed, open_unpacked, short, size_of
from gristmill.recipe.schema.formats import ReadJsonl


class Jsonl(Format[ReadJsonl]):
    """A line is a record. A plain file can be entered at any byte, a packed one only at its beginning."""

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """Spans are bytes of a plain file."""
        if is_packed(path):
            return super().spans(path, name=name, limit=limit)
        return cut_evenly(path, name=name, units=size_of(path), limit=limit)

    def read(self, span: Span, settings: ReadJsonl) -> Iterator[Record]:
        """The lines that begin in the span."""
        return read_jsonl(
            span.path,
            name=span.name,
            start=span.start,
            end=span.end,
            text_field=settings.text_field,
            id_field=settings.id_field,
            url_field=settings.url_field,
        )

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The objects among the first lines."""
        with open_unpacked(path) as lines:
            try:
                values = [_value(line) for line in islice(lines, num_rows)]
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{path} cannot be unpacked: {error}. Copy or download it again.") from error
        return [value for value in values if isinstance(value, dict)]


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
) -> Iterator[RawDocument | Unread]:
    """One JSON object a line, plain or gzip; blank lines are not records.

    Fails, one line each: bad_json (NaN and Infinity included), line_too_large, missing_field, field_is_not_text;
    and corrupt_gzip once for all that follows a damaged place. Without `id_field` the id is "name#offset", the byte at
    which the line begins (after unpacking): unlike its number, it is known without reading what comes before.
    `start` and `end` are byte offsets of a plain file: lines that begin in [start, end) are read.
    """
    packed = is_packed(path)
    assert not (packed and (start or end is not None)), "a gzip file has no spans"
    with open_unpacked(path) as file:
        offset = _seek_to_line(file, start) if start else 0
        try:
            while end is None or offset < end:
                line = file.readline(max_bytes + 1)
                if not line:
                    return
                length = len(line)
                too_large = length > max_bytes and not line.endswith(b"\n")
                if too_large:
                    length += _skip_line(file)
                origin, offset = f"{name}#{offset}", offset + length
                if too_large:
                    yield failed(origin, "line_too_large", bytes_in=length, detail=f"the limit is {max_bytes:,} bytes")
                elif line.strip():
                    yield _json_document(line, origin, text_field, id_field, url_field)
        except (OSError, EOFError, zlib.error) as error:
            if not packed:
                raise
            yield failed(f"{name}#{offset}", "corrupt_gzip", bytes_in=0, detail=str(error))


def _seek_to_line(file: IO[bytes], start: int) -> int:
    """Moves to the first line that begins at or after byte `start`; returns its offset."""
    file.seek(start - 1)
    return start - 1 + _skip_line(file)


def _skip_line(file: IO[bytes]) -> int:
    """Reads to the end of the line in pieces and returns how many bytes that were."""
    skipped = 0
    while piece := file.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _json_document(
    line: bytes, origin: str, text_field: str, id_field: str | None, url_field: str | None
) -> RawDocument | Unread:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return failed(origin, "bad_json", bytes_in=len(line), detail=str(error) or type(error).__name__)
    if not isinstance(value, dict):
        return failed(
            origin, "bad_json", bytes_in=len(line), detail=f"expected an object, found {type(value).__name__}"
        )
    for field in (text_field, id_field):
        if field is not None and field not in value:
            detail = f"no {field!r}; the line has {', '.join(map(repr, list(value)[:20]))}"
            return failed(origin, "missing_field", bytes_in=len(line), detail=detail)
    if id_field is not None and value[id_field] is None:
        return failed(origin, "missing_field", bytes_in=len(line), detail=f"{id_field!r} is null")
    text, url = value[text_field], value.get(url_field) if url_field is not None else None
    if not isinstance(text, str):
        return failed(origin, "field_is_not_text", bytes_in=len(line), detail=f"{text_field!r} is {short(text)}")
    id = origin if id_field is None else str(value[id_field])
    return RawDocument(id=id, origin=origin, bytes_in=len(line), text=text, url=url if isinstance(url, str) else None)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
