"""What a file or folder of raw text holds: formats, records, columns, languages, copies, tokens by estimate, samples.

Files are read as the sources of a recipe would read them, up to READ_BYTES of each format; beyond that the figures are
scaled up and marked with ≈.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gristmill.data.charset import decode
from gristmill.data.outside import visible_files
from gristmill.data.record import RawDocument, Skip, Unread, failed
from gristmill.errors import DataError
from gristmill.extract.language import detect_language
from gristmill.formats.format import Span, format_named, open_unpacked
from gristmill.recipe.schema.formats import READERS, reader_of
from gristmill.select.signatures import exact_hash
from gristmill.units import megabytes

READ_BYTES = 100_000_000
BYTES_PER_TOKEN = 4
PEEK_ROWS = 200
LANGUAGE_SAMPLE = 300
EXCERPT_CHARS = 200
MAX_COLUMN_TABLES = 5
OTHER = "other"
MESSAGES = "messages"


@dataclass(kw_only=True)
class Found:
    """What was found in the files of one format."""

    files: list[Path]
    num_bytes: int = 0
    bytes_read: int = 0
    documents: int = 0
    text_bytes: int = 0
    copies: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    columns: dict[tuple[str, ...], Path] = field(default_factory=dict)
    samples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """By how much the figures of what was read are to be multiplied."""
        return self.num_bytes / self.bytes_read if 0 < self.bytes_read < self.num_bytes else 1.0


def inspect_files(target: Path, *, limit: int, console: Console) -> None:
    """Prints what is at `target`. Raises DataError when there is no file."""
    formats = {kind: look(kind, files, limit) for kind, files in files_by_format(target).items()}
    console.print(_overview(formats))
    for kind, found in formats.items():
        for path in islice(found.columns.values(), MAX_COLUMN_TABLES):
            console.print(_columns(kind, path))
        if found.unread:
            listed = ", ".join(f"{reason} {count:,}" for reason, count in found.unread.most_common())
            console.print(f"{kind}: records without text: {listed}", markup=False)
    for kind, found in formats.items():
        for name, excerpt in found.samples:
            console.print(Text.assemble((f"\n{kind}  {name}\n", "bold"), excerpt))


def files_by_format(target: Path) -> dict[str, list[Path]]:
    """The files below `target` (hidden ones left out), by the format of a recipe's reader that their names fit, or "other"."""
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


def look(kind: str, files: list[Path], limit: int) -> Found:
    """Reads the files of one format, up to READ_BYTES, and counts."""
    found = Found(files=files, num_bytes=sum(path.stat().st_size for path in files))
    if kind == OTHER:
        return found
    seen: set[tuple[int, int]] = set()
    for path in files:
        if found.bytes_read and found.bytes_read >= READ_BYTES:
            break
        for record in records(kind, path, found):
            if isinstance(record, Unread):
                found.unread[record.reason] += 1
                continue
            text = record.text if record.text is not None else decode(record.payload or b"")[0]
            found.documents += 1
            found.text_bytes += record.bytes_in if record.payload is not None else len(text.encode("utf-8", "replace"))
            digest = exact_hash(text)
            found.copies += digest in seen
            seen.add(digest)
            if len(found.samples) < limit:
                found.samples.append((record.id, " ".join(text.split())[:EXCERPT_CHARS]))
            if found.documents <= LANGUAGE_SAMPLE and not READERS[kind].holds_html:
                found.languages[record.language or detect_language(text)[0] or "?"] += 1
        found.bytes_read += path.stat().st_size
    return found


def records(kind: str, path: Path, found: Found) -> Iterator[RawDocument | Unread]:
    """The records of one file, by the reader of its format.

    The text of a file with columns is its `messages`, or else the column that holds most text.
    """
    reader, format = READERS[kind], format_named(kind)
    columns = {}
    if reader.text_key is not None:
        rows = format.peek(path, num_rows=PEEK_ROWS)
        found.columns.setdefault(tuple(dict.fromkeys(name for row in rows for name in row)), path)
        column = text_column(rows)
        if column is None or (column == MESSAGES and kind != "jsonl"):
            return iter(())
        if column == MESSAGES:
            return _conversations(path)
        columns = {reader.text_key: column}
    settings = reader.model_validate({"format": kind, "paths": [path.name], **columns})
    span = Span(path=path, name=path.name, size=path.stat().st_size)
    return (record for record in format.read(span, settings) if not isinstance(record, Skip))


def text_column(rows: list[dict[str, Any]]) -> str | None:
    """`messages` where rows have them, else the column with most characters of text; None where there is no text."""
    if any(isinstance(row.get(MESSAGES), list) for row in rows):
        return MESSAGES
    totals: Counter[str] = Counter()
    for row in rows:
        totals.update({name: len(value) for name, value in row.items() if isinstance(value, str)})
    return max(totals, key=lambda name: (totals[name], name == "text")) if totals else None


def _conversations(path: Path) -> Iterator[RawDocument | Unread]:
    """Each line's messages as one text; other lines as a record without text."""
    with open_unpacked(path) as lines:
        for number, line in enumerate(lines, start=1):
            origin, row = f"{path.name}#{number}", _object(line)
            messages = None if row is None else row.get(MESSAGES)
            if not isinstance(messages, list):
                yield failed(origin, "missing_field", bytes_in=len(line), detail=f"no {MESSAGES!r}")
                continue
            contents = [m["content"] for m in messages if isinstance(m, dict) and isinstance(m.get("content"), str)]
            yield RawDocument(id=origin, origin=origin, bytes_in=len(line), text="\n".join(contents))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _overview(formats: dict[str, Found]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "format",
        "files",
        "MB on disk",
        "documents",
        "MB of text",
        "tokens, by estimate",
        "exact copies",
        "languages",
    ):
        table.add_column(heading, justify="left" if heading in ("format", "languages") else "right")
    for kind, found in formats.items():
        about = "≈ " if found.scale > 1 else ""
        size = found.text_bytes * found.scale
        note = " with markup" if kind != OTHER and READERS[kind].holds_html else ""
        total = max(1, sum(found.languages.values()))
        languages = ", ".join(f"{name} {count / total:.0%}" for name, count in found.languages.most_common(4))
        table.add_row(
            kind,
            f"{len(found.files):,}",
            megabytes(found.num_bytes),
            f"{about}{found.documents * found.scale:,.0f}",
            f"{about}{megabytes(size)}{note}",
            f"{about}{size / BYTES_PER_TOKEN:,.0f}{note}",
            f"{found.copies:,}",
            languages,
        )
    return table


def _columns(kind: str, path: Path) -> Table:
    rows = format_named(kind).peek(path, num_rows=PEEK_ROWS)
    text = text_column(rows)
    table = Table(box=None, pad_edge=False, title=escape(f"columns of {path.name}"), title_justify="left")
    for heading in ("column", "type", "present", "example"):
        table.add_column(heading, justify="right" if heading == "present" else "left")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None]
        types = ", ".join(sorted({type(value).__name__ for value in values})) or "null"
        mark = f"{name} (text)" if name == text else name
        example = " ".join(str(values[0]).split())[:60] if values else ""
        table.add_row(Text(mark), types, f"{len(values) / max(1, len(rows)):.0%}", Text(example))
    return table
