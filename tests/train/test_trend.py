"""A trend is told where there is one, and seldom where there is none: by simulation, and by planted logs."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.train.standing.trend import FEWEST, NEWEST, trend, trends

BITS = "eval/web/bits_per_byte"


def log(values: list[float], *, metric: str = BITS, every: int = 1000) -> list[dict[str, object]]:
    """A metrics log in which the first model and then each thousand tokens are measured, with lines of training between."""
    lines: list[dict[str, object]] = []
    for number, value in enumerate(values):
        band = {f"{metric}_low": value - 0.1, f"{metric}_high": value + 0.1}
        lines.append({"step": number * 10, "tokens": number * every, "kind": "eval", metric: value, **band})
        lines.append({"step": number * 10 + 5, "tokens": number * every + 500, "kind": "train", "train/loss": 3.0})
    return lines


@pytest.mark.parametrize("count", [FEWEST, NEWEST])
def test_where_nothing_changes_a_trend_is_told_in_five_of_a_hundred(count: int) -> None:
    draw = np.random.default_rng(count)
    told = [
        trend("m", [(at * 1000, value) for at, value in enumerate(draw.normal(2.0, 0.02, count))]).direction
        for _ in range(2000)
    ]
    false = sum(direction != "within noise" for direction in told) / len(told)
    assert 0.03 < false < 0.07
    assert abs(told.count("rises") - told.count("falls")) < 60


def test_a_fall_of_six_times_the_scatter_is_told_nearly_always_and_as_large_as_it_is() -> None:
    draw, found = np.random.default_rng(1), []
    for _ in range(300):
        values = 2.0 - 0.12 * np.arange(NEWEST) / (NEWEST - 1) + draw.normal(0, 0.02, NEWEST)
        found.append(trend("m", [(at * 1000, value) for at, value in enumerate(values)]))
    assert sum(one.direction == "falls" for one in found) > 0.95 * len(found)
    assert np.mean([one.change for one in found]) == pytest.approx(-0.12, abs=0.005)


def test_only_the_newest_values_count_and_never_the_first_models() -> None:
    early = [9.0, 9.0, 1.0, 9.0]
    late = [3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3]
    (found,) = trends(log([*early, *late]))
    assert (found.metric, found.values, found.direction) == (BITS, NEWEST, "falls")
    assert found.change == pytest.approx(-0.7)
    assert (found.since_tokens, found.tokens) == (4000, 11_000)
    assert (found.last, found.low, found.high) == (2.3, pytest.approx(2.2), pytest.approx(2.4))
    (found,) = trends(log([9.0, 3.0, 2.9, 2.8, 2.7]))
    assert (found.values, found.since_tokens) == (4, 1000)


def test_too_few_values_say_so_and_none_are_left_out() -> None:
    (found,) = trends(log([4.0, 3.0, 2.5]))
    assert (found.direction, found.change, found.noise) == ("too few values", None, None)
    assert trends(log([4.0])) == []
    assert trends([{"step": 10, "tokens": 10, "kind": "eval", BITS: None}]) == []


def test_quantities_that_are_measured_at_other_steps_have_lines_of_their_own() -> None:
    often, seldom = log([9.0, 3.0, 2.9, 2.8, 2.7, 2.6]), log([0.2, 0.3], metric="eval/cloze/accuracy", every=4000)
    found = {
        one.metric: one.values for one in trends(sorted([*often, *seldom], key=lambda line: int(str(line["tokens"]))))
    }
    assert found == {BITS: 5, "eval/cloze/accuracy": 1}
