"""Which of several ranks is slower than the others: every step waits for it, so it sets the speed of all.

What counts is the time of a rank's forward passes, in which it waits for nobody. Nothing here knows torch or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

WINDOW_STEPS = 20
SLOW = 1.5  # times the median of all ranks


class SlowRank:
    """Looks at windows of steps, and has a line to say when another rank than before is slow, or none any more."""

    def __init__(self) -> None:
        self._sums: list[float] = []
        self._steps = 0
        self._slow: int | None = None

    def after_step(self, rank_seconds: Sequence[float]) -> str | None:
        """Takes each rank's seconds of a step; what is to be said, which is nothing where there is one rank."""
        if len(rank_seconds) < 2:
            return None
        self._sums = [a + b for a, b in zip(self._sums or [0.0] * len(rank_seconds), rank_seconds, strict=True)]
        self._steps += 1
        if self._steps < WINDOW_STEPS:
            return None
        means = [total / self._steps for total in self._sums]
        self._sums, self._steps = [], 0
        usual, worst = median(means), max(range(len(means)), key=means.__getitem__)
        slow = worst if means[worst] > SLOW * usual else None
        if slow == self._slow:
            return None
        before, self._slow = self._slow, slow
        if slow is None:
            return f"Rank {before} is as fast as the others again."
        return (
            f"Rank {slow} of {len(means)} is slow: {means[slow]:.3g} s a step in forward passes, where the median is {usual:.3g} s. "
            "All ranks wait for it."
        )
