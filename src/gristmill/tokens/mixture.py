"""Which source the i-th sequence of a stage comes from: exact, periodic, and never more than one sequence off.

Weights are exact fractions, so the order repeats after D sequences, D their common denominator. Within a period each source
must give its j-th sequence after floor((j-1)/w) and by ceil(j/w); the earliest deadline goes first, which always succeeds and
keeps every count within one of w*i after any i sequences. Source: Tijdeman, The chairman assignment problem (1980), in the
form of earliest-deadline scheduling with integer windows (Baruah et al., Proportionate progress, 1996).

Random choice would drift by sqrt(i) and could not say in closed form how often a source was drawn.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from gristmill.errors import RecipeError

MAX_DECIMALS = 6


def exact_weight(weight: float | str | Fraction) -> Fraction:
    """The weight as written: 0.1 becomes 1/10. Raises RecipeError for more than six decimals or a value outside (0, 1]."""
    exact = weight if isinstance(weight, Fraction) else Fraction(str(weight))
    if not 0 < exact <= 1 or (exact * 10**MAX_DECIMALS).denominator != 1:
        raise RecipeError(
            f"mixture weight is {weight}, expected above 0, at most 1, with at most {MAX_DECIMALS} decimals. Leave a source "
            "out rather than giving it 0."
        )
    return exact


class Mixture:
    """The order of sources within one stage. Sources are numbers: positions in `weights`. Memory is of the order of the period.

    period      D
    shares      (num_sources,) int64: sequences of each source per period
    """

    def __init__(self, weights: Sequence[float | str | Fraction]) -> None:
        """Raises RecipeError when the weights do not sum to exactly 1."""
        exact = [exact_weight(weight) for weight in weights]
        total = sum(exact, Fraction(0))
        if total != 1:
            raise RecipeError(
                f"mixture weights {', '.join(map(str, weights))} sum to {float(total):.10g}, expected exactly 1. "
                "Change one of them."
            )
        self.weights = tuple(exact)
        self.period = lcm(*(weight.denominator for weight in exact))
        self.shares = np.array([int(weight * self.period) for weight in exact], dtype=np.int64)
        order = _earliest_deadline_order(self.shares.tolist(), self.period)
        self._source = np.array(order, dtype=np.int16)
        # Where each source stands in a period, and how many of its own stand before each place.
        self._places = [np.flatnonzero(self._source == source) for source in range(len(exact))]
        self._earlier = np.zeros(self.period, dtype=np.int64)
        for places in self._places:
            self._earlier[places] = np.arange(len(places))

    def source_at(self, index: NDArray[np.int64]) -> NDArray[np.int16]:
        """The source of each sequence; `index` counts from the stage's start."""
        return self._source[index % self.period]

    def draw_at(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each sequence, how many of the same source came before it in the stage."""
        period, place = np.divmod(index, self.period)
        return period * self.shares[self._source[place]] + self._earlier[place]

    def count_before(self, source: int, index: int) -> int:
        """How many of the stage's first `index` sequences come from `source`."""
        period, place = divmod(index, self.period)
        return period * int(self.shares[source]) + int(np.searchsorted(self._places[source], place))


def _earliest_deadline_order(shares: list[int], period: int) -> list[int]:
    """One period of sources. Each holds one open turn: (deadline, source) once released, else waiting for its release."""
    waiting = [(0, source) for source in range(len(shares))]
    turns = [0] * len(shares)
    open_turns: list[tuple[int, int]] = []
    order: list[int] = []
    for slot in range(period):
        while waiting and waiting[0][0] <= slot:
            source = heapq.heappop(waiting)[1]
            heapq.heappush(open_turns, (-(-(turns[source] + 1) * period // shares[source]), source))
        deadline, source = heapq.heappop(open_turns)
        assert deadline > slot, "weights that sum to one always leave room before a deadline"
        order.append(source)
        turns[source] += 1
        if turns[source] < shares[source]:
            heapq.heappush(waiting, (turns[source] * period // shares[source], source))
    return order
