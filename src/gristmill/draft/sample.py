"""A random sample of a folder's text, read as extract reads it, within a time; or all of it, where that fits.

    files ─→ pieces ─→ units: groups of small pieces in random order ─┐
                              the first part of a piece that is large ┴→ guarded children ─→ documents, one shard per unit

A piece is a file, or a span of one that can be entered in the middle. Units are read in random order until the time is over, so
what was read is a simple random sample of groups (random groups: Wolter, Introduction to Variance Estimation, chapter 2). Of a
piece much larger than a unit that cannot be entered in the middle, the same share is read from its beginning, or a little more: up to
the end of a record, and a PDF file is one. What counts is what was read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.data.executor import LocalThreads
from gristmill.data.guard import run_guarded
from gristmill.data.job import Place
from gristmill.data.ledger import Ledger
from gristmill.data.lists import Lists
from gristmill.data.outside import absolute, find_outside
from gristmill.data.record import Record, Skip
from gristmill.draft.ahead import Ahead
from gristmill.errors import DataError
from gristmill.extract.account import Taken
from gristmill.extract.curate import PASSAGES, Settings
from gristmill.extract.extract import settings_of_source
from gristmill.extract.own_packs import read_own_packs
from gristmill.extract.shard import CurateJob, Result, Shard
from gristmill.extract.shards import find_files
from gristmill.formats.format import LEAST_FILE_BYTES, Span, format_of
from gristmill.graph.machine import Machine
from gristmill.recipe.schema.curation import Source
from gristmill.store.durable import read_json, write_json
from gristmill.units import in_bytes

WHOLE_BYTES = 2_000_000  # a folder of so much is not cut into units
UNITS = 64  # that a folder is cut into, at least, where they are not smaller than MIN_UNIT_BYTES
MIN_UNIT_BYTES = 125_000  # of text; a unit costs a child process
MAX_UNIT_BYTES = 1_000_000
LARGE_UNITS = 4  # a piece of more units than this is read in part
FIRST_UNITS = 4  # of each source that are read, however long it takes: fewer tell too little of the others
BATCH_SHARE = 0.25  # of the time that is left, for the next batch
READ_SHARE = 0.6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is read: for about so long, and at most about so many bytes on disk."""

    seconds: float = 60.0
    max_bytes: int | None = None

    @property
    def reading_seconds(self) -> float:
        """Of the time; the rest is for copies and tokens."""
        return READ_SHARE * self.seconds


@dataclass(kw_only=True)
class Unit:
    """Pieces that are sampled together. read_bytes: of its bytes on disk, read; num_records: that came out of them.

    part: how much of its content is read, None for all. seconds: that it took.
    """

    source: str
    number: int
    spans: tuple[Span, ...]
    part: float | None = None
    read_bytes: float = 0.0
    seconds: float = 0.0

    @property
    def size(self) -> int:
        """Bytes on disk, as shards count them."""
        return sum(max(span.size, LEAST_FILE_BYTES) for span in self.spans)


