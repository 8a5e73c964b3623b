"""The guarded job of a survey: reads the files of one format, and keeps of each its columns, of each record size, hash and language."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from gristmill.data.by_size import SampleBySize
from gristmill.data.charset import decode
from gristmill.data.job import Place
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Skip, Unread, failed
from gristmill.errors import DataError
from gristmill.extract.language import UNTOLD, language_of
from gristmill.extract.main_text import find_main_text
from gristmill.formats.format import Span, format_named, size_of, unreadable
from gristmill.formats.jsonl import what_is_wrong
from gristmill.formats.lines import Line, Lines
from gristmill.formats.open_text import open_text
from gristmill.recipe.schema.curation import MainText
from gristmill.recipe.schema.formats import READERS
from gristmill.select.exact import exact_hash

PEEK_ROWS = 200
SAMPLE = 1000  # documents that are looked at closely
SAMPLE_PAGES = 200  # of pages, whose main text takes some milliseconds each
EXCERPT_CHARS = 200
MESSAGES = "messages"
NO_TEXT = "no key holds plain text"
EMPTY = "empty"
LINE_END = b"\n"
PIECE_BYTES = 1 << 20
IN_LINES = ("jsonl", "json", "csv")  # formats whose places are bytes of a file of lines
TOLD_PLACES = 3  # records without text that are told by their place, of each reason
ADVICE = {"nested_archive": "no archive in another is read; unpack it"}
EXTRACTOR = MainText.model_fields["extractor"].default


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a file: types and an example of its values, the share of rows that have one."""

    name: str
    types: str
    present: float
    example: str
    is_text: bool


@dataclass(frozen=True, kw_only=True)
class Head:
    """The columns of one file, by its first rows. text: the column that is read; why: why there is none, in words. told: what the
    file tells of how it is written."""

    path: Path
    told: str
    text: str | None
    columns: tuple[Column, ...]
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Close:
    """A document that was looked at closely. key: that it was drawn by; size: bytes of the page, or else of the text."""

    key: str
    is_page: bool
    size: int
    text_bytes: int
    language: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One document. text_bytes: None for a page that was not looked at closely; page_bytes: of a page. sample: None where enough
    others have told theirs."""

    file: int
    text_bytes: int | None
    page_bytes: int
    digest: tuple[int, int]
    close: Close | None
    sample: tuple[str, str] | None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A record without text. place: where it is, for people; empty where enough others have told theirs. close: of a page in which
    no text was found."""

    reason: str
    place: str
    detail: str
    close: Close | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}{self.detail and f' ({self.detail})'}"


Result = Head | Seen | Lost


