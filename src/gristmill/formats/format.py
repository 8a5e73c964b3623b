"""What a format is: how its files are cut into spans, looked at and read. Each format is a file here and a class in the recipe.

    recipe/schema/formats.py   ReadJsonl: keys of the recipe, suffixes, bytes of text per byte on disk
    formats/jsonl.py           Jsonl(Format[ReadJsonl]): spans, read, peek

A reader yields, in the order of the file, a RawDocument or an Unread for each record it meets and a Skip for bytes that are
none; nothing is passed over in silence. The spans of a file, read apart, give each record once.

The reader is no witness of itself: `content` measures a span without the reader's code, and what records and skips take must
add up to it over the spans of a file.
"""

from __future__ import annotations

import importlib
import itertools
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from gristmill.data.record import Record, Unread, failed
from gristmill.formats.coverage import unpacked_bytes
from gristmill.recipe.schema.formats import ReadFiles, packing_by_name

Settings = TypeVar("Settings", bound=ReadFiles)
LEAST_FILE_BYTES = 4096  # what a file counts at least where shards are cut: opening one takes as long as reading this


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A part of a file or tree: [start, end) in the unit of its format, such as bytes or row groups; all of it for end None.

    size: bytes on disk. Any record's `entry` is a `start` too. alone: read one record at a time, however slow: reading more
    at once ran out of memory or time. members: of a tree, the files [start, end) of its listing, by their path in it; a span
    that begins later has the same members, the last of which is file end - 1.
    """

    path: Path
    name: str
    start: int = 0
    end: int | None = None
    size: int
    alone: bool = False
    members: tuple[str, ...] = ()


def bytes_behind(spans: Sequence[Span], part: int, entry: int) -> int:
    """Bytes on disk before an entry of the span with the number `part`. Of that span as far as its entries are offsets; where they are
    numbers, they are small."""
    span = spans[min(part, len(spans) - 1)]
    within = 0 if packing_by_name(span.path.name) else min(max(0, entry - span.start), span.size)
    return sum(one.size for one in spans[:part]) + within


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What lies in a span: bytes, unpacked where the file is packed, and records where the file itself tells their number."""

    num_bytes: int
    num_records: int | None = None


class Format(ABC, Generic[Settings]):
    """A format of files.

    shard_bytes: bytes on disk of a shard of work, least and most: a source is cut into about PARALLEL_SHARDS shards
    within them. Work on the largest takes about a minute. seeks_spans: where a span begins is sought in the file, so what spans
    hold together is held against the whole file, too.
    """

    shard_bytes: ClassVar[tuple[int, int]] = (8_000_000, 64_000_000)
    seeks_spans: ClassVar[bool] = False

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """The file in spans of about `limit` bytes; one, where it cannot be entered in the middle."""
        return [Span(path=path, name=name, size=size_of(path))]

    @abstractmethod
    def read(self, span: Span, settings: Settings) -> Iterator[Record]:
        """The records of one span. Raises DataError when the file is not of the format at all."""

    def next_entry(self, span: Span, entry: int) -> int | None:
        """The first place after `entry`, inside the span, at which the file can be entered: where reading resumes after a
        stretch that ended its process. None: the rest of the span is lost."""
        return None

    def content(self, span: Span, settings: Settings) -> Content:
        """What the span holds, measured apart from the reader. Spans of a file add up to the file."""
        try:
            return Content(num_bytes=unpacked_bytes(span.path))
        except OSError:
            return Content(num_bytes=size_of(span.path))

    def peek(self, path: Path, *, num_rows: int) -> list[dict[str, Any]]:
        """The first rows, as dictionaries, of a format whose text lies in one of several columns; else none."""
        return []

    def misfit(self, path: Path, settings: Settings) -> str:
        """Why no row of the file can be read as the recipe says, in words; nothing where rows can, or where that is seen row by row."""
        return ""

    def told(self, path: Path) -> str:
        """What the file itself tells of how it is written, for people; nothing where there is nothing to choose."""
        return ""


def format_of(settings: ReadFiles) -> Format[Any]:
    """The format that a reader's section of the recipe names."""
    return format_named(settings.format)


def format_named(name: str) -> Format[Any]:
    """The format `name`: FORMAT of the module here that is called so."""
    return cast(Format[Any], importlib.import_module(f"gristmill.formats.{name}").FORMAT)


def cut_evenly(path: Path, *, name: str, units: int, limit: int) -> list[Span]:
    """A file of `units` units (bytes, row groups) in equal spans of about `limit` bytes on disk."""
    size = size_of(path)
    if size <= limit:
        return [Span(path=path, name=name, size=size)]
    count = max(1, min(units, -(-size // limit)))
    cuts = [units * number // count for number in range(count + 1)]
    return [Span(path=path, name=name, start=a, end=b, size=size // count) for a, b in itertools.pairwise(cuts)]


def size_of(path: Path) -> int:
    """Bytes of a file on disk; 0 for a folder, and for a file that is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def unreadable(path: Path, name: str, error: OSError) -> Unread:
    """The one record of a file that cannot be opened."""
    return failed(f"{name}#0", "unreadable_file", bytes_in=size_of(path), detail=error.strerror or str(error))


def short(value: Any) -> str:
    """A value as a message shows it."""
    return repr(value)[:80]
