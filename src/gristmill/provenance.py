"""The record of a step that was made here: what it was made from, by which command, machine and versions, in how much time and memory."""

from __future__ import annotations

import platform
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gristmill.graph.cores import CoreWatch
from gristmill.graph.machine import Machine
from gristmill.graph.outputs import content_files, hashes_in
from gristmill.graph.peak_memory import PeakMemory
from gristmill.graph.record import Held, Peak, Planned, Provenance, TrainingForecast, versions
from gristmill.graph.state import StepState, resolved
from gristmill.graph.step import Step
from gristmill.planning.speed import hardware_name
from gristmill.store.durable import read_json, write_json

SAVE_SECONDS = 5.0
NAMED_FILES = 10  # of those that differ


def provenance_of(
    state: StepState,
    *,
    made_from: Mapping[str, str | None],
    counts: Mapping[str, Any],
    clock: WorkClock,
    peak: PeakMemory,
    planned: Planned,
    forecast: TrainingForecast | None,
    machine: Machine,
) -> dict[str, Any]:
    """The record of a step that has just returned `counts`. made_from: input step → identity."""
    step = state.step
    checkpoints = counts.get("checkpoints")
    made = Provenance(
        document=dict(state.document or {}),
        resolved=resolved(step.given.config),
        watching=resolved(step.watching.config),
        made_from=dict(made_from),
        counts=dict(counts),
        forecast=forecast,
        planned=planned,
        lineage=None if checkpoints is None else tuple(Held(checkpoint=name) for name in checkpoints),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=round(clock.total(), 3),
        busy_cores=clock.busy_cores(),
        peak_memory_bytes=Peak(process=peak.process, largest_child=peak.largest_child, how=peak.how),
        command=tuple(sys.argv),
        machine={
            "processes": machine.processes,
            "threads": machine.threads,
            "device": machine.device,
            "micro_batch_tokens": machine.micro_batch_tokens,
            **({} if machine.ray is None or not step.maps_shards else {"ray": machine.ray}),
            **({} if machine.ranks == 1 else {"ranks": machine.ranks, "replicas": machine.replicas}),
            "hardware": hardware_name(),
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        versions=versions(),
    )
    return made.to_json()


def other_bytes_in_words(step: Step, known: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """In which files a remake differs from what it was by the record `known`, and why that may be; "" where it is the same."""
    was, now = (content_files(step.outputs, hashes_in(found)) for found in (known, record))
    differ = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    if not differ:
        return ""
    versions = [
        f"{name} {known['versions'].get(name)} → {found}"
        for name, found in record["versions"].items()
        if known["versions"].get(name) != found
    ]
    why = ", ".join(versions) or "time limits of documents, threads, or the processor can be the reason"
    names = ", ".join(differ[:NAMED_FILES]) + (", …" if len(differ) > NAMED_FILES else "")
    return f"{step.name} differs from what it was in {len(differ)} of {len(now)} files ({names}): {why}"


class WorkClock:
    """Seconds of work on a step over all its attempts, and how busy other processes kept the cores meanwhile: kept in a note, which
    is that beside the working folder, or a rank's own."""

    def __init__(self, note: Path) -> None:
        self._note = note
        self._noted: dict[str, Any] = dict(read_json(note)) if note.is_file() else {}
        self.is_new = "seconds" not in self._noted
        self._before = float(self._noted.get("seconds", 0.0))
        self._watched, self._busy = self._noted.get("watched_seconds", 0.0), self._noted.get("busy_core_seconds", 0.0)
        self._cores = CoreWatch()
        self._started = self._saved = self._looked = time.monotonic()
        self._lock = threading.Lock()  # a step may report from several threads

    def total(self) -> float:
        """Seconds up to now."""
        return self._before + time.monotonic() - self._started

    def busy_cores(self) -> float | None:
        """Cores that other processes kept busy on average; None for work that was too short to tell."""
        self._look()
        return round(self._busy / self._watched, 2) if self._watched else None

    def note(self) -> None:
        """Saves the clock if that was not done in the last seconds."""
        with self._lock:
            if time.monotonic() - self._saved > SAVE_SECONDS:
                self.save()

    def save(self, **more: Any) -> None:
        """Writes the totals into the note, and what else is to be noted."""
        self._look()
        totals = {"seconds": self.total(), "watched_seconds": self._watched, "busy_core_seconds": self._busy}
        write_json(self._note, {**self._noted, **totals, **more})
        self._saved = time.monotonic()

    def _look(self) -> None:
        if (busy := self._cores.busy_cores()) is not None:
            since, self._looked = self._looked, time.monotonic()
            self._watched += self._looked - since
            self._busy += busy * (self._looked - since)
