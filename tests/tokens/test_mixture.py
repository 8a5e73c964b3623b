"""Sequences are apportioned exactly: within one of the asked share at every point, in closed form."""

from __future__ import annotations

import heapq
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import at_length
from gristmill.errors import RecipeError
from gristmill.tokens.mixture import Mixture, exact_weight


@st.composite
def weights(draw: st.DrawFn) -> list[Fraction]:
    """One to seven weights with a denominator of at most 2,000 that sum to 1."""
    total = draw(st.sampled_from([1, 2, 5, 10, 64, 100, 125, 1000, 2000]))
    cuts = draw(st.lists(st.integers(1, max(1, total - 1)), max_size=6, unique=True))
    edges = sorted({0, total, *(cut for cut in cuts if cut < total)})
    return [Fraction(b - a, total) for a, b in pairwise(edges)]


@st.composite
def uneven_weights(draw: st.DrawFn) -> list[Fraction]:
    """Two to nine weights of very different sizes, so that windows of some sources hold many of others."""
    total = draw(st.sampled_from([64, 100, 500, 2000, 3125, 4000]))
    parts = draw(st.lists(st.sampled_from([1, 1, 2, 3, 7, 20, 55, 150, 400]), min_size=1, max_size=8))
    parts = parts if sum(parts) < total else [1] * len(parts)
    parts.insert(draw(st.integers(0, len(parts))), total - sum(parts))
    return [Fraction(part, total) for part in parts]


def whole_period(shares: list[int]) -> list[int]:
    """The published order, one place after the other: of the turns released, the one with the earliest deadline."""
    period = sum(shares)
    waiting, turns = [(0, source) for source in range(len(shares))], [0] * len(shares)
    released: list[tuple[int, int]] = []
    order: list[int] = []
    for place in range(period):
        while waiting and waiting[0][0] <= place:
            source = heapq.heappop(waiting)[1]
            heapq.heappush(released, (-(-(turns[source] + 1) * period // shares[source]), source))
        source = heapq.heappop(released)[1]
        order.append(source)
        turns[source] += 1
        if turns[source] < shares[source]:
            heapq.heappush(waiting, (turns[source] * period // shares[source], source))
    return order


@settings(deadline=None, max_examples=150)
@given(shares=weights())
def test_counts_stay_within_one_of_the_asked_share(shares: list[Fraction]) -> None:
    mixture = Mixture(shares)
    order = mixture.source_at(np.arange(2 * mixture.period))
    for source, share in enumerate(shares):
        counts = np.cumsum(order == source)
        asked = np.arange(1, len(order) + 1) * share.numerator
        assert (np.abs(counts * share.denominator - asked) < share.denominator).all()


@settings(deadline=None, max_examples=100)
@given(shares=weights(), index=st.integers(0, 10_000))
def test_the_closed_form_equals_counting(shares: list[Fraction], index: int) -> None:
    mixture = Mixture(shares)
    order = mixture.source_at(np.arange(index))
    counts = [mixture.count_before(source, index) for source in range(len(shares))]
    assert counts == [int((order == source).sum()) for source in range(len(shares))]
    assert sum(counts) == index


@settings(deadline=None, max_examples=60)
@given(shares=weights())
def test_draws_of_a_source_are_numbered_without_gaps(shares: list[Fraction]) -> None:
    mixture = Mixture(shares)
    index = np.arange(2 * mixture.period + 3)
    order, draws = mixture.source_at(index), mixture.draw_at(index)
    for source in range(len(shares)):
        mine = draws[order == source]
        assert mine.tolist() == list(range(len(mine)))


@settings(deadline=None, max_examples=50)
@given(shares=weights() | uneven_weights(), data=st.data())
def test_the_order_is_the_published_one_wherever_it_is_entered(shares: list[Fraction], data: st.DataObject) -> None:
    order = np.array(whole_period([int(share * Mixture(shares).period) for share in shares]))
    place = data.draw(st.integers(0, len(order) - 1))
    late = Mixture(shares)
    counts = np.bincount(order[:place], minlength=len(shares)).tolist()
    assert [late.count_before(source, place) for source in range(len(shares))] == counts
    assert Mixture(shares).place_of(int(order[place]), counts[order[place]]) == place
    assert late.source_at(np.array([place])).tolist() == [order[place]]
    assert late.draw_at(np.array([place])).tolist() == [counts[order[place]]]
    assert (late.source_at(np.arange(len(order))) == order).all()


test_the_order_is_the_published_one_wherever_it_is_entered_at_length = at_length(
    test_the_order_is_the_published_one_wherever_it_is_entered,
    given(shares=weights() | uneven_weights(), data=st.data()),
    max_examples=500,
)


def test_a_period_of_a_million_is_the_published_one() -> None:
    shares = [123_457, 76_543, 799_989, 7, 4]
    order = np.array(whole_period(shares))
    mixture = Mixture([Fraction(share, 10**6) for share in shares])
    assert (mixture.source_at(np.arange(10**6)) == order).all()
    for source in range(len(shares)):
        before = np.cumsum(order == source)
        assert all(mixture.count_before(source, place) == before[place - 1] for place in range(777, 10**6, 77_777))
        last = shares[source] - 1
        assert mixture.place_of(source, 3 * shares[source] + last) == 3 * 10**6 + int(
            np.flatnonzero(order == source)[last]
        )


def test_a_hand_made_order() -> None:
    assert Mixture([0.5, 0.25, 0.25]).source_at(np.arange(8)).tolist() == [0, 1, 0, 2, 0, 1, 0, 2]


def test_the_period_is_the_common_denominator() -> None:
    assert Mixture([0.7, 0.15, 0.08, 0.05, 0.02]).period == 100
    assert Mixture([0.333333, 0.333333, 0.333334]).period == 1_000_000
    assert Mixture([1]).period == 1


def test_weights_are_taken_as_written() -> None:
    assert exact_weight(0.1) == Fraction(1, 10)
    assert exact_weight(1e-06) == Fraction(1, 1_000_000)


@pytest.mark.parametrize("bad", [0, -0.5, 1.1, 0.1234567])
def test_a_weight_that_is_no_share_is_refused(bad: float) -> None:
    with pytest.raises(RecipeError, match=f"mixture weight is {bad}"):
        exact_weight(bad)


def test_weights_that_do_not_sum_to_one_are_refused_with_their_sum() -> None:
    with pytest.raises(RecipeError, match=r"0\.5, 0\.4 sum to 0\.9, expected exactly 1"):
        Mixture([0.5, 0.4])
