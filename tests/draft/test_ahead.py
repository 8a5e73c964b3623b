"""The time left that init tells: between the forecast and the truth, over reading and counting together."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.draft.ahead import Ahead, Pace

COUNTING = {"signatures/a": 2.0, "duplicates": 1.0, "select": 2.0, "tokenizer": 4.0, "tokenize": 4.0}
STEPS = [*COUNTING]
slower = st.floats(0.2, 5.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def told(
    reads: float, counts: float, *, limit: float = 1e9, most_share: float = 1.0, pieces: int = 200
) -> list[tuple[float, float]]:
    """(now, seconds left as they are told): reading and counting take so many times as long as was foretold."""
    clock, said = Clock(), list[tuple[float, float]]()
    ahead = Ahead(
        lambda _words, left: said.append((clock.now, left)), {"extract/a": 20.0, **COUNTING},
        text_bytes=1e6, reading_seconds=limit, clock=clock,
    )  # fmt: skip
    ahead.waits("measuring", 0.0)
    share = 0.0
    for number in range(pieces + 1):
        share = number / pieces
        clock.now = reads * 20.0 * share
        ahead.reads("reading", share=share, most_share=most_share, text_bytes=1e6 * share)
        if clock.now >= limit or share >= most_share:
            break
    for step in STEPS:
        ahead.counts("counting", step, STEPS[STEPS.index(step) + 1 :])
        clock.now += counts * share * COUNTING[step]
    said.append((clock.now, 0.0))
    return said


@given(slower, slower)
@settings(max_examples=50, deadline=None)
def test_time_left_lies_between_what_was_foretold_and_the_truth(reads: float, counts: float) -> None:
    said = told(reads, counts)
    end = said[-1][0]
    for now, left in said:
        true = end - now
        assert true / max(1.0, reads, counts) - 1e-6 <= left <= true / min(1.0, reads, counts) + 1e-6


@given(slower, st.sampled_from([(1e9, 1.0), (10.0, 1.0), (1e9, 0.3)]))
@settings(max_examples=50, deadline=None)
def test_time_left_falls_all_the_time_where_nothing_is_slower_than_foretold(
    factor: float, most: tuple[float, float]
) -> None:
    limit, share = most
    lefts = [left for _now, left in told(min(1.0, factor), min(1.0, factor), limit=limit, most_share=share)]
    for before, after in pairwise(lefts):
        assert after <= 1.02 * before + 0.1


def test_reading_that_is_cut_short_is_told_no_longer_than_it_may_take() -> None:
    said = told(10.0, 1.0, limit=30.0)
    assert all(left <= 30.0 - now + sum(COUNTING.values()) + 1e-9 for now, left in said if now <= 30)
    assert said[-1][0] < 45


def test_of_a_pace_that_is_not_known_yet_the_forecast_is_told() -> None:
    clock = Clock()
    pace = Pace(100.0, clock)
    assert pace.seconds(100.0, done=0.0) == pytest.approx(100.0)
    clock.now = 50.0
    assert 50.0 < pace.seconds(75.0, done=25.0) < 150.0
