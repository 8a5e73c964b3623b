"""record.json, typed: how an artefact came to be. The runner writes it, steps that report read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.written import Written


@dataclass(frozen=True, kw_only=True)
class TrainingForecast(Written):
    """What the forecast said of pretraining on the machine that then did it."""

    parameters: int
    pretraining_seconds: float
    memory_bytes: float
    speed_source: str


@dataclass(frozen=True, kw_only=True)
class Held(Written):
    """A checkpoint that an artefact holds in the store."""

    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class Peak(Written):
    """Peak bytes of memory of the process and of its largest child. how: by which measure."""

    process: int
    largest_child: int
    how: str


@dataclass(frozen=True, kw_only=True)
class Provenance(Written):
    """What the runner knows of an artefact. document: what the identity covers; resolved, watching: config with every value;
    made_from: step → identity of what it read; counts: what `run` returned; lineage: the checkpoints that the artefact holds in the store."""

    document: Mapping[str, Any]
    resolved: Mapping[str, Any]
    watching: Mapping[str, Any]
    made_from: Mapping[str, str | None]
    counts: Mapping[str, Any]
    forecast: TrainingForecast | None = None
    lineage: tuple[Held, ...] | None = None
    made_at: str
    wall_seconds: float
    peak_memory_bytes: Peak
    command: tuple[str, ...]
    machine: Mapping[str, str | int]
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Record(Provenance):
    """The same as it lies in the artefact: with the stamp of the store."""

    record_version: int
    step: str
    identity: str

    @property
    def version(self) -> int:
        """The version of the step's own code."""
        versions: Mapping[str, int] = self.document["version"]
        return next(iter(versions.values()))