@dataclass(kw_only=True)
class SourceSample:
    """What was read of one source: its documents, one shard per unit, and what became of its records. passages: of its documents,
    parts of a longer one. seconds: of all its units, one after the other."""

    name: str
    folder: Path
    units: list[Unit]
    large: list[Unit]
    ledger: Ledger = field(default_factory=Ledger)
    text_bytes: int = 0
    passages: int = 0
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left."""
        return all(unit.read_bytes >= unit.size for unit in (*self.units, *self.large))

    @property
    def share(self) -> float:
        """Of the bytes on disk, read."""
        units = (*self.units, *self.large)
        return sum(unit.read_bytes for unit in units) / max(1, sum(unit.size for unit in units))

    def weight_of(self, shard: Path) -> float:
        """How much text a byte in a shard of documents stands for: units are drawn by chance, of each large piece its own share is
        read."""
        number = int(shard.stem.rpartition("-")[2])
        alike = self.units if number < len(self.units) else [self.large[number - len(self.units)]]
        return sum(unit.size for unit in alike) / max(1.0, sum(unit.read_bytes for unit in alike))


def read_sample(
    sources: Mapping[str, Source],
    *,
    recipe_dir: Path,
    out: Path,
    machine: Machine,
    limits: Limits,
    seed: int,
    ahead: Ahead,
) -> dict[str, SourceSample]:
    """Reads the sources, in part where the limits ask for it, and leaves in OUT/NAME what extract would."""
    rng = np.random.default_rng(seed)
    pieces = {name: _pieces(name, source, recipe_dir) for name, source in sources.items()}
    total = sum(max(span.size, LEAST_FILE_BYTES) for spans in pieces.values() for span in spans)
    unit_bytes = _unit_bytes(total, limits)
    samples = {name: _sample(name, out / name, spans, unit_bytes, rng) for name, spans in pieces.items()}
    reading = _Reading(sources, samples, machine, limits, total, ahead, partial(absolute, recipe_dir))
    first = [unit for sample in samples.values() for unit in sample.units[:1]]
    reading.read(first)
    if not first:
        reading.try_out([unit for sample in samples.values() for unit in sample.large][:1])
    share = min(1.0, reading.bytes_left() / max(1, total - reading.done))
    for sample in samples.values():
        for unit in sample.large:
            unit.part = None if share == 1 else max(share, min(1.0, MIN_UNIT_BYTES / unit.size))
        reading.read([unit for unit in sample.large if not unit.read_bytes])
    reading.read([unit for sample in samples.values() for unit in sample.units[1:FIRST_UNITS]])
    late = [unit for sample in samples.values() for unit in sample.units[FIRST_UNITS:]]
    reading.read_what_fits([late[place] for place in rng.permutation(len(late))])
    for sample in samples.values():
        sample.ledger.check()
        counts = {"text_bytes": sample.text_bytes, "shards": len(sample.units) + len(sample.large), "details": {}}
        write_json(sample.folder / "ledger.json", {**sample.ledger.to_json(), "counts": counts})
    return samples


def _unit_bytes(total: int, limits: Limits) -> int:
    if limits.max_bytes is not None and limits.max_bytes < total:
        return min(max(total, 1) // UNITS, MAX_UNIT_BYTES)
    return total if total <= WHOLE_BYTES else min(max(total // UNITS, MIN_UNIT_BYTES), MAX_UNIT_BYTES)


def _pieces(name: str, source: Source, recipe_dir: Path) -> list[Span]:
    format = format_of(source.read)
    files = find_files(find_outside(recipe_dir, source.read.paths, where=f"sources.{name}"), source.read)
    return [
        span for path, file_name in files.items() for span in format.spans(path, name=file_name, limit=MAX_UNIT_BYTES)
    ]


def _sample(name: str, folder: Path, pieces: Sequence[Span], unit_bytes: int, rng: np.random.Generator) -> SourceSample:
    """Units of about so many bytes, in random order."""
    folder.mkdir(parents=True)
    large = [span for span in pieces if span.size > LARGE_UNITS * unit_bytes]
    small = [span for span in pieces if span.size <= LARGE_UNITS * unit_bytes]
    groups: list[list[Span]] = []
    size = unit_bytes
    for place in rng.permutation(len(small)):
        if size >= unit_bytes:
            groups.append([])
            size = 0
        groups[-1].append(small[place])
        size += max(small[place].size, LEAST_FILE_BYTES)
    units = [Unit(source=name, number=number, spans=tuple(group)) for number, group in enumerate(groups)]
    alone = [Unit(source=name, number=len(units) + number, spans=(span,)) for number, span in enumerate(large)]
    return SourceSample(name=name, folder=folder, units=units, large=alone)


class _Reading:
    """Reads units and keeps the time."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        samples: Mapping[str, SourceSample],
        machine: Machine,
        limits: Limits,
        total: int,
        ahead: Ahead,
        find: Callable[[str], Path],
    ) -> None:
        self.settings = {
            name: settings_of_source(
                name,
                source,
                max_failed=1.0,
                own_packs=read_own_packs(source.rules, find),
                urls=None
                if source.urls is None
                else Lists.of({kind: map(find, paths) for kind, paths in source.urls.lists.items()}),
            )
            for name, source in sources.items()
        }
        self.samples, self.machine, self.limits, self.total, self.ahead = samples, machine, limits, total, ahead
        self.started = time.monotonic()
        self.done = self.tried = 0.0
        self._is_over = threading.Event()
        self._places = threading.Semaphore(max(1, machine.processes))  # one for each unit that is being read
        self._tell()

    def bytes_left(self) -> float:
        """How much more can be read within the limits, at the speed so far."""
        spent = time.monotonic() - self.started
        speed = max(self.tried, self.done) / max(spent, 1e-3)
        by_time = speed * max(0.0, self.limits.reading_seconds - spent)
        by_bytes = self.total if self.limits.max_bytes is None else max(0.0, self.limits.max_bytes - self.done)
        return min(by_time, by_bytes)

    def read_what_fits(self, units: Sequence[Unit]) -> None:
        """Units in their order, batch after batch, until the limits are reached."""
        place = 0
        while place < len(units):
            left = self.bytes_left()
            size, end = 0, place
            aim = left if left >= sum(unit.size for unit in units[place:]) else BATCH_SHARE * left
            while end < len(units) and size + units[end].size <= left and (size < aim or end == place):
                size += units[end].size
                end += 1
            if end == place:
                return
            self.read(units[place:end])
            place = end

    def read(self, units: Sequence[Unit]) -> None:
        """All of the units."""
        try:
            self._read_all(units)
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        """Ends what is being read: it writes into a folder that is about to be removed."""
        self._is_over.set()
        for _ in range(max(1, self.machine.processes)):
            self._places.acquire()

    def _read_all(self, units: Sequence[Unit]) -> None:
        executor = LocalThreads(threads=self.machine.processes, should_stop=self._is_over.is_set)
        for unit, outcome in executor.map(self._read_unit, units):
            if isinstance(outcome, Exception):
                raise outcome
            self._enter(unit)
            self.done += unit.read_bytes
            self._tell()

    def _tell(self) -> None:
        of_all = max(1, self.total)
        self.ahead.reads(
            f"reading, {in_bytes(self.done)} of {in_bytes(self.total)}",
            share=self.done / of_all,
            most_share=1.0 if self.limits.max_bytes is None else min(1.0, self.limits.max_bytes / of_all),
            text_bytes=sum(sample.text_bytes for sample in self.samples.values()),
        )

    def try_out(self, units: Sequence[Unit]) -> None:
        """Reads the first part of large pieces for the time that it takes."""
        for unit in units:
            unit.part = min(1.0, MAX_UNIT_BYTES / unit.size)
            self._read_unit(unit)
            self.tried, unit.read_bytes = unit.read_bytes, 0.0

    def _read_unit(self, unit: Unit) -> None:
        with self._places:
            started = time.monotonic()
            self._read_in_place(unit)
            unit.seconds = time.monotonic() - started

    def _read_in_place(self, unit: Unit) -> None:
        settings, sample = self.settings[unit.source], self.samples[unit.source]
        shard = Shard(number=unit.number, spans=unit.spans, out=sample.folder)
        job, content = CurateJob(settings, shard), 0
        if unit.part is not None and (content := _content_bytes(unit, settings)):
            job = CurateFirstPart(settings, shard, max_bytes=int(unit.part * content))
        run_guarded(
            job,
            spool=shard.new_spool(),
            deadline_seconds=settings.deadline_seconds,
            max_memory_mb=settings.max_memory_mb,
            should_stop=self._is_over.is_set,
        )
        taken = _came_in(read_json(shard.record_path), unit.source).source(unit.source).came_in.num_bytes
        unit.read_bytes = unit.size * min(1.0, taken / content) if content else float(unit.size)

    def _enter(self, unit: Unit) -> None:
        """Adds what became of a unit's records to the account of its source."""
        sample = self.samples[unit.source]
        record_path = Shard(number=unit.number, spans=unit.spans, out=sample.folder).record_path
        record = read_json(record_path)
        sample.ledger.merge(_came_in(record, unit.source))
        sample.text_bytes += record["text_bytes"]
        sample.seconds += unit.seconds
        sample.passages += record["counts"].get(PASSAGES, 0)
        record_path.unlink()


