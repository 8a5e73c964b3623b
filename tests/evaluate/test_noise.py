"""Checkpoint noise is what it is planted as, whatever the trend, and a difference of mere noise is called one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gristmill.evaluate.noise import Noise, Trend, noise_of, noise_of_difference, of_one_training
from gristmill.train.outputs import BITS, eval_metric

TOKENS = np.array([655360, 819200, 1310720, 1433600, 1966080, 2048000, 2211840], dtype=float)


@pytest.mark.parametrize("spacing", [TOKENS, np.arange(1, 13) * 1e6])
def test_planted_noise_is_found_whatever_the_line_beneath_it(spacing: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    drawn = [
        noise_of(spacing, 5 - rng.uniform(0, 1) * np.log(spacing) + rng.normal(0, 0.01, len(spacing)))
        for _ in range(4000)
    ]
    variances = np.array([noise.sd**2 for noise in drawn]) / 0.01**2
    assert variances.mean() == pytest.approx(1, abs=0.05)
    # of a multiple of chi-square with d degrees of freedom the variance is 2 / d
    assert 2 / variances.var() == pytest.approx(drawn[0].degrees, rel=0.15)


def test_the_estimate_is_that_of_the_residuals_one_by_one() -> None:
    rng = np.random.default_rng(2)
    y, x = rng.normal(4, 0.1, 7), np.log(TOKENS)
    squares = []
    for k in range(1, 6):
        weight = (x[k + 1] - x[k]) / (x[k + 1] - x[k - 1])
        squares.append((y[k] - weight * y[k - 1] - (1 - weight) * y[k + 1]) ** 2 / (1 + weight**2 + (1 - weight) ** 2))
    assert noise_of(TOKENS, y).sd == pytest.approx(np.sqrt(np.mean(squares)))


def test_two_checkpoints_that_differ_by_noise_only_are_told_apart_once_in_twenty() -> None:
    rng, spacing = np.random.default_rng(3), np.arange(1, 11) * 1e6
    wrong = 0
    for _ in range(3000):
        sides = [noise_of(spacing, rng.normal(0, sd, 10)) for sd in (0.01, 0.02)]
        limit = noise_of_difference(sides)
        assert limit is not None
        wrong += abs(rng.normal(0, 0.01) - rng.normal(0, 0.02)) > limit
    assert wrong / 3000 == pytest.approx(0.05, abs=0.015)
    assert noise_of_difference([None, None]) is None
    assert noise_of_difference([Noise(sd=0.0, degrees=2, evaluations=6), None]) == 0


def test_evaluations_of_one_length_are_used_and_too_few_are_told(tmp_path: Path) -> None:
    steps = [0, 1, 2, 3, 4, 5, 6, 7]
    rows = [
        {
            "step": step,
            "tokens": 100 * step,
            "kind": "eval",
            "eval/web/bits_per_byte": 9.0 if step > 5 or not step else 4.0,
        }
        for step in steps
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    segments = [{"first_step": 0, "seq_len": 256}, {"first_step": 5, "seq_len": 1024}]
    (tmp_path / "state.json").write_text(json.dumps({"prefix": {"segments": segments}}), encoding="utf-8")
    watched = Trend.of(tmp_path)
    assert watched is not None
    known = watched.noise("web", "bits_per_byte")
    assert isinstance(known, Noise)
    assert (known.sd, known.evaluations) == (pytest.approx(0, abs=1e-12), 5)
    assert watched.noise("web", "acc") == 0
    assert watched.noise("novel", "bits_per_byte") == 0
    assert Trend.of(tmp_path / "nothing") is None


def test_the_noise_of_two_sides_adds_up_with_degrees_of_freedom_by_welch() -> None:
    """As scipy has them, of two samples without a mean in common."""
    one, two = Noise(sd=0.02, degrees=3.0, evaluations=8), Noise(sd=0.01, degrees=5.0, evaluations=12)
    degrees = (0.02**2 + 0.01**2) ** 2 / (0.02**4 / 3 + 0.01**4 / 5)
    expected = stats.t.ppf(0.975, degrees) * np.hypot(0.02, 0.01)
    assert noise_of_difference([one, two]) == pytest.approx(expected)
    for sides in ([one, None], [None, one], [one, one]):
        assert noise_of_difference(sides) == pytest.approx(stats.t.ppf(0.975, 3) * 0.02 * np.sqrt(2))


@pytest.mark.parametrize("evaluations", [5, 12])
def test_a_side_that_is_not_known_is_not_taken_to_be_without_noise(evaluations: int) -> None:
    """Two checkpoints of mere noise are told apart once in twenty where the log of one of them is lost; of both one training, likewise."""
    rng, spacing = np.random.default_rng(4), np.arange(1, evaluations + 1) * 1e6
    wrong = {"one is lost": 0, "one training": 0}
    for _ in range(3000):
        known = noise_of(spacing, rng.normal(0, 0.01, evaluations))
        difference = abs(rng.normal(0, 0.01) - rng.normal(0, 0.01))
        for name, sides in (("one is lost", [known, None]), ("one training", [known, known])):
            limit = noise_of_difference(sides)
            assert limit is not None
            wrong[name] += difference > limit
    # of few evaluations the degrees of freedom are rather too few, and the limit rather too wide
    assert all(0.02 < count / 3000 < 0.065 for count in wrong.values())


def test_two_checkpoints_of_one_training_have_one_estimate_of_their_noise() -> None:
    """The lines of the earlier are among those of the later: as two estimates they would tell 80 of 1,000 such pairs apart."""
    rng = np.random.default_rng(3)
    told = 0
    for _ in range(1000):
        tokens = np.arange(1, 8) * 1e6
        values = 1 - 0.1 * np.log(tokens) + rng.normal(0, 0.01, 7)
        lines = [
            {"tokens": at, eval_metric(BITS, "web"): value}
            for at, value in zip(tokens.tolist(), values.tolist(), strict=True)
        ]
        trends = [Trend(lines=lines[:end], lengths=[128] * end) for end in (6, 7)]
        found = [trend.noise("web", BITS) for trend in of_one_training(trends) if trend is not None]
        most = noise_of_difference([one for one in found if isinstance(one, Noise)])
        assert most is not None
        told += abs(rng.normal(0, 0.01) - rng.normal(0, 0.01)) > most
    assert 20 <= told <= 65
    other = Trend(lines=[{**lines[0], eval_metric(BITS, "web"): 2.0}, *lines[1:]], lengths=[128] * 7)
    assert of_one_training([trends[0], other]) == [trends[0], other]
    assert of_one_training([None, other]) == [None, other]
    assert of_one_training([None, None]) == [None, None]