class SurveyJob:
    """The guarded job over files of one format: the head of a file with columns, then its records. A part is a file."""

    def __init__(self, kind: str, files: tuple[Path, ...], limit: int, *, heads_only: bool = False) -> None:
        self.kind, self.files, self.limit, self.heads_only = kind, files, limit, heads_only
        self.format, self.reader = format_named(kind), READERS[kind]
        self._at = Place()
        self._is_in_head = False
        self._documents = 0  # in this process: enough to know when samples suffice
        self._drawn: SampleBySize[None] = sample_of(kind)
        self._lost = Counter[str]()

    def __str__(self) -> str:
        return f"{len(self.files):,} files of {self.kind}"

    def items(self, place: Place, *, alone: bool) -> Iterator[tuple[Any, Place | None]]:
        """Heads and records."""
        self._at, self._is_in_head = place, place.entry == 0 and self.reader.text_key is not None
        return self._items(place, alone)

    def _items(self, place: Place, alone: bool) -> Iterator[tuple[Any, Place | None]]:
        for part in range(place.part, len(self.files)):
            entry = place.entry if part == place.part else 0
            self._at, self._is_in_head = Place(part, entry), self.reader.text_key is not None
            begins: Place | None = self._at
            columns: dict[str, str | None] = {}
            if self.reader.text_key is not None:
                head = self._head(self.files[part])
                self._is_in_head = False
                if isinstance(head, Unread):
                    yield head, begins
                    continue
                if entry == 0:
                    yield head, begins
                    begins = None
                columns = {} if head.text is None else {self.reader.text_key: head.text}
                if head.text is None and head.columns:
                    continue
            if self.heads_only:
                continue
            span = Span(path=self.files[part], name=self.files[part].name, start=entry, size=size_of(self.files[part]))
            for record in self._records(replace(span, alone=alone), columns):
                if isinstance(record, Skip):
                    continue
                if record.entry is not None:
                    begins = Place(part, record.entry)
                self._at = begins or self._at
                yield record, begins
                begins = None

    def _head(self, path: Path) -> Head | Unread:
        try:
            rows = self._first_rows(path)
        except OSError as error:
            return unreadable(path, path.name, error)
        except DataError as error:
            what = str(error).removeprefix(f"{path} ")
            return failed(path.name, "corrupt_file", bytes_in=size_of(path), detail=what)
        text = text_column(rows)
        why = "" if text is not None else self._why_no_text(path, rows)
        names = list(dict.fromkeys(name for row in rows for name in row))
        return Head(
            path=path,
            told=self.format.told(path),
            text=text,
            columns=tuple(_column(name, rows, name == text) for name in names),
            why=why,
        )

    def _first_rows(self, path: Path) -> list[dict[str, Any]]:
        """Some rows, or one, where it and others do not fit into memory together."""
        with contextlib.suppress(MemoryError):
            return self.format.peek(path, num_rows=PEEK_ROWS)
        return self.format.peek(path, num_rows=1)

    def _why_no_text(self, path: Path, rows: Sequence[dict[str, Any]]) -> str:
        """In words: no column holds text, or there are no rows at all."""
        if rows:
            return NO_TEXT
        settings = self.reader.model_validate({"format": self.kind, "paths": [path.name]})
        for record in self.format.read(Span(path=path, name=path.name, size=size_of(path)), settings):
            if isinstance(record, Unread):
                return f"{_where(path, record, self.kind)}: {record.reason}{record.detail and f' ({record.detail})'}"
        return EMPTY

    def _records(self, span: Span, columns: dict[str, str | None]) -> Iterator[RawDocument | Unread | Skip]:
        if MESSAGES in columns.values():
            return _conversations(span.path) if self.kind == "jsonl" else iter(())
        settings = self.reader.model_validate({"format": self.kind, "paths": [span.name], **columns})
        return self.format.read(span, settings)

    def process(self, item: Head | RawDocument | Unread) -> Result:
        """What is kept of an item."""
        if isinstance(item, Head):
            return item
        if isinstance(item, Unread):
            return self._without_text(item.reason, item.detail, item)
        text = item.text if item.text is not None else decode(item.payload or b"", item.charset)[0]
        digest = exact_hash(text)
        self._documents += 1
        is_page = item.payload is not None and not item.is_all_text and self.reader.holds_html
        if item.is_all_text:
            found = find_main_text(text, extractor=None)
            if found.reason is not None:
                return self._without_text(found.reason, "", item)
            text = found.text
        size = len(item.payload or b"") if is_page else len(text.encode("utf-8", "replace"))
        key = f"{self._at.part}/{item.id}"  # files of several folders may have one name
        is_drawn = self._drawn.wants(key, size)
        self._drawn.add(key, size, None)
        if is_page and (is_drawn or self._documents <= self.limit):
            found = find_main_text(text, extractor=EXTRACTOR)
            if found.reason is not None:
                close = Close(key=key, is_page=True, size=size, text_bytes=0, language=UNTOLD)
                return replace(self._without_text(found.reason, "", item), close=close)
            text, is_page_read = found.text, True
        else:
            is_page_read = not is_page
        excerpt = " ".join(text.split())[:EXCERPT_CHARS] if self._documents <= self.limit else ""
        text_bytes = len(text.encode("utf-8", "replace"))
        language = item.language or language_of(text) if is_drawn else UNTOLD
        close = Close(key=key, is_page=is_page, size=size, text_bytes=text_bytes, language=language)
        return Seen(
            file=self._at.part,
            text_bytes=text_bytes if is_page_read else None,
            page_bytes=size if is_page else 0,
            digest=digest,
            close=close if is_drawn else None,
            sample=(item.id, excerpt) if excerpt else None,
        )

    def _without_text(self, reason: str, detail: str, item: RawDocument | Unread | None = None) -> Lost:
        self._lost[reason] += 1
        if self._lost[reason] > TOLD_PLACES:
            return Lost(reason=reason, place="", detail="")
        path = self.files[self._at.part]
        place = path.name if item is None else _where(path, item, self.kind)
        return Lost(reason=reason, place=place, detail=detail or ADVICE.get(reason, ""))

    def is_record(self, result: Result) -> bool:
        """Whether it is of a record, not the head of a file."""
        return not isinstance(result, Head)

    def failed(self, item: Any, reason: str, detail: str) -> Lost:
        """The record, as one without text."""
        return self._without_text(reason, detail, item if isinstance(item, RawDocument) else None)

    def leave(self, reason: str, detail: str) -> tuple[list[Lost], Place | None]:
        """One record without text; reading resumes at the next place of the file, or with the next file. A file without a head is lost
        as a whole."""
        part, entry = self._at
        following = Place(part + 1, 0) if part + 1 < len(self.files) else None
        if not (self._is_in_head or self.heads_only):
            span = Span(path=self.files[part], name=self.files[part].name, start=entry, size=size_of(self.files[part]))
            with contextlib.suppress(OSError):
                if (resume := self.format.next_entry(span, entry)) is not None:
                    following = Place(part, resume)
        return [self._without_text(reason, detail)], following

    def finish(self, results: Iterator[Any], *, again: bool) -> list[Any]:
        """All results."""
        return list(results)


