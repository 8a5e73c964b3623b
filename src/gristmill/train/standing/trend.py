"""Where a measured quantity is going: the line through its newest values, and by how much it may seem to rise or fall by chance.

What one checkpoint has by luck the next has not, so values scatter around their course. The scatter around the line is that noise;
a change along the line that lies within the 95 % interval of the slope is not told from none. The interval of a single value, over
documents or items, says how well it stands for other text, and is wider: the same documents are measured each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gristmill.statistics import slope
from gristmill.train.outputs import EVAL, interval_of

NEWEST = 8  # values that the line is drawn through
FEWEST = 4  # with fewer the interval is too wide to be of use
Direction = Literal["rises", "falls", "within noise", "too few values"]


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A quantity over its newest values. change: along the line from the first of them to the last; noise: half of its interval; both
    None where there are too few. low, high: the interval of the last value, where it has one."""

    metric: str
    values: int
    since_tokens: int
    tokens: int
    last: float
    low: float | None
    high: float | None
    change: float | None
    noise: float | None

    @property
    def direction(self) -> Direction:
        """Whether it rises or falls by more than the noise."""
        if self.change is None or self.noise is None:
            return "too few values"
        if abs(self.change) <= self.noise:
            return "within noise"
        return "rises" if self.change > 0 else "falls"


def trends(lines: Iterable[Mapping[str, Any]]) -> list[Trend]:
    """Of everything that was measured, by the lines of the metrics log, in the order of first appearance; without the first model's
    values, measured before its first step."""
    points: dict[str, list[tuple[int, float]]] = {}
    bands: dict[str, tuple[float | None, float | None]] = {}
    for line in lines:
        if line["kind"] != "eval" or not line["step"]:
            continue
        for key, value in line.items():
            if key.startswith(EVAL) and not key.endswith(("_low", "_high")) and value is not None:
                points.setdefault(key, []).append((line["tokens"], value))
                low, high = interval_of(key)
                bands[key] = (line.get(low), line.get(high))
    return [trend(key, values, *bands[key]) for key, values in points.items()]


def trend(
    metric: str,
    points: Sequence[tuple[int, float]],
    low: float | None = None,
    high: float | None = None,
    *,
    newest: int = NEWEST,
    confidence: float = 0.95,
) -> Trend:
    """Of (tokens, value) in order; at least one. newest: how many of them the line is drawn through."""
    kept = points[-newest:]
    (since, _), (tokens, last) = kept[0], kept[-1]
    change = noise = None
    if len(kept) >= FEWEST and tokens > since:
        per_token = slope([at for at, _ in kept], [value for _, value in kept], confidence=confidence)
        change, noise = per_token.value * (tokens - since), (per_token.high - per_token.low) / 2 * (tokens - since)
    return Trend(
        metric=metric,
        values=len(kept),
        since_tokens=since,
        tokens=tokens,
        last=last,
        low=low,
        high=high,
        change=change,
        noise=noise,
    )
