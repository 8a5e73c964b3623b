"""A survey of raw files: what each format's reader finds in them, counted in guarded children, so that no file can end it.

A survey reads up to READ_BYTES of each format. In files with columns the text is `messages`, or else the column that holds
most text.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gristmill.data.charset import decode
from gristmill.data.guard import run_guarded
from gristmill.data.job import Place
from gristmill.data.outside import visible_files, why_no_file
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Skip, Unread, failed
from gristmill.errors import DataError
from gristmill.extract.language import detect_language
from gristmill.formats.content import open_content
from gristmill.formats.format import Span, format_named, size_of, unreadable
from gristmill.formats.lines import Lines
from gristmill.recipe.schema.formats import READERS, reader_of
from gristmill.select.signatures import exact_hash

READ_BYTES = 100_000_000
PEEK_ROWS = 200
LANGUAGE_SAMPLE = 300
EXCERPT_CHARS = 200
DEADLINE_SECONDS = 10.0
MAX_MEMORY_MB = 1024
OTHER = "other"
MESSAGES = "messages"
MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)
MARKUP_CHARS = 20_000
LEAST_SHARE = 0.05  # of a language that makes a source one of several


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
    """The columns of one file, by its first rows. text: the column that is read. told: what the file tells of how it is written."""

    file: str
    told: str
    text: str | None
    columns: tuple[Column, ...]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One document. language, sample: None where enough others have told theirs."""

    num_bytes: int
    digest: tuple[int, int]
    language: str | None
    sample: tuple[str, str] | None


@dataclass(kw_only=True)
class Found:
    """What was found in the files of one format. heads: one per set of columns."""

    files: list[Path]
    num_bytes: int = 0
    bytes_read: int = 0
    documents: int = 0
    text_bytes: int = 0
    copies: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    heads: list[Head] = field(default_factory=list)
    samples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """By how much the figures of what was read are to be multiplied."""
        return self.num_bytes / self.bytes_read if 0 < self.bytes_read < self.num_bytes else 1.0

    @property
    def mixed_languages(self) -> dict[str, float]:
        """Shares of the documents that told their language, where several languages have LEAST_SHARE of them; else none."""
        told = Counter({name: count for name, count in self.languages.items() if name != "?"})
        shares = {
            name: count / told.total() for name, count in told.most_common() if count >= LEAST_SHARE * told.total()
        }
        return shares if len(shares) > 1 else {}


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


def look(kind: str, files: Sequence[Path], limit: int) -> Found:
    """Reads the files of one format, up to READ_BYTES, and counts. limit: samples of text."""
    found = Found(files=list(files), num_bytes=sum(map(size_of, files)))
    if kind == OTHER:
        return found
    chosen: list[Path] = []
    for path in files:
        if found.bytes_read >= READ_BYTES:
            break
        chosen.append(path)
        found.bytes_read += size_of(path)
    results: list[Head | Seen | str] = _guarded(SurveyJob(kind, tuple(chosen), limit))
    digests: set[tuple[int, int]] = set()
    for result in results:
        if isinstance(result, str):
            found.unread[result] += 1
        elif isinstance(result, Head):
            if all(
                [column.name for column in head.columns] != [c.name for c in result.columns] for head in found.heads
            ):
                found.heads.append(result)
        else:
            found.documents += 1
            found.text_bytes += result.num_bytes
            found.copies += result.digest in digests
            digests.add(result.digest)
            if result.language is not None and found.languages.total() < LANGUAGE_SAMPLE:
                found.languages[result.language] += 1
            if result.sample is not None and len(found.samples) < limit:
                found.samples.append(result.sample)
    return found


def text_columns(kind: str, files: Sequence[Path]) -> dict[Path, str | None]:
    """The text column of each file that could be looked at: None where it has none."""
    heads: list[Head | Seen | str] = _guarded(SurveyJob(kind, tuple(files), 0, heads_only=True))
    return {path: head.text for path, head in zip(files, heads, strict=True) if isinstance(head, Head)}


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
            columns = {}
            if self.reader.text_key is not None:
                head = self._head(self.files[part])
                if isinstance(head, Unread):
                    yield head, begins
                    continue
                if entry == 0:
                    yield head, begins
                    begins = None
                columns = {self.reader.text_key: head.text}
            if self.heads_only or None in columns.values():
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
        names = list(dict.fromkeys(name for row in rows for name in row))
        return Head(
            file=path.name,
            told=self.format.told(path),
            text=text,
            columns=tuple(_column(name, rows, name == text) for name in names),
        )

    def _records(self, span: Span, columns: dict[str, str | None]) -> Iterator[RawDocument | Unread | Skip]:
        if MESSAGES in columns.values():
            return _conversations(span.path) if self.kind == "jsonl" else iter(())
        settings = self.reader.model_validate({"format": self.kind, "paths": [span.name], **columns})
        return self.format.read(span, settings)

    def process(self, item: Head | RawDocument | Unread) -> Head | Seen | str:
        """What is kept of an item; of a record without text, the reason."""
        if isinstance(item, Head):
            return item
        if isinstance(item, Unread):
            return item.reason
        text = item.text if item.text is not None else decode(item.payload or b"")[0]
        self._documents += 1
        tells = self._documents <= LANGUAGE_SAMPLE
        shown = self._documents <= self.limit
        return Seen(
            num_bytes=item.bytes_in if item.payload is not None else len(text.encode("utf-8", "replace")),
            digest=exact_hash(text),
            language=(item.language or detect_language(_words(item, text))[0] or "?") if tells else None,
            sample=(item.id, " ".join(text.split())[:EXCERPT_CHARS]) if shown else None,
        )

    def is_record(self, result: Head | Seen | str) -> bool:
        """Whether it is of a record, not the head of a file."""
        return not isinstance(result, Head)

    def failed(self, item: Any, reason: str, detail: str) -> str:
        """The reason."""
        return reason

    def leave(self, reason: str, detail: str) -> tuple[list[str], Place | None]:
        """The reason; reading resumes at the next place of the file, or with the next file."""
        part, entry = self._at
        span = Span(path=self.files[part], name=self.files[part].name, start=entry, size=size_of(self.files[part]))
        resume = None
        with contextlib.suppress(OSError):
            resume = self.format.next_entry(span, entry)
        if resume is not None:
            return [reason], Place(part, resume)
        return [reason], Place(part + 1, 0) if part + 1 < len(self.files) else None

    def finish(self, results: Iterator[Any], *, again: bool) -> list[Any]:
        """All results."""
        return list(results)


def _words(item: RawDocument, text: str) -> str:
    """A text without its tags, where it is a page: enough to tell its language by."""
    return text if item.payload is None else MARKUP.sub(" ", text[:MARKUP_CHARS])


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
    with open_content(path) as file:
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
