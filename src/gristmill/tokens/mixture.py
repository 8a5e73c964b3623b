"""Which source the i-th sequence of a stage comes from: exact, periodic, and never more than one sequence off.

Weights are exact fractions, so the order repeats after D sequences, D their common denominator. Within a period each source
must give its j-th sequence after floor((j-1)/w) and by ceil(j/w); the earliest deadline is first, which always succeeds and
keeps every count within one of w*i after any i sequences. Source: Tijdeman, The chairman assignment problem (1980), in the
form of earliest-deadline scheduling with integer windows (Baruah et al., Proportionate progress, 1996).

Random choice would drift by sqrt(i) and could not say in closed form how often a source was drawn.

The order is made in blocks, when somebody asks for them; how often each source was drawn before a place is known without any
of them. Call a source's j-th sequence its turn j. At place p a turn is surely done when its deadline has come, surely not done
when it is not released, and else open; windows of one source overlap by one place at most, so each source has at most one open
turn. Which open turns are done? Let waiting(v) be the turns released before place v and not done there; as every place takes
one turn, it is (turns released before v) - v. The latest n open turns, by deadline, get a place only where no earlier turn
waits, so they are a queue behind all others. Of such a queue,

    done before p = max over v <= p of (its turns released before v) - waiting(v), at least 0,

and the open turn with the n-th latest deadline is done when that number for n is one above that for n - 1.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from gristmill.errors import RecipeError

MAX_DECIMALS = 6
_BLOCK = 1024  # places of a period made together


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
        self._waiting = _turns_waiting(self.shares, self.period)
        # One period, made block by block: the source at each place, and how many of its own come before it.
        self._source = np.empty(self.period, dtype=np.int16)
        self._earlier = np.empty(self.period, dtype=np.int64)
        self._is_made = np.zeros(-(-self.period // _BLOCK), dtype=bool)

    def source_at(self, index: NDArray[np.int64]) -> NDArray[np.int16]:
        """The source of each sequence; `index` counts from the stage's start."""
        place = index % self.period
        self._make(place)
        return self._source[place]

    def draw_at(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each sequence, how many of the same source came before it in the stage."""
        period, place = np.divmod(index, self.period)
        self._make(place)
        return period * self.shares[self._source[place]] + self._earlier[place]

    def count_before(self, source: int, index: int) -> int:
        """How many of the stage's first `index` sequences come from `source`."""
        return self.counts_before(index)[source]

    def counts_before(self, index: int) -> list[int]:
        """The same of every source, which takes no longer."""
        period, place = divmod(index, self.period)
        return [period * share + turns for share, turns in zip(self.shares.tolist(), self._turns_before(place))]

    def place_of(self, source: int, turn: int) -> int:
        """The sequence of the stage that is the source's own number `turn`, both from 0: where `draw_at` says `turn`."""
        period, turn = divmod(turn, int(self.shares[source]))
        first = turn * self.period // int(self.shares[source])  # where it is released; its deadline is the end
        end = -(-(turn + 1) * self.period // int(self.shares[source]))
        place = bisect_left(range(first, end), turn + 1, key=lambda place: self._turns_before(place + 1)[source])
        return period * self.period + first + place

    def _make(self, place: NDArray[np.int64]) -> None:
        """Makes the blocks in which these places of the period lie, where they are not made yet."""
        blocks = np.unique(place // _BLOCK)
        for block in blocks[~self._is_made[blocks]].tolist():
            start, stop = block * _BLOCK, min((block + 1) * _BLOCK, self.period)
            order = _earliest_deadline_order(self.shares.tolist(), self.period, self._turns_before(start), start, stop)
            self._source[start:stop], self._earlier[start:stop] = zip(*order, strict=True)
            self._is_made[block] = True

    def _turns_before(self, place: int) -> list[int]:
        """How many turns of each source come before a place of the period; see the module's text."""
        shares = self.shares.tolist()
        done = [share * place // self.period for share in shares]
        is_open = [source for source, share in enumerate(shares) if share * place % self.period]
        releases = {source: done[source] * self.period // shares[source] for source in is_open}
        fewest = {source: int(self._waiting[release + 1 : place + 1].min()) for source, release in releases.items()}
        latest: list[int] = []
        done_of_latest = 0
        for source in sorted(
            is_open, key=lambda one: (-(-(done[one] + 1) * self.period // shares[one]), one), reverse=True
        ):
            latest.append(source)
            released = {one: sum(releases[other] <= releases[one] for other in latest) for one in latest}
            found = max(0, *(released[one] - fewest[one] for one in latest))
            done[source] += found - done_of_latest
            done_of_latest = found
        return done


def _turns_waiting(shares: NDArray[np.int64], period: int) -> NDArray[np.int16]:
    """(period + 1,): turns released before each place and not done there, when each place takes one turn."""
    waiting = np.full(period + 1, -1, dtype=np.int32)
    waiting[0] = 0
    for share in shares.tolist():
        waiting[1 + np.arange(share) * period // share] += 1  # a source has one release a place at most
    return np.cumsum(waiting, out=waiting).astype(np.int16)


def _earliest_deadline_order(
    shares: list[int], period: int, turns: list[int], start: int, stop: int
) -> Iterator[tuple[int, int]]:
    """(source, turn) at places [start, stop) of the period; `turns` of each source come before `start`.

    Each source holds one turn: open, (deadline, source), once released, else waiting for its release.
    """
    turns = list(turns)
    waiting = [
        (turn * period // share, source) for source, (turn, share) in enumerate(zip(turns, shares)) if turn < share
    ]
    heapq.heapify(waiting)
    open_turns: list[tuple[int, int]] = []
    for place in range(start, stop):
        while waiting and waiting[0][0] <= place:
            source = heapq.heappop(waiting)[1]
            heapq.heappush(open_turns, (-(-(turns[source] + 1) * period // shares[source]), source))
        deadline, source = heapq.heappop(open_turns)
        assert deadline > place, "weights that sum to one always leave room before a deadline"
        yield source, turns[source]
        turns[source] += 1
        if turns[source] < shares[source]:
            heapq.heappush(waiting, (turns[source] * period // shares[source], source))