def sample_of(kind: str) -> SampleBySize[Any]:
    """An empty sample of documents of a format, as large as is looked at closely."""
    return SampleBySize(SAMPLE_PAGES if READERS[kind].holds_html else SAMPLE)


def _where(path: Path, record: RawDocument | Unread, kind: str) -> str:
    """The file of a record, and its line where the format has lines; of an archive, the member."""
    name, _, place = record.origin.rpartition("#")
    if kind not in IN_LINES or not place.isdecimal():
        return path.name if not name or place == "0" else record.origin
    with open_text(path) as file:
        return f"{path.name}, line {1 + sum(piece.count(LINE_END) for piece in _pieces(file, int(place))):,}"


def _pieces(file: IO[bytes], num_bytes: int) -> Iterator[bytes]:
    while num_bytes > 0 and (piece := file.read(min(num_bytes, PIECE_BYTES))):
        yield piece
        num_bytes -= len(piece)


def text_column(rows: Sequence[dict[str, Any]]) -> str | None:
    """`messages` where rows have them, else the column with most characters of text; None where there is no text."""
    if any(isinstance(row.get(MESSAGES), list) for row in rows):
        return MESSAGES
    totals: Counter[str] = Counter()
    for row in rows:
        totals.update({name: len(value) for name, value in row.items() if isinstance(value, str)})
    return max(totals, key=lambda name: (totals[name], name == "text")) if totals else None


def _column(name: str, rows: Sequence[dict[str, Any]], is_text: bool) -> Column:
    values = [row[name] for row in rows if row.get(name) is not None]
    return Column(
        name=name,
        types=", ".join(sorted({type(value).__name__ for value in values})) or "null",
        present=len(values) / max(1, len(rows)),
        example=" ".join(str(values[0])[:500].split())[:60] if values else "",
        is_text=is_text,
    )


def _conversations(path: Path) -> Iterator[RawDocument | Unread]:
    """Each line's messages as one text; other lines, unless they are blank, as a record without text."""
    with open_text(path) as file:
        lines = Lines(file, max_bytes=MAX_DOCUMENT_BYTES)
        for line in iter(lines.read, None):
            if line is not None and not line.data.isspace():
                yield _conversation(line, f"{path.name}#{line.start}")


def _conversation(line: Line, origin: str) -> RawDocument | Unread:
    def lost(reason: str, detail: str) -> Unread:
        return failed(origin, reason, bytes_in=line.num_bytes, detail=detail)

    if line.is_too_large:
        return lost("line_too_large", f"the limit is {MAX_DOCUMENT_BYTES:,} bytes")
    try:
        row = json.loads(line.data)
    except (ValueError, RecursionError) as error:
        return lost("bad_json", what_is_wrong(error))
    messages = row.get(MESSAGES) if isinstance(row, dict) else None
    if not isinstance(messages, list):
        return lost("missing_field", f"no {MESSAGES!r}")
    contents = [m["content"] for m in messages if isinstance(m, dict) and isinstance(m.get("content"), str)]
    return RawDocument(id=origin, origin=origin, bytes_in=line.num_bytes, text="\n".join(contents))
