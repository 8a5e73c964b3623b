"""Sequences are apportioned exactly: within one of the asked share at every point, in closed form."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import RecipeError
from gristmill.tokens.mixture import Mixture, exact_weight


@st.composite
def weights(draw: st.DrawFn) -> list[Fraction]:
    """One to seven weights with a denominator of at most 2,000 that sum to 1."""
    total = draw(st.sampled_from([1, 2, 5, 10, 64, 100, 125, 1000, 2000]))
    cuts = draw(st.lists(st.integers(1, max(1, total - 1)), max_size=6, unique=True))
    edges = sorted({0, total, *(cut for cut in cuts if cut < total)})
    return [Fraction(b - a, total) for a, b in pairwise(edges)]


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
