"""What happened in a training besides its steps, as lines of events.jsonl: the names that others read, and words for people.

    spike           a step far above those before it (stability.py), and whether it was applied
    not_finite      a step whose loss or gradient norm is no number; it is never applied
    mixture         how the loss of each source went after a change of mixture
    passed_over     data that was left out before a step, as a change of the recipe or an intervention asked
    above_guessing  the step from which on a pack whose answers are letters is answered better than by guessing
    cut_smaller     a device ran out of memory in a step, which was taken again with smaller micro-batches

A step is counted from 1, as everywhere on a screen. `text` is a file of the run's folder with the documents of the step's batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from gristmill.errors import ArtifactError
from gristmill.store.jsonl import read_log
from gristmill.train.stability import LOSS_OF, Settling, Spike, Usual
from gristmill.units import counted
from gristmill.written import Written

EVENTS = "events.jsonl"
QUANTITIES = {"loss": "loss", "grad_norm": "gradient norm"}


@dataclass(frozen=True, kw_only=True)
class Judged(Written):
    """A quantity in a step, and its mean and standard deviation in the steps before, where there were enough of them."""

    value: float
    mean: float | None = None
    deviation: float | None = None

    @property
    def sigmas(self) -> float | None:
        """By how many standard deviations it lies above the mean."""
        if self.mean is None or self.deviation is None:
            return None
        return Usual(mean=self.mean, deviation=self.deviation).sigmas(self.value)

    def __str__(self) -> str:
        if self.sigmas is None or self.mean is None:
            return f"{self.value:.4g}"
        if math.isinf(self.sigmas):
            return f"{self.value:.4g}, before always {self.mean:.4g}"
        return f"{self.value:.4g}, {self.sigmas:.1f} standard deviations above {self.mean:.4g}"


@dataclass(frozen=True, kw_only=True)
class Event(Written):
    """origin: the run that wrote the line, where it was inherited from a training of another recipe."""

    origin: str | None = None
    step: int
    tokens: int

    @property
    def outcome(self) -> str:
        """What became of the update of the step; "" where the event is not about one."""
        return ""


@dataclass(frozen=True, kw_only=True)
class SpikeEvent(Event):
    """exceeding: the quantities that were too large. quantities: they, and the loss of each source."""

    kind: Literal["spike"] = "spike"
    exceeding: tuple[str, ...]
    quantities: Mapping[str, Judged]
    applied: bool
    text: str | None

    @classmethod
    def of(cls, spike: Spike, *, step: int, tokens: int, applied: bool, text: str | None) -> SpikeEvent:
        """The line of a spike."""
        judged = {
            name: Judged(value=value, **({} if (usual := spike.usual.get(name)) is None else vars(usual)))
            for name, value in spike.values.items()
        }
        return cls(step=step, tokens=tokens, exceeding=spike.exceeding, quantities=judged, applied=applied, text=text)

    def __str__(self) -> str:
        found = "; ".join(f"{QUANTITIES[name]} {self.quantities[name]}" for name in self.exceeding)
        by_source = {
            name.removeprefix(LOSS_OF): one.sigmas
            for name, one in self.quantities.items()
            if name.startswith(LOSS_OF) and one.sigmas is not None
        }
        worst = max(by_source, key=lambda name: by_source[name] or 0.0, default=None)
        where = f"; furthest above its own: {worst}" if worst is not None and len(by_source) > 1 else ""
        return f"Spike at step {self.step:,}: {found}{where}"

    @property
    def outcome(self) -> str:
        """What became of the update."""
        return "applied" if self.applied else "update skipped"


@dataclass(frozen=True, kw_only=True)
class NotFiniteEvent(Event):
    """Values that are no numbers are None."""

    applied: ClassVar[bool] = False
    kind: Literal["not_finite"] = "not_finite"
    loss: float | None
    grad_norm: float | None
    text: str | None

    @classmethod
    def of(cls, loss: float, grad_norm: float, *, step: int, tokens: int, text: str | None) -> NotFiniteEvent:
        """The line of a step that has no finite loss or gradient norm."""
        values = (value if math.isfinite(value) else None for value in (loss, grad_norm))
        return cls(step=step, tokens=tokens, loss=next(values), grad_norm=next(values), text=text)

    def __str__(self) -> str:
        found = ", ".join(
            f"{words} {'not finite' if value is None else f'{value:.4g}'}"
            for words, value in (("loss", self.loss), ("gradient norm", self.grad_norm))
        )
        return f"Not finite at step {self.step:,}: {found}"

    @property
    def outcome(self) -> str:
        """What became of the update."""
        return "update skipped"


@dataclass(frozen=True, kw_only=True)
class SourceAfterChange(Written):
    """mean, deviation: of its loss before the change. peak: the largest loss until it was back at `mean`, and in which step; None where it
    was not drawn. steps: how many that took; None where it did not come back while it was followed."""

    mean: float
    deviation: float
    peak: float | None
    peak_step: int | None
    steps: int | None

    @property
    def depth(self) -> float:
        """By how much the loss rose above its mean, in nats per token."""
        return 0.0 if self.peak is None else max(0.0, self.peak - self.mean)

    def __str__(self) -> str:
        if self.peak is None:
            return "was not drawn"
        if not self.depth:
            return "did not rise"
        back = "is not back" if self.steps is None else f"is back after {counted(self.steps, 'step')}"
        return f"rose by {self.depth:.3g} nats and {back}"


@dataclass(frozen=True, kw_only=True)
class MixtureEvent(Event):
    """since: the steps done when the mixture changed. step: the last one that was followed."""

    kind: Literal["mixture"] = "mixture"
    since: int
    sources: Mapping[str, SourceAfterChange]

    @classmethod
    def of(cls, settling: Settling, *, step: int, tokens: int) -> MixtureEvent:
        """The line of an account that ended."""
        sources = {
            name: SourceAfterChange(**{**vars(rise), "peak": None if rise.peak_step is None else rise.peak})
            for name, rise in settling.sources.items()
        }
        return cls(step=step, tokens=tokens, since=settling.since, sources=sources)

    def __str__(self) -> str:
        rises = ", of ".join(f"{name} {found}" for name, found in self.sources.items())
        return f"Another mixture or length from step {self.since + 1:,} on; the loss of {rises}"


@dataclass(frozen=True, kw_only=True)
class PassedOverEvent(Event):
    """sequences: that were left out before the step."""

    kind: Literal["passed_over"] = "passed_over"
    sequences: int

    def __str__(self) -> str:
        return f"{counted(self.sequences, 'sequence')} passed over before step {self.step:,}"


@dataclass(frozen=True, kw_only=True)
class AboveGuessingEvent(Event):
    """step: the first of several measurements in a row whose interval lies above the score of guessing."""

    kind: Literal["above_guessing"] = "above_guessing"
    pack: str
    guessing: float
    value: float
    low: float

    def __str__(self) -> str:
        return (
            f"{self.pack} is answered better than by guessing from step {self.step:,} on: {self.value:.3f}, at least {self.low:.3f}, "
            f"against {self.guessing:.3f}"
        )


@dataclass(frozen=True, kw_only=True)
class CutSmallerEvent(Event):
    """micro_batch_tokens: what micro-batches are cut to from the step on. before: until then."""

    kind: Literal["cut_smaller"] = "cut_smaller"
    micro_batch_tokens: int
    before: int

    def __str__(self) -> str:
        return (
            f"Out of memory at step {self.step:,} with micro-batches of {self.before:,} tokens; from this step on they have "
            f"{self.micro_batch_tokens:,}"
        )


AnyEvent = SpikeEvent | NotFiniteEvent | MixtureEvent | PassedOverEvent | AboveGuessingEvent | CutSmallerEvent
KINDS: Mapping[str, type[AnyEvent]] = {
    "spike": SpikeEvent,
    "not_finite": NotFiniteEvent,
    "mixture": MixtureEvent,
    "passed_over": PassedOverEvent,
    "above_guessing": AboveGuessingEvent,
    "cut_smaller": CutSmallerEvent,
}


def line_of(event: AnyEvent) -> dict[str, Any]:
    """An event as a line of events.jsonl."""
    return {"step": event.step, "tokens": event.tokens, "kind": event.kind, **event.to_json()}


def read_events(path: Path) -> list[AnyEvent]:
    """The lines of events.jsonl in order; none where there is no such file. Raises ArtifactError for a line of an unknown kind."""
    found: list[AnyEvent] = []
    for line in read_log(path):
        if line["kind"] not in KINDS:
            raise ArtifactError(
                f"{path}: an event of kind {line['kind']!r}; expected {', '.join(KINDS)}. It was written by another version of gristmill."
            )
        found.append(KINDS[line["kind"]].from_json(line, where=path))
    return found
