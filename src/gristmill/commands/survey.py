"""A survey of raw files: what each format's reader finds in them, counted in guarded children, so that no file can end it.

A survey reads up to READ_BYTES of each format. In files with columns the text is `messages`, or else the column that holds
most text. The main text of SAMPLE pages is extracted, as a run would; how much the others hold is told from these.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from gristmill.data.charset import decode
from gristmill.data.guard import run_guarded
from gristmill.data.job import Place
from gristmill.data.outside import visible_files, why_no_file
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Skip, Unread, failed
from gristmill.errors import DataError
from gristmill.extract.language import detect_language
from gristmill.extract.main_text import find_main_text
from gristmill.formats.format import Span, format_named, size_of, unreadable
from gristmill.formats.lines import Lines
from gristmill.formats.open_text import open_text
from gristmill.recipe.schema.curation import MainText
from gristmill.recipe.schema.formats import READERS, reader_of
from gristmill.select.signatures import exact_hash

READ_BYTES = 100_000_000
PEEK_ROWS = 200
SAMPLE = 300  # documents that are looked at closely
EXCERPT_CHARS = 200
DEADLINE_SECONDS = 10.0
MAX_MEMORY_MB = 1024
OTHER = "other"
MESSAGES = "messages"
NO_TEXT = "no key holds plain text"
EMPTY = "empty"
LINE_END = b"\n"
PIECE_BYTES = 1 << 20
IN_LINES = ("jsonl", "json", "csv")  # formats whose places are bytes of a file of lines
TOLD_PLACES = 3  # records without text that are told by their place, of each reason
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

    file: str
    told: str
    text: str | None
    columns: tuple[Column, ...]
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One document. num_bytes: of its text, None for a page that was not looked at closely; page_bytes: of a page. language, sample:
    None where enough others have told theirs."""

    num_bytes: int | None
    page_bytes: int
    digest: tuple[int, int]
    language: str | None
    sample: tuple[str, str] | None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A record without text. place: where it is, for people; empty where enough others have told theirs."""

    reason: str
    place: str
    detail: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}{self.detail and f' ({self.detail})'}"


Result = Head | Seen | Lost


@dataclass(kw_only=True)
class Found:
    """What was found in the files of one format. heads: one per set of columns; lost: the first records without text of each reason."""

    files: list[Path]
    num_bytes: int = 0
    bytes_read: int = 0
    documents: int = 0
    known_text_bytes: int = 0
    pages: Counter[str] = field(default_factory=Counter)  # bytes: "seen" closely, their "text", "other" pages
    copies: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    lost: list[Lost] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    heads: list[Head] = field(default_factory=list)
    samples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """By how much the figures of what was read are to be multiplied."""
        return self.num_bytes / self.bytes_read if 0 < self.bytes_read < self.num_bytes else 1.0

    @property
    def text_bytes(self) -> float:
        """Of all documents that were read."""
        return self.known_text_bytes + self.pages["other"] * self.pages["text"] / max(1, self.pages["seen"])

    @property
    def is_estimate(self) -> bool:
        """Whether the text was not all looked at."""
        return self.scale > 1 or self.pages["other"] > 0


def files_by_format(target: Path) -> dict[str, list[Path]]:
    """The files below `target` (hidden ones left out), by the format of a recipe's reader that their names fit, or "other"."""
    if (why := why_no_file(target)) is not None:
        raise DataError(f"{target} is no file that could be read: {why}. Name a file or a folder.")
    paths = visible_files(target) if target.is_dir() else [target]
    if not paths:
        raise DataError(f"{target} holds no files.")
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[format_for(path)].append(path)
    return dict(sorted(groups.items()))


def format_for(path: Path) -> str:
    """The name of the format that fits the file's name, or OTHER."""
    return next((name for name, reader in READERS.items() if reader is reader_of(path.name)), OTHER)


def look(kind: str, files: Sequence[Path], limit: int, *, read_bytes: int = READ_BYTES) -> Found:
    """Reads the files of one format, up to `read_bytes`, and counts. limit: samples of text."""
    found = Found(files=list(files), num_bytes=sum(map(size_of, files)))
    if kind == OTHER:
        return found
    chosen: list[Path] = []
    for path in files:
        if found.bytes_read >= read_bytes:
            break
        chosen.append(path)
        found.bytes_read += size_of(path)
    results: list[Result] = _guarded(SurveyJob(kind, tuple(chosen), limit))
    digests: set[tuple[int, int]] = set()
    for result in results:
        if isinstance(result, Lost):
            found.unread[result.reason] += 1
            if result.place and sum(one.reason == result.reason for one in found.lost) < TOLD_PLACES:
                found.lost.append(result)
        elif isinstance(result, Head):
            if all(
                [column.name for column in head.columns] != [c.name for c in result.columns] for head in found.heads
            ):
                found.heads.append(result)
        else:
            found.documents += 1
            found.known_text_bytes += result.num_bytes or 0
            if result.page_bytes:
                found.pages["other" if result.num_bytes is None else "seen"] += result.page_bytes
                found.pages["text"] += result.num_bytes or 0
            found.copies += result.digest in digests
            digests.add(result.digest)
            if result.language is not None and found.languages.total() < SAMPLE:
                found.languages[result.language] += 1
            if result.sample is not None and len(found.samples) < limit:
                found.samples.append(result.sample)
    return found


