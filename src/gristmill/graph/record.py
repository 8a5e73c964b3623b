"""record.json, typed: how an artefact came to be. The runner writes it, steps that report read it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from pydantic import ValidationError

from gristmill.errors import ArtifactError
from gristmill.recipe.schema.section import Section
from gristmill.written import Written

SectionT = TypeVar("SectionT", bound=Section)

RECORDED_PACKAGES = ("gristmill", "torch", "numpy", "pyarrow", "tokenizers", "trafilatura", "rensa", "lm_eval")


def versions() -> dict[str, str]:
    """The installed ones of the packages whose versions a record keeps."""
    found: dict[str, str] = {}
    for package in RECORDED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@dataclass(frozen=True, kw_only=True)
class TrainingForecast(Written):
    """What the forecast said of pretraining on the machine that then did it."""

    parameters: int
    pretraining_seconds: float
    memory_bytes: float
    speed_source: str


@dataclass(frozen=True, kw_only=True)
class Planned(Written):
    """What the forecast said of a step before it ran. work: what it works through; num_records: of like steps that it knew."""

    work: Mapping[str, Any]
    seconds: float
    num_records: int


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
    made_from: step → identity of what it read; counts: what `run` returned; lineage: the checkpoints that the artefact holds in the store;
    busy_cores: those that other processes used meanwhile, on average; None where that is not known."""

    document: Mapping[str, Any]
    resolved: Mapping[str, Any]
    watching: Mapping[str, Any]
    made_from: Mapping[str, str | None]
    counts: Mapping[str, Any]
    forecast: TrainingForecast | None = None
    planned: Planned | None = None
    lineage: tuple[Held, ...] | None = None
    made_at: str
    wall_seconds: float
    busy_cores: float | None = None
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

    def at(self, *keys: str | int) -> Any:
        """The value at these keys of `resolved`, for the outputs of the step whose config it is."""
        found: Any = self.resolved
        try:
            for key in keys:
                found = found[key]
        except (LookupError, TypeError) as error:
            raise self._misfit(keys, "is missing") from error
        return found

    def section(self, kind: type[SectionT], *keys: str | int, **outside: Any) -> SectionT:
        """The same as a section of the recipe. outside: its fields that no record holds.

        Raises ArtifactError where the record does not fit the schema.
        """
        try:
            return kind.model_validate({**self.at(*keys), **outside})
        except (TypeError, ValidationError) as error:
            raise self._misfit(keys, str(error)) from error

    def _misfit(self, keys: tuple[str | int, ...], what: str) -> ArtifactError:
        return ArtifactError(
            f"the record of {self.step}: {'.'.join(map(str, keys))}: {what}. Remake the step that left it."
        )
