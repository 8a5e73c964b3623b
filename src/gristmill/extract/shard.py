"""One shard, path → path: a guarded child reads its spans, curates each record and commits the files.

    spans ─→ reader ─→ record → fates ─→ documents-NNNNN.parquet, rejected-NNNNN.parquet, shard-NNNNN.json (last; the shard is done)

What a shard's records and skips take is held against its content (`account.py`). A file that several shards share is held
against it when all of them are done (`extract.py`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from gristmill.data.document import document_schema, shard_path
from gristmill.data.guard import run_guarded
from gristmill.data.job import Place
from gristmill.data.ledger import REJECTED_SCHEMA, Ledger
from gristmill.data.record import RawDocument, Record, Skip, Unread, failed
from gristmill.data.write import ShardWriter
from gristmill.errors import DataError
from gristmill.extract.account import NOTHING, Taken, enter, take
from gristmill.extract.curate import Fate, Settings, curate, reject
from gristmill.extract.own_packs import load_own_packs
from gristmill.extract.urls import load_url_filter
from gristmill.formats.format import Content, Span, bytes_behind, format_of
from gristmill.store.durable import temporary_beside, write_json

Result = tuple[int, tuple[Fate, ...] | Skip]  # of a record, and the number of its span
FORM = 2  # of a shard's record: one of an earlier form is made again


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard of work and where its files lie."""

    number: int
    spans: tuple[Span, ...]
    out: Path

    @property
    def documents_path(self) -> Path:
        return shard_path(self.out, self.number)

    @property
    def rejected_path(self) -> Path:
        return shard_path(self.out, self.number, stem="rejected")

    @property
    def record_path(self) -> Path:
        return self.out / f"shard-{self.number:05d}.json"

    def new_spool(self) -> Path:
        """A path for the spool of an attempt."""
        return temporary_beside(self.out / f"shard-{self.number:05d}.spool")

    def inputs(self) -> str:
        """What the shard is made from, as a hash of stamps: tells whether a finished one still matches its files."""
        digest = xxhash.xxh3_128(bytes([FORM]))
        for span in self.spans:
            files = [span.path, *(span.path / member for member in span.members)]
            row = [span.name, span.start, span.end, *map(_stamp, files)]
            digest.update(json.dumps(row).encode() + b"\n")
        return str(digest.hexdigest())

    def is_done(self) -> bool:
        """Whether its files are there, made from what its inputs are now."""
        if not self.record_path.exists():
            return False
        return bool(json.loads(self.record_path.read_text(encoding="utf-8"))["inputs"] == self.inputs())


class Behind(NamedTuple):
    """How far a shard is: records that have a fate, and bytes on disk before the one that is read."""

    records: int
    num_bytes: int


def extract_shard(
    settings: Settings,
    shard: Shard,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Behind], None] = lambda behind: None,
) -> int:
    """Makes the three files of a shard in a guarded child; returns how many documents are kept."""
    kept: int = run_guarded(
        CurateJob(settings, shard),
        spool=shard.new_spool(),
        deadline_seconds=settings.deadline_seconds,
        max_memory_mb=settings.max_memory_mb,
        max_crashed=settings.max_failed,
        should_stop=should_stop,
        progress=lambda state: progress(Behind(state.records, bytes_behind(shard.spans, state.part, state.entry))),
    )
    return kept


