"""Progress of a run: what a step reports, and at which rate it advances.

    step ── Position ─→ Tracker ── Moment ─→ a live block or plain lines (display.py), and the heartbeat (store/heartbeat.py)

A step reports as often as it likes. How often that is shown, and where, is decided in one other place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gristmill.units import in_bytes, scale, seconds
from gristmill.written import Written

PACE_SECONDS = 30.0
WORK = ""  # beside the names of counts


@dataclass(frozen=True, kw_only=True)
class Position(Written):
    """How far a step is.

    done of total: in units that take about the same time each, such as "step" or "byte"; total is None if not known. No unit:
    nothing is counted yet, see `doing`.
    part: the current part, such as "stage decay". counts: what has been processed so far, shown as a rate, such as
    {"documents": 1200}. figures: other figures to show, as text. work: how much is done, and how much there is, by what the units take
    on idle cores, where that differs from unit to unit.
    """

    done: int
    total: int | None
    unit: str
    part: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    work: tuple[float, float] | None = None

    @classmethod
    def doing(cls, what: str) -> Position:
        """Before there is anything to count, such as "loading the checkpoint"."""
        return cls(done=0, total=None, unit="", part=what)


Report = Callable[[Position], None]


def unreported(_position: Position) -> None:
    """For a step that runs without a display."""


@dataclass(frozen=True, kw_only=True)
class Moment(Written):
    """The state of a running step as it is shown.

    spent_seconds: on this step, in this attempt. left_seconds: estimate for this step. later_seconds: forecast for the steps
    after it. is_stopping: a signal asked it to stop.
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
        """The share of the step that is done; None if the total is not known."""
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
        """What the step reports besides its position, rates first."""
        rates = tuple(f"{scale(rate)} {what}/s" for what, rate in self.rates.items())
        return rates + (() if self.position is None else self.position.figures)

    @property
    def time(self) -> tuple[str, ...]:
        """The time spent, or the time left for the step and for the run."""
        if self.is_stopping:
            return ("stopping as soon as the state is saved; press Ctrl-C again to stop at once",)
        if self.left_seconds is None:
            return (f"{seconds(self.spent_seconds)} so far",)
        run = (f"run: about {seconds(self.left_seconds + self.later_seconds)} left",) if self.later_seconds else ()
        return (f"{seconds(self.left_seconds)} left", *run)

    def after(self, seconds: float) -> Moment:
        """The state so many seconds later without a new report. Past the estimated end, no time left is given."""
        left = None if self.left_seconds is None or self.left_seconds <= seconds else self.left_seconds - seconds
        return replace(self, spent_seconds=self.spent_seconds + seconds, left_seconds=left)

    @property
    def place(self) -> str:
        """ "pretrain: stage decay, step 450 of 933 (48%)", without figures and times."""
        share = "" if self.share is None else f" ({self.share:.0%})"
        return f"{self.step}: {self.where}{share}" if self.where else self.step

    def __str__(self) -> str:
        rest = ", ".join((*self.figures, *self.time))
        return f"{self.place}{', ' if self.where else ': '}{rest}" if rest else self.place


class Pace:
    """Amounts per second over the last 30 to 60 seconds, by any clock, without a list of past reports."""

    def __init__(self) -> None:
        self._from: tuple[float, Mapping[str, float]] | None = None
        self._next = self._last = (0.0, dict[str, float]())

    def add(self, now: float, amounts: Mapping[str, float]) -> None:
        """Takes the amounts done by now."""
        self._last = (now, dict(amounts))
        if self._from is None:
            self._from = self._next = self._last
        elif now - self._next[0] >= PACE_SECONDS:
            self._from, self._next = self._next, self._last

    def rate(self, name: str) -> float | None:
        """Per second; None before the second report."""
        if self._from is None or self._last[0] <= self._from[0]:
            return None
        done = self._last[1].get(name, 0) - self._from[1].get(name, 0)
        return done / (self._last[0] - self._from[0])

    def left_seconds(self, now: float, name: str, total: float) -> float | None:
        """Seconds until `total` is reached, 0 from then on; None without progress, or once the estimate has passed."""
        rate = self.rate(name)
        if not rate:
            return None
        if (missing := total - self._last[1][name]) <= 0:
            return 0.0
        left = missing / rate - (now - self._last[0])
        return left if left > 0 else None


class Tracker:
    """A running step: keeps its last position and its pace. `moment(now)` may be called from another thread.

    expected_seconds: forecast for the step, used until something is counted towards a total; from then on its pace tells.
    """

    def __init__(self, step: str, *, expected_seconds: float, later_seconds: float, now: float) -> None:
        self._step, self._expected, self._later = step, expected_seconds, later_seconds
        self._started = now
        self._pace = Pace()
        self._position: Position | None = None

    def add(self, position: Position, now: float) -> None:
        """Takes a report."""
        if position.unit:
            done, _ = _work(position)
            self._pace.add(now, {**position.counts, WORK: done})
        elif self._position is not None and self._position.unit:  # between two parts: what is counted stays counted
            position = replace(self._position, part=position.part)
        self._position = position

    def moment(self, now: float) -> Moment:
        """The state of the step at `now`."""
        at = self._position
        spent = now - self._started
        rates: dict[str, float] = {}
        left, is_counted = None, at is not None and at.total is not None
        if at is not None:
            rates = {name: rate for name in at.counts if (rate := self._pace.rate(name)) is not None}
            _, total = _work(at)
            left = None if total is None else self._pace.left_seconds(now, WORK, total)
        if left is None and not is_counted and self._expected > spent:
            left = self._expected - spent
        return Moment(
            step=self._step,
            spent_seconds=spent,
            position=at,
            rates=rates,
            left_seconds=left,
            later_seconds=self._later,
        )


def _work(at: Position) -> tuple[float, float | None]:
    """What the time left is told by: done, and the total if it is known."""
    return at.work or (at.done, at.total)
