"""When a step of training is an outlier: the six-sigma rule, and what a change of mixture does to the loss.

    loss, norm of the gradient    a spike: more than 6 standard deviations above the mean of the last 128 steps
    a change of mixture           nothing before it can be compared with what follows: the windows begin empty, and there is no
                                  spike until they hold 32 steps. Instead each source is followed by itself: how far its loss
                                  rises above its mean in the last 32 steps before, and after how many steps it is back

Everything here is arithmetic on a few hundred numbers, which are what the loop has after each step. On many devices they have to be
the numbers of the whole batch, so that every rank decides alike. The state is JSON, and a checkpoint carries it along: a resumed
training decides as one that was never stopped. Sums are exact (`fsum`), so they do not depend on how the state was reached.

Source of the rule: OLMo-core's SkipStepOptimizer (Walsh et al. 2025, arXiv 2501.00656, section 3). Two things differ. There a spike enters the window
as it is and hides the next ones; here it enters as the limit that it exceeded, so a lasting change of level is taken for the new
level within a window, and a single spike hardly widens it. And there 64 steps are enough to judge by, here 32.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VERSION = 1  # of the rule; rises when it decides otherwise

SIGMAS = 6.0
WINDOW_STEPS = 128
MIN_STEPS = 32
JUDGED = ("loss", "grad_norm")
LOSS_OF = "loss/"  # followed by a source


@dataclass(frozen=True, kw_only=True)
class Usual:
    """Mean and standard deviation of a quantity in the steps before."""

    mean: float
    deviation: float

    @property
    def limit(self) -> float:
        """The largest value that is no spike."""
        return self.mean + SIGMAS * self.deviation

    def sigmas(self, value: float) -> float:
        """By how many standard deviations a value lies above the mean; infinite where the steps before were all equal."""
        above = value - self.mean
        return above / self.deviation if self.deviation > 0 else math.copysign(math.inf, above) if above else 0.0


@dataclass(frozen=True, kw_only=True)
class Spike:
    """A step that exceeds what is usual. exceeding: which of the judged quantities. usual: of every quantity that has enough steps."""

    exceeding: tuple[str, ...]
    values: Mapping[str, float]
    usual: Mapping[str, Usual]


@dataclass(kw_only=True)
class Rise:
    """The loss of one source after a change of mixture. steps: how many it took until a loss was at or below `mean`; None so far."""

    mean: float
    deviation: float
    peak: float = -math.inf
    peak_step: int | None = None
    steps: int | None = None


@dataclass(kw_only=True)
class Settling:
    """The time after a change of mixture. since: the steps done when it came."""

    since: int
    sources: dict[str, Rise]

    @property
    def is_over(self) -> bool:
        """Whether every source is back."""
        return all(rise.steps is not None for rise in self.sources.values())


@dataclass(kw_only=True)
class Stability:
    """What steps are judged by. windows: quantity → its last values, the newest last."""

    windows: dict[str, list[float]] = field(default_factory=dict)
    settling: Settling | None = None

    def judge(self, values: Mapping[str, float]) -> Spike | None:
        """The spike that a step is; changes nothing. values: quantity → value: "loss", "grad_norm", "loss/<source>", all finite."""
        limits = {name: usual_in(self.windows.get(name, ())) for name in JUDGED if name in values}
        exceeding = tuple(name for name, usual in limits.items() if usual and values[name] > usual.limit)
        if not exceeding:
            return None
        usual = {name: found for name in values if (found := usual_in(self.windows.get(name, ()))) is not None}
        return Spike(exceeding=exceeding, values=dict(values), usual=usual)

    def take(self, step: int, values: Mapping[str, float]) -> Settling | None:
        """Counts a step; returns the account of a change of mixture that ends with it. step: its number, counted from 1."""
        for name, value in values.items():
            window = self.windows.setdefault(name, [])
            usual = usual_in(window)
            window.append(value if usual is None else min(value, usual.limit))
            del window[:-WINDOW_STEPS]
        return self._follow(step, values)

    def change_mixture(self, step: int, sources: Collection[str]) -> Settling | None:
        """After `step` steps the mixture changes to one of these sources; returns the account of the change before, if it was open."""
        ended = self.end()
        before = {name: usual_in(self.windows.get(f"{LOSS_OF}{name}", [])[-MIN_STEPS:]) for name in sources}
        rises = {name: Rise(mean=one.mean, deviation=one.deviation) for name, one in before.items() if one is not None}
        self.windows = {}
        self.settling = Settling(since=step, sources=rises) if rises else None
        return ended

    def end(self) -> Settling | None:
        """The account of a change of mixture that is still open, which is thereby closed."""
        ended, self.settling = self.settling, None
        return ended

    def _follow(self, step: int, values: Mapping[str, float]) -> Settling | None:
        if self.settling is None:
            return None
        since = self.settling.since
        for name, rise in self.settling.sources.items():
            value = values.get(f"{LOSS_OF}{name}")
            if value is None or rise.steps is not None:
                continue
            if value > rise.peak:
                rise.peak, rise.peak_step = value, step
            if value <= rise.mean:
                rise.steps = step - since
        return self.end() if self.settling.is_over or step - since >= WINDOW_STEPS else None

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal state."""
        settling = None
        if self.settling is not None:
            # JSON has no infinity: a source that was not drawn yet has no peak
            sources = {
                name: {**vars(rise), "peak": None if rise.peak_step is None else rise.peak}
                for name, rise in self.settling.sources.items()
            }
            settling = {"since": self.settling.since, "sources": sources}
        return {"windows": {name: list(window) for name, window in self.windows.items()}, "settling": settling}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Stability:
        """The reverse of `to_json`."""
        settling = None
        if (kept := value["settling"]) is not None:
            sources = {
                name: Rise(**{**rise, "peak": -math.inf if rise["peak"] is None else rise["peak"]})
                for name, rise in kept["sources"].items()
            }
            settling = Settling(since=kept["since"], sources=sources)
        return cls(windows={name: list(window) for name, window in value["windows"].items()}, settling=settling)


def usual_in(window: Sequence[float]) -> Usual | None:
    """Mean and sample standard deviation of a window; None while it is too short to judge by."""
    count = len(window)
    if count < MIN_STEPS:
        return None
    mean = math.fsum(window) / count
    return Usual(mean=mean, deviation=math.sqrt(math.fsum((value - mean) ** 2 for value in window) / (count - 1)))