class CurateJob:
    """The guarded job of one shard; see `data/guard.py`."""

    def __init__(self, settings: Settings, shard: Shard) -> None:
        self.settings = settings
        self.shard = shard
        self.spans = shard.spans
        self.format = format_of(settings.read)
        self.inputs = shard.inputs()
        self._at = Place()  # the last place at or before the record that is read
        self._since = Taken()  # what was yielded since
        self._in_reader = False

    def __str__(self) -> str:
        return f"{self.settings.source}: {', '.join(span.name for span in self.spans[:3])}"

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def items(self, place: Place, *, alone: bool) -> Iterator[tuple[Record, Place | None]]:
        """The records of all spans from `place` on, each with its place where reading can begin with it."""
        load_own_packs(self.settings.own_packs)  # here, where it is no document's time
        if self.settings.urls is not None:
            load_url_filter(self.settings.urls)
        self._at, self._since, self._in_reader = place, Taken(), False
        return self._records(place, alone)

    def _records(self, place: Place, alone: bool) -> Iterator[tuple[Record, Place | None]]:
        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
        for part in range(place.part, len(self.spans)):
            span = self._span(Place(part, place.entry if part == place.part else 0))
            self._at, self._since, self._in_reader = Place(part, span.start), Taken(), True
            begins: Place | None = self._at
            for record in self.format.read(replace(span, alone=alone and part == place.part), self.settings.read):
                if not isinstance(record, Skip) and record.entry is not None:
                    begins = Place(part, record.entry)
                if begins is not None:
                    self._at, self._since = begins, Taken()
                take(self._since, record)
                self._in_reader = False
                yield record, begins
                begins, self._in_reader = None, True

    def _span(self, place: Place) -> Span:
        """What is left of a span from `place` on."""
        span = self.spans[place.part]
        return replace(span, start=max(place.entry, span.start))

    def leave(self, reason: str, detail: str) -> tuple[list[Result], Place | None]:
        """The stretch that cannot be read as failed records, and where reading resumes."""
        place: Place | None = self._at
        taken, raised = self._since, self._in_reader
        while place is not None:
            stretch, resume = self._stretch(place)
            content = self._measure(stretch)
            missing = Taken(num_bytes=taken.num_bytes, num_records=taken.num_records, content=content)
            if content is None or not missing.matches() or (raised and not taken.num_bytes and not taken.num_records):
                return self._lost(place.part, stretch, missing, reason, detail), resume
            place, taken = resume, Taken()  # all of it was read: the fault lies behind it
        return [], None

    def _stretch(self, place: Place) -> tuple[Span, Place | None]:
        """From a place to the next one, which may be the beginning of the next span; and that place."""
        span = self.spans[place.part]
        whole = replace(self._span(place), end=None)  # the last record may reach beyond the span
        if whole.start == span.start > 0:  # where a file was cut is no place; the first one behind it is
            first = self._next_entry(whole, span.start - 1)
            whole = replace(whole, start=span.start if first is None else first)
        entry = self._next_entry(whole, whole.start)
        if entry is not None and (span.end is None or entry < span.end):
            return replace(whole, end=entry), Place(place.part, entry)
        following = Place(place.part + 1, 0) if place.part + 1 < len(self.spans) else None
        return replace(whole, end=entry), following

    def _next_entry(self, span: Span, entry: int) -> int | None:
        try:
            return self.format.next_entry(span, entry)
        except OSError:
            return None

    def _measure(self, span: Span) -> Content | None:
        try:
            return self.format.content(span, self.settings.read)
        except (OSError, DataError):
            return None

    def _lost(self, part: int, stretch: Span, missing: Taken, reason: str, detail: str) -> list[Result]:
        """What is missing of a stretch as failed records: as many as the file tells, else one."""
        content = missing.content or NOTHING
        count = 1 if content.num_records is None else max(1, content.num_records - missing.num_records)
        sizes = [max(0, content.num_bytes - missing.num_bytes), *[0] * (count - 1)]
        origin = f"{stretch.name}#{stretch.start}"
        return [
            (part, self._fates(failed(f"{origin}+{missing.num_records + k}", reason, bytes_in=size, detail=detail)))
            for k, size in enumerate(sizes)
        ]

    # ── fates ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def process(self, item: Record) -> Result:
        """The fates of one record."""
        return self._at.part, item if isinstance(item, Skip) else self._fates(item)

    def _fates(self, record: RawDocument | Unread) -> tuple[Fate, ...]:
        if isinstance(record, Unread):
            return (reject(record, self.settings.source, record.kind, record.reason, detail=record.detail),)
        return curate(record, self.settings)

    def is_record(self, result: Result) -> bool:
        """Whether it is of a record."""
        return not isinstance(result[1], Skip)

    def failed(self, item: Record, reason: str, detail: str) -> Result:
        """The fate of a record that raised, hung, crashed or ran out of memory."""
        if isinstance(item, Skip):
            return self._at.part, item
        return self._at.part, (reject(item, self.settings.source, "failed", reason, detail=detail),)

    # ── commit ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self, results: Iterator[Result], *, again: bool) -> int:
        """Writes the files of the shard; returns how many documents are kept. again: without measuring the content."""
        source, shard = self.settings.source, self.shard
        ledger, counts, text_bytes = Ledger(), Counter[str](), 0
        taken = [Taken() for _ in self.spans]
        schema = document_schema(with_repository=self.settings.read.tells_repositories)
        with (
            ShardWriter(shard.documents_path, schema) as documents,
            ShardWriter(shard.rejected_path, REJECTED_SCHEMA) as rejected,
        ):
            for part, found in results:
                take(taken[part], found)
                if isinstance(found, Skip):
                    ledger.skip(source, found.num_bytes, reason=found.reason)
                    continue
                for fate in found:
                    count_fate(fate, ledger, source)
                    counts.update(fate.counts)
                    if fate.kind == "kept":
                        documents.write(fate.row)
                        text_bytes += len(fate.row["text"].encode("utf-8"))
                    else:
                        rejected.write(fate.row)
        for span, one in zip(self.spans, taken, strict=True):
            one.content = None if again else self._measure(span)
        if shard.inputs() != self.inputs:
            raise changed_while_read(source, shard)
        shared = self._account(taken, ledger)
        more = {"counts": dict(counts), "text_bytes": text_bytes, "inputs": self.inputs, "shared": shared}
        write_json(shard.record_path, {**ledger.to_json(), **more})
        return documents.num_rows

    def _account(self, taken: list[Taken], ledger: Ledger) -> dict[str, list[Any]]:
        """Enters what came in, for files that lie wholly in this shard; returns, by name, what it has of the others."""
        shared: dict[str, Taken] = {}
        for span, one in zip(self.spans, taken, strict=True):
            if not span.start and span.end is None:
                enter(ledger, self.settings.source, span.name, one)
            elif span.name in shared:
                shared[span.name].add(one)
            else:
                shared[span.name] = one
        return {name: one.to_json() for name, one in shared.items()}


def changed_while_read(source: str, shard: Shard) -> DataError:
    """The error for a shard whose files are no longer what they were."""
    names = ", ".join(span.name for span in shard.spans[:3])
    return DataError(
        f"a file of source {source!r} changed while it was read; it is among {names}{', …' if len(shard.spans) > 3 else ''}.\n"
        "  Run again once the files stop changing."
    )


def count_fate(fate: Fate, ledger: Ledger, source: str) -> None:
    """Counts one fate, and the rules that are off and would have dropped the document."""
    ledger.add(source, fate.kind, fate.bytes_in, reason=fate.reason)
    for reason in fate.would_drop:
        ledger.add(source, "would_drop", fate.bytes_in, reason=reason)


def _stamp(path: Path) -> list[int] | None:
    """Changes whenever the content does, also when an old time is set again; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
