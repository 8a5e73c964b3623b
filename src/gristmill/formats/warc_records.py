"""The records of a web archive (ISO 28500), in spite of damage: where each one begins and ends, and what lies between them.

A record is a head of named fields, a block of Content-Length bytes and a blank line. Inside a member the next one begins where the
last one ends, and behind damage at the next HEAD that follows a blank line. What is not complete at a boundary is lost.

Every byte of content and of the gaps is in a Block, a Loss or a Skip. A record is held back until what follows it is known, since
a member that breaks behind its last record may have broken inside of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gristmill.data.record import Skip
from gristmill.formats.content import is_gzip
from gristmill.formats.members import Disk, Gap
from gristmill.formats.warc_archive import PackedArchive, Place, PlainArchive, next_member_head, open_archive

FOLD = re.compile(r"\r\n[ \t]+")
Archive = PackedArchive | PlainArchive
DOCUMENT_TYPES = ("response", "resource", "conversion")
MAX_LENGTH_DIGITS = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One whole record. `fields` by their names in lower case, the first of each. `data` is its block; None where that is larger
    than the limit or the record is no document. num_bytes: all of it, with its head and the line ends behind it."""

    place: Place
    fields: dict[str, str]
    content_length: int
    data: bytes | None
    num_bytes: int


@dataclass(kw_only=True, slots=True)
class Loss:
    """Bytes that give no record, as they add up: a broken record, and what follows it up to the next one."""

    place: Place
    reason: str = "corrupt_member"
    detail: str = ""
    num_bytes: int = 0
    fields: dict[str, str] = field(default_factory=dict)


def records_of(path: Path, *, name: str, start: int, end: int | None, max_bytes: int) -> Iterator[Block | Loss | Skip]:
    """The records of the part of an archive that a span owns. Blocks above `max_bytes` are not kept."""
    with open_archive(path, name=name, start=start, end=end) as archive:
        items = _records(archive, max_bytes)
        yield from items if isinstance(archive, PackedArchive) else _owned(items, archive.start, archive.end)


def next_head(path: Path, *, start: int, end: int | None, max_bytes: int) -> int | None:
    """The first head in [start, end), bytes on disk; None where there is none. max_bytes: as the records are read."""
    with path.open("rb") as file:
        disk = Disk(file)
        end = disk.size if end is None else min(end, disk.size)
        if is_gzip(path):
            return next_member_head(disk, start, end)
        items = _records(PlainArchive(disk, name="", start=disk.size, end=disk.size), max_bytes)
        head = next((entry for item in items if (entry := _entry(item)) is not None and entry >= start), end)
        return head if head < end else None


def _owned(items: Iterator[Block | Loss | Skip], start: int, end: int) -> Iterator[Block | Loss | Skip]:
    """Those from the first head in [start, end) to the first behind it; from the beginning for start 0."""
    owned = start == 0
    for item in items if start < end else ():
        entry = _entry(item)
        if entry is not None and entry >= end:
            return
        owned = owned or (entry is not None and entry >= start)
        if owned:
            yield item


def _entry(item: Block | Loss | Skip) -> int | None:
    return None if isinstance(item, Skip) else item.place.entry


def _records(archive: Archive, max_bytes: int) -> Iterator[Block | Loss | Skip]:
    held: Block | None = None
    loss: Loss | None = None
    while True:
        if archive.starts_record():
            yield from (item for item in (held, loss) if item is not None)
            found = _record(archive, max_bytes)
            held, loss = (found, None) if isinstance(found, Block) else (None, found)
            continue
        if archive.has(1):
            if held is not None:
                yield held
                held = None
            blank = archive.skip_line_ends()
            if blank and loss is None:
                yield Skip(reason="blank_line", num_bytes=blank)
                continue
            loss = loss or Loss(place=archive.place(), detail="no record")
            loss.num_bytes += blank or archive.skip_to_head()
            continue
        boundary = archive.cross()
        if isinstance(boundary, Gap):
            is_sound = archive.begins_member()  # and so the one before has ended
            if held is not None and boundary.fault != "no_member" and not is_sound:
                loss = Loss(place=held.place, num_bytes=held.num_bytes, fields=held.fields)
                held = None
            loss = loss or Loss(place=Place(origin=f"{archive.name}#{boundary.offset}"))
            loss.num_bytes += boundary.num_bytes
            loss.reason, loss.detail = "corrupt_member", f"{boundary.fault}: {boundary.num_bytes:,} bytes on disk"
        if held is not None:
            yield held
            held = None
        if boundary is None:
            if loss is not None:
                yield loss
            return


def _record(archive: Archive, max_bytes: int) -> Block | Loss:
    """The record that begins here; or what is lost with it, up to the next head or the boundary."""
    place, head_bytes = archive.place(), archive.find_blank_line()
    fields = {} if head_bytes is None else _fields(archive.peek(0, head_bytes))
    length = _content_length(fields)
    if head_bytes is None or length is None:
        detail = (
            "its head does not end"
            if head_bytes is None
            else f"its Content-Length is {fields.get('content-length')!r:.80}"
        )
        return Loss(place=place, detail=detail, num_bytes=archive.skip_to_head(), fields=fields)
    num_bytes = head_bytes + length
    if length > max_bytes:
        archive.skip(head_bytes)
        num_bytes = head_bytes + archive.skip_to_head(length) + archive.skip_line_ends()
        return Block(place=place, fields=fields, content_length=length, data=None, num_bytes=num_bytes)
    is_whole = archive.has(num_bytes)
    if not is_whole or not archive.ends_at(num_bytes):
        skipped = archive.skip_to_head()
        reason = "truncated_record" if not is_whole and archive.is_at_end() else "wrong_content_length"
        detail = f"its Content-Length is {length:,}, its head takes {head_bytes:,} of {skipped:,} bytes"
        return Loss(place=place, reason=reason, detail=detail, num_bytes=skipped, fields=fields)
    is_document = fields.get("warc-type", "").lower() in DOCUMENT_TYPES
    data = archive.peek(head_bytes, num_bytes) if is_document and archive.is_wanted() else None
    archive.skip(num_bytes)
    num_bytes += archive.skip_blank_line()
    return Block(place=place, fields=fields, content_length=length, data=data, num_bytes=num_bytes)


def _fields(head: bytes) -> dict[str, str]:
    """The named fields of a head, the first of each name; a line that begins with a blank continues the one before."""
    lines = FOLD.sub(" ", head.decode("utf-8", "replace")).split("\r\n")
    pairs = (line.partition(":") for line in reversed(lines))
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}


def _content_length(fields: dict[str, str]) -> int | None:
    value = fields.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_LENGTH_DIGITS else None
