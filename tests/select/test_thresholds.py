"""Thresholds: deciles that are streamed are those of all scores together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.select.thresholds import SHARES, _floats, _ordered, quantiles

floats = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.one_of(floats, st.sampled_from([0.0, -0.0, 2.5])), max_size=200), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_streamed_quantiles_are_those_of_numpy(values: list[float], size: int) -> None:
    scores = np.array(values, dtype=np.float32)

    def batches() -> itertools.starmap[np.ndarray]:  # type: ignore[type-arg]
        return itertools.starmap(
            lambda first: scores[first : first + size], ((k,) for k in range(0, len(scores), size))
        )

    found = quantiles(batches, SHARES.tolist())
    expected = np.quantile(scores.astype(np.float64), SHARES).tolist() if values else []
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-9)


@given(st.lists(floats, min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_the_integers_of_floats_are_in_their_order_and_turn_back_into_them(values: list[float]) -> None:
    scores = np.array(values, dtype=np.float32)
    assert np.array_equal(_floats(_ordered(scores)), scores)
    assert np.array_equal(np.sort(scores), _floats(np.sort(_ordered(scores))))
