"""How far a run is: what a step says of itself, and how fast it gets on.

    step ── Position ─→ Tracker ── Moment ─→ a live block or plain lines (display.py), and the heartbeat (store/heartbeat.py)

A step reports as often as it likes; who shows it, and how often, is decided elsewhere and once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gristmill.units import in_bytes, scale, seconds
from gristmill.written import Written

PACE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Position(Written):
    """How far a step is.

    done of total: in units that take about the same time each, such as "step" or "byte"; total is None where nobody knows it. No
    unit: nothing is counted yet, see `doing`.
    part: what the step is at, such as "stage decay". counts: what has been handled so far, shown as a rate, such as
    {"documents": 1200}. figures: what else is worth knowing, each in words.
    """

    done: int
    total: int | None
    unit: str
    part: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    figures: tuple[str, ...] = ()

    @classmethod
    def doing(cls, what: str) -> Position:
        """Before there is anything to count, such as "loading the checkpoint"."""
        return cls(done=0, total=None, unit="", part=what)


Report = Callable[[Position], None]


def unreported(_position: Position) -> None:
    """For a step that runs by itself, with nobody to tell."""


@dataclass(frozen=True, kw_only=True)
class Moment(Written):
    """A run under way as it is shown.

    spent_seconds: on this step, in this attempt. left_seconds: of this step. later_seconds: of the steps after it, by the
    forecast. is_stopping: a person or the system asked it to end.
    """

    step: str
    spent_seconds: float
    position: Position | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    left_seconds: float | None = None
    later_seconds: float = 0.0
    is_stopping: bool = False

    @property
    def share(self) -> float | None:
        """Of the step that is done."""
        at = self.position
        return None if at is None or not at.total else min(1.0, at.done / at.total)

    @property
    def where(self) -> str:
        """ "stage decay, step 450 of 933"; empty for a step that reports nothing."""
        at = self.position
        if at is None or not at.unit:
            return "" if at is None else at.part
        unit, amount = ("", in_bytes) if at.unit == "byte" else (f"{at.unit} ", "{:,}".format)
        of = "" if at.total is None else f" of {amount(at.total)}"
        return ", ".join(filter(None, (at.part, f"{unit}{amount(at.done)}{of}")))

    @property
    def figures(self) -> tuple[str, ...]:
        """What the step says beside where it is, rates first."""
        rates = tuple(f"{scale(rate)} {what}/s" for what, rate in self.rates.items())
        return rates + (() if self.position is None else self.position.figures)

    @property
    def time(self) -> tuple[str, ...]:
        """What is spent and what is left, of the step and of the run."""
        if self.is_stopping:
            return ("stopping as soon as the state is saved; Ctrl-C again ends at once",)
        if self.left_seconds is None:
            return (f"{seconds(self.spent_seconds)} so far",)
        run = (f"run about {seconds(self.left_seconds + self.later_seconds)}",) if self.later_seconds else ()
        return (f"{seconds(self.left_seconds)} left", *run)

    def after(self, seconds: float) -> Moment:
        """The same, so many seconds later, when nothing more was reported; what takes longer than it said ends at no known time."""
        left = None if self.left_seconds is None or self.left_seconds <= seconds else self.left_seconds - seconds
        return replace(self, spent_seconds=self.spent_seconds + seconds, left_seconds=left)

    def __str__(self) -> str:
        share = "" if self.share is None else f" ({self.share:.0%})"
        at = f"{self.where}{share}" if self.where else ""
        return f"{self.step}: {', '.join(filter(None, (at, *self.figures, *self.time)))}"


class Pace:
    """Amounts a second over the last half to whole minute, by any clock. It needs no list of what it saw."""

    def __init__(self) -> None:
        self._from: tuple[float, Mapping[str, int]] | None = None
        self._next = self._last = (0.0, dict[str, int]())

    def add(self, now: float, amounts: Mapping[str, int]) -> None:
        """What has been done by now."""
        self._last = (now, dict(amounts))
        if self._from is None:
            self._from = self._next = self._last
        elif now - self._next[0] >= PACE_SECONDS:
            self._from, self._next = self._next, self._last

    def rate(self, name: str) -> float | None:
        """A second; None before two looks at it."""
        if self._from is None or self._last[0] <= self._from[0]:
            return None
        done = self._last[1].get(name, 0) - self._from[1].get(name, 0)
        return done / (self._last[0] - self._from[0])

    def left_seconds(self, now: float, name: str, total: int) -> float | None:
        """Until there are `total`; None where nothing gets on, or not as fast as it did."""
        rate = self.rate(name)
        if not rate:
            return None
        left = (total - self._last[1][name]) / rate - (now - self._last[0])
        return left if left > 0 or self._last[1][name] >= total else None


class Tracker:
    """One step under way: keeps its last position and its pace. `moment(now)` may be asked from another thread.

    expected_seconds: of the step, by the forecast, which counts as long as its pace is not known.
    """

    def __init__(self, step: str, *, expected_seconds: float, later_seconds: float, now: float) -> None:
        self._step, self._expected, self._later = step, expected_seconds, later_seconds
        self._started = now
        self._pace = Pace()
        self._position: Position | None = None

    def add(self, position: Position, now: float) -> None:
        """Takes a report."""
        if position.unit:
            self._pace.add(now, {**position.counts, position.unit: position.done})
        self._position = position

    def moment(self, now: float) -> Moment:
        """The step as it is now."""
        at = self._position
        spent = now - self._started
        rates: dict[str, float] = {}
        left = None
        if at is not None:
            rates = {name: rate for name in at.counts if (rate := self._pace.rate(name)) is not None}
            left = None if at.total is None else self._pace.left_seconds(now, at.unit, at.total)
        if left is None and self._expected > spent:
            left = self._expected - spent
        return Moment(
            step=self._step,
            spent_seconds=spent,
            position=at,
            rates=rates,
            left_seconds=left,
            later_seconds=self._later,
        )
