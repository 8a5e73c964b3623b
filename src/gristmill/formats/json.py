"""JSON documents, plain or packed: an array of objects or texts, an object with such a list inside, one object, or JSON Lines.

    [ {"text": …}, {"text": …} ]              an item of the array is a record
    [ "…", "…" ]                              so is a text
    {"page": 1, "rows": [ {…}, {…} ]}         an object without the text stands for its lists, whose items are records
    {"text": …}                               an object with the text is a record
    {"text": …}⏎{"text": …}                   JSON Lines, whatever the file is called

Items are split by their brackets, commas and quotes (json_items.py), in bounded memory, and each is parsed alone: an error in one
costs only that one. If the structure itself breaks, or a part of a packed file cannot be unpacked, the rest is one failure.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Skip, Unread, failed
from gristmill.errors import DataError
from gristmill.formats.content import ContentFile
from gristmill.formats.format import Format, Span, short, unreadable
from gristmill.formats.json_items import SPACES, Item, Items
from gristmill.formats.jsonl import FORMAT as LINES
from gristmill.formats.jsonl import Fields, document_of, read_jsonl, value_of
from gristmill.formats.lines import drain, lost_at_gaps
from gristmill.formats.open_text import in_bytes_of_file, open_text
from gristmill.recipe.schema.formats import ReadJson

Form = Literal["array", "object", "large object", "lines", "blank", "none"]
BEGINNING_BYTES = 1 << 16


class Json(Format[ReadJson]):
    """An item is a record. A file is read from its beginning only."""

    def read(self, span: Span, settings: ReadJson) -> Iterator[Record]:
        """The items of the file."""
        fields = Fields(text=settings.text_field, id=settings.id_field, url=settings.url_field)
        records = read_json(span.path, name=span.name, fields=fields, max_bytes=MAX_DOCUMENT_BYTES)
        return in_bytes_of_file(records, span.path)

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The first objects; an item that is a text counts as an object with the key `text`."""
        with open_text(path) as file:
            form, first = _begun(file, MAX_DOCUMENT_BYTES)
            values: Iterator[Any]
            if form == "lines":
                return LINES.peek(path, num_rows=num_rows)
            if form == "object":
                whole = value_of(first)
                lists = [] if not isinstance(whole, dict) else [one for one in whole.values() if isinstance(one, list)]
                values = iter([whole, *itertools.chain(*lists)])
            else:
                values = (value_of(item.data or b"") for item in _items(file, form, first, MAX_DOCUMENT_BYTES))
            rows = [
                {"text": value} if isinstance(value, str) else value for value in itertools.islice(values, num_rows)
            ]
            if not rows and file.gaps:
                raise DataError(f"{path} cannot be unpacked. Copy or download it again.")
        return [row for row in rows if isinstance(row, dict)]


FORMAT = Json()


def read_json(path: Path, *, name: str, fields: Fields, max_bytes: int) -> Iterator[Record]:
    """The items of a JSON file. Without `id_field` the id is "name#offset", the byte at which the item begins (after unpacking).

    Fails, one item each: bad_json, item_too_large, missing_field, field_is_not_text; once for the rest of the file: bad_json if
    brackets do not match or the file ends inside the structure, corrupt_gzip or corrupt_zstd. An object without the text and without
    lists is dropped as no_text_field. An object larger than `max_bytes` is read as its lists, without looking for a text of its own.
    """
    try:
        file = open_text(path)
    except OSError as error:
        yield unreadable(path, name, error)
        return
    with closing(file):
        form, first = _begun(file, max_bytes)
        if form == "lines":
            for record in read_jsonl(path, name=name, text_field=fields.text, id_field=fields.id, url_field=fields.url):
                yield record if isinstance(record, Skip) else replace(record, entry=None)
        elif form == "blank":
            if first:
                yield Skip(reason="blank_text", num_bytes=len(first))
            if file.gaps:
                yield lost_at_gaps(name, file.gaps)
        elif form == "object" and (whole := _whole(first, name, fields, file)) is not None:
            yield whole
        elif form == "none":
            num_bytes = len(first) + drain(file)
            if file.gaps:
                yield lost_at_gaps(name, file.gaps, beside=num_bytes)
            else:
                yield failed(f"{name}#0", "bad_json", bytes_in=num_bytes, detail=f"it begins with {short(first[:20])}")
        else:
            yield from _records(_items(file, form, first, max_bytes), file, name, fields, max_bytes)


def _begun(file: ContentFile, max_bytes: int) -> tuple[Form, bytes]:
    """The form of a file by its beginning, and the bytes read to see it: all of an object of at most `max_bytes`."""
    first = file.read(BEGINNING_BYTES)
    sign = first.removeprefix(codecs.BOM_UTF8).lstrip(SPACES)[:1]
    if sign == b"[":
        return "array", first
    if sign != b"{":
        return "none" if sign or len(first) == BEGINNING_BYTES else "blank", first
    first += file.read(max(0, max_bytes + 1 - len(first)))
    line, _, rest = first.lstrip(SPACES).partition(b"\n")
    if rest.strip(SPACES) and isinstance(value_of(line), dict):
        return "lines", first
    return "object" if len(first) <= max_bytes else "large object", first


def _whole(data: bytes, name: str, fields: Fields, file: ContentFile) -> RawDocument | Unread | None:
    """The record of a file that is one object; None if the records are in its lists."""
    if file.gaps:
        return lost_at_gaps(name, file.gaps, beside=len(data))
    value = value_of(data)
    if not isinstance(value, dict) or isinstance(value.get(fields.text), str):
        return document_of(data, f"{name}#0", fields, entry=None)
    if any(isinstance(one, list) for one in value.values()):
        return None
    detail = f"no {fields.text!r}; the object has {', '.join(map(repr, list(value)[:20]))}"
    return Unread(
        id=f"{name}#0", origin=f"{name}#0", bytes_in=len(data), kind="dropped", reason="no_text_field", detail=detail
    )


def _items(file: ContentFile, form: Form, first: bytes, max_bytes: int) -> Items:
    return Items(file, first, around=b"[" if form == "array" else b"{[", max_bytes=max_bytes)


def _records(items: Items, file: ContentFile, name: str, fields: Fields, max_bytes: int) -> Iterator[Record]:
    """The records of all items, the part that is lost after them, and the bytes between them."""
    taken = 0
    for item in items:
        taken += item.num_bytes
        yield _document(item, name, fields, max_bytes)
    total = items.num_read + drain(file)
    lost = total - items.lost_from if items.fault or file.gaps else 0
    if file.gaps:
        yield lost_at_gaps(name, file.gaps, beside=lost)
    elif items.fault:
        yield failed(f"{name}#{items.lost_from}", "bad_json", bytes_in=lost, detail=items.fault)
    if total > taken + lost:
        yield Skip(reason="between_items", num_bytes=total - taken - lost)


def _document(item: Item, name: str, fields: Fields, max_bytes: int) -> RawDocument | Unread:
    origin = f"{name}#{item.start}"
    if item.data is None:
        detail = f"the limit is {max_bytes:,} bytes"
        return failed(origin, "item_too_large", bytes_in=item.num_bytes, detail=detail)
    if item.data.startswith(b'"') and isinstance(text := value_of(item.data), str):
        return RawDocument(id=origin, origin=origin, bytes_in=item.num_bytes, text=text)
    return document_of(item.data, origin, fields, entry=None)