def _content_bytes(unit: Unit, settings: Settings) -> int:
    """What a large piece holds; 0 where it cannot be told."""
    (span,) = unit.spans
    try:
        return format_of(settings.read).content(span, settings.read).num_bytes
    except (OSError, DataError):
        return 0


def _came_in(record: Mapping[str, Any], source: str) -> Ledger:
    """The account of a shard, what it has of files that lie in several shards included."""
    ledger = Ledger.from_json(record)
    for value in record["shared"].values():
        taken = Taken.from_json(value)
        ledger.saw(source, taken.num_bytes, documents=taken.num_documents)
    return ledger


class CurateFirstPart(CurateJob):
    """The job of one large file, which ends after so many bytes of content."""

    def __init__(self, settings: Settings, shard: Shard, *, max_bytes: int) -> None:
        super().__init__(settings, shard)
        self.max_bytes = max_bytes

    def items(self, place: Place, *, alone: bool) -> Iterator[tuple[Record, Place | None]]:
        """The records from `place` on that begin in the first `max_bytes`."""
        taken = 0
        for record, begins in super().items(place, alone=alone):
            yield record, begins
            taken += record.num_bytes if isinstance(record, Skip) else record.bytes_in
            if taken >= self.max_bytes:
                return

    def finish(self, results: Iterator[Result], *, again: bool) -> int:
        """As that of the whole file, which is not held against its content."""
        return super().finish(results, again=True)