def heads_of(kind: str, files: Sequence[Path]) -> dict[Path, Head]:
    """The columns of each file that could be looked at."""
    heads: list[Result] = _guarded(SurveyJob(kind, tuple(files), 0, heads_only=True))
    return {path: head for path, head in zip(files, heads, strict=True) if isinstance(head, Head)}


def _guarded(job: SurveyJob) -> Any:
    with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        spool = Path(folder) / "spool"
        return run_guarded(job, spool=spool, deadline_seconds=DEADLINE_SECONDS, max_memory_mb=MAX_MEMORY_MB)


class SurveyJob:
    """The guarded job over files of one format: the head of a file with columns, then its records. A part is a file."""

    def __init__(self, kind: str, files: tuple[Path, ...], limit: int, *, heads_only: bool = False) -> None:
        self.kind, self.files, self.limit, self.heads_only = kind, files, limit, heads_only
        self.format, self.reader = format_named(kind), READERS[kind]
        self._at = Place()
        self._documents = 0  # in this process: enough to know when samples suffice
        self._lost = Counter[str]()

    def __str__(self) -> str:
        return f"{len(self.files):,} files of {self.kind}"

    def items(self, place: Place, *, alone: bool) -> Iterator[tuple[Any, Place | None]]:
        """Heads and records."""
        self._at = place
        return self._items(place, alone)

    def _items(self, place: Place, alone: bool) -> Iterator[tuple[Any, Place | None]]:
        for part in range(place.part, len(self.files)):
            entry = place.entry if part == place.part else 0
            self._at = Place(part, entry)
            begins: Place | None = self._at
            columns: dict[str, str | None] = {}
            if self.reader.text_key is not None:
                head = self._head(self.files[part])
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
            rows = self.format.peek(path, num_rows=PEEK_ROWS)
        except OSError as error:
            return unreadable(path, path.name, error)
        except DataError as error:
            return failed(path.name, "corrupt_file", bytes_in=size_of(path), detail=str(error))
        text = text_column(rows)
        why = "" if text is not None else self._why_no_text(path, rows)
        names = list(dict.fromkeys(name for row in rows for name in row))
        return Head(
            file=path.name,
            told=self.format.told(path),
            text=text,
            columns=tuple(_column(name, rows, name == text) for name in names),
            why=why,
        )

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
        is_looked_at = self._documents <= SAMPLE
        is_page = item.payload is not None and not item.is_all_text and self.reader.holds_html
        if item.is_all_text or (is_page and is_looked_at):
            found = find_main_text(text, extractor=None if item.is_all_text else EXTRACTOR)
            if found.reason is not None:
                return self._without_text(found.reason, "", item)
            text = found.text
        excerpt = " ".join(text.split())[:EXCERPT_CHARS] if self._documents <= self.limit else ""
        return Seen(
            num_bytes=None if is_page and not is_looked_at else len(text.encode("utf-8", "replace")),
            page_bytes=len(item.payload or b"") if is_page else 0,
            digest=digest,
            language=(item.language or detect_language(text)[0] or "?") if is_looked_at else None,
            sample=(item.id, excerpt) if excerpt else None,
        )

    def _without_text(self, reason: str, detail: str, item: RawDocument | Unread | None = None) -> Lost:
        self._lost[reason] += 1
        if self._lost[reason] > TOLD_PLACES:
            return Lost(reason=reason, place="", detail="")
        path = self.files[self._at.part]
        place = path.name if item is None else _where(path, item, self.kind)
        return Lost(reason=reason, place=place, detail=detail)

    def is_record(self, result: Result) -> bool:
        """Whether it is of a record, not the head of a file."""
        return not isinstance(result, Head)

    def failed(self, item: Any, reason: str, detail: str) -> Lost:
        """The record, as one without text."""
        return self._without_text(reason, detail, item if isinstance(item, RawDocument) else None)

    def leave(self, reason: str, detail: str) -> tuple[list[Lost], Place | None]:
        """One record without text; reading resumes at the next place of the file, or with the next file."""
        part, entry = self._at
        span = Span(path=self.files[part], name=self.files[part].name, start=entry, size=size_of(self.files[part]))
        resume = None
        with contextlib.suppress(OSError):
            resume = self.format.next_entry(span, entry)
        if resume is not None:
            return [self._without_text(reason, detail)], Place(part, resume)
        return [self._without_text(reason, detail)], Place(part + 1, 0) if part + 1 < len(self.files) else None

    def finish(self, results: Iterator[Any], *, again: bool) -> list[Any]:
        """All results."""
        return list(results)


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
    """Each line's messages as one text; other lines as a record without text."""
    with open_text(path) as file:
        lines = Lines(file, max_bytes=MAX_DOCUMENT_BYTES)
        for number, line in enumerate(iter(lines.read, None), start=1):
            assert line is not None, "the iteration ends at None"
            origin, row = f"{path.name}#{number}", None if line.is_too_large else _object(line.data)
            messages = None if row is None else row.get(MESSAGES)
            if not isinstance(messages, list):
                yield failed(origin, "missing_field", bytes_in=line.num_bytes, detail=f"no {MESSAGES!r}")
                continue
            contents = [m["content"] for m in messages if isinstance(m, dict) and isinstance(m.get("content"), str)]
            yield RawDocument(id=origin, origin=origin, bytes_in=line.num_bytes, text="\n".join(contents))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
