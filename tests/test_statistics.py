"""Statistics against scipy, against worked examples, and their laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from gristmill import statistics as s


def test_mean_and_stderr_match_scipy():
    values = np.random.default_rng(0).normal(size=40)
    assert s.mean_stderr(values) == pytest.approx((values.mean(), stats.sem(values)))


def test_one_value_has_no_error_bar_and_no_value_no_mean():
    assert s.mean_stderr([3.0])[0] == 3.0
    assert math.isnan(s.mean_stderr([3.0])[1])
    with pytest.raises(ValueError, match="no values"):
        s.mean_stderr([])


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (3, 7), (812, 1000)])
def test_wilson_interval_matches_scipy(hits, count):
    reference = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert s.wilson_interval(hits, count) == pytest.approx((reference.low, reference.high))


@given(st.integers(1, 500), st.data())
@settings(max_examples=40, deadline=None)
def test_wilson_interval_holds_its_proportion(count, data):
    hits = data.draw(st.integers(0, count))
    low, high = s.wilson_interval(hits, count)
    assert 0 <= low <= hits / count <= high <= 1


@pytest.mark.parametrize("count", [2, 3, 10, 400])
def test_paired_difference_matches_scipy(count):
    rng = np.random.default_rng(count)
    a = rng.normal(size=count)
    b = a + rng.normal(0.1, 0.5, size=count)
    ours, reference = s.paired_difference(a, b), stats.ttest_rel(a, b)
    assert ours.p_value == pytest.approx(reference.pvalue, abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx(tuple(reference.confidence_interval()), rel=1e-9)


def test_one_pair_proves_nothing_and_equal_differences_prove_all():
    assert s.paired_difference([1.0], [0.0]).p_value == 1.0
    assert s.paired_difference([1.1, 2.1, 0.3], [1.0, 2.0, 0.2]).p_value == 0.0
    assert s.paired_difference([1.0, 2.0], [1.0, 2.0]).p_value == 1.0


@given(st.floats(-50, 50), st.floats(0.5, 2000))
@example(1.192092896e-07, 3.0)
@settings(max_examples=60, deadline=None)
def test_student_t_matches_scipy(t, degrees):
    assert s.student_t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), rel=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 9), (40, 40), (600, 480)])
def test_mcnemar_matches_the_binomial_test(only_a, only_b):
    n = only_a + only_b
    expected = stats.binomtest(only_a, n, 0.5).pvalue if n else 1.0
    assert s.mcnemar_exact(only_a, only_b) == pytest.approx(expected)


def test_holm_worked_example():
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=12))
@settings(max_examples=40, deadline=None)
def test_holm_never_helps_and_keeps_the_order(p_values):
    adjusted = s.holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    for i, j in itertools.combinations(range(len(p_values)), 2):
        if p_values[i] < p_values[j]:
            assert adjusted[i] <= adjusted[j]


def test_kappa_worked_example():
    # 50 grants read twice: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed .7, expected .5.
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    kappa = s.cohen_kappa(first, second)
    assert kappa.value == pytest.approx(0.4)
    assert kappa.low < 0.4 < kappa.high
    assert kappa.count == 50


def test_quadratic_kappa_forgives_neighbours_and_is_one_at_agreement():
    labels = np.arange(60) % 6
    near, far = np.clip(labels + 1, 0, 5), 5 - labels
    assert s.cohen_kappa(labels, labels, quadratic=True).value == 1.0
    assert s.cohen_kappa(labels, near, quadratic=True).value > s.cohen_kappa(labels, near).value
    assert s.cohen_kappa(labels, far, quadratic=True).value < 0


def test_quadratic_kappa_equals_its_formula_by_moments():
    # With quadratic weights kappa is 1 - E(a-b)^2 / (var a + var b + (mean a - mean b)^2).
    rng = np.random.default_rng(3)
    a = rng.integers(0, 6, 200)
    b = np.clip(a + rng.integers(-1, 3, 200), 0, 5)
    expected = 1 - np.mean((a - b) ** 2) / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    assert s.cohen_kappa(a, b, quadratic=True).value == pytest.approx(expected)


def test_binary_scores_worked_example():
    predicted = [1] * 8 + [1] * 2 + [0] * 4 + [0] * 6
    actual = [1] * 8 + [0] * 2 + [1] * 4 + [0] * 6
    scores = s.binary_scores(predicted, actual)
    assert scores.precision.value == pytest.approx(0.8)
    assert scores.precision.count == 10
    assert scores.recall.value == pytest.approx(8 / 12)
    assert scores.recall.count == 12
    assert scores.f1.value == pytest.approx(16 / 22)
    assert scores.f1.low < 16 / 22 < scores.f1.high
    assert s.f1_score(predicted, actual) == scores.f1
    assert s.precision_score(predicted, actual) == scores.precision
    assert s.recall_score(predicted, actual) == scores.recall


def test_binary_scores_of_nothing_are_zero_with_the_widest_interval():
    f1 = s.binary_scores([], []).f1
    assert (f1.value, f1.low, f1.high, f1.count) == (0, 0, 1, 0)


def test_the_interval_of_f1_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1500):
        truth = rng.random(120) < 0.3
        guess = np.where(rng.random(120) < 0.8, truth, ~truth)
        f1 = s.f1_score(guess, truth)
        covered += f1.low <= 2 * 0.24 / (0.24 + 0.14 + 0.3) <= f1.high
    assert 0.93 < covered / 1500 < 0.975


def test_no_hits_are_not_certainty():
    f1 = s.f1_score([1] * 5 + [0] * 15, [0] * 15 + [1] * 5)
    assert f1.value == f1.low == 0
    assert f1.high > 0.3


def test_bootstrap_interval_covers_like_the_t_interval_and_is_repeatable():
    values = np.random.default_rng(1).normal(size=300)
    low, high = s.bootstrap_interval(values, resamples=2000, seed=4)
    mean, stderr = s.mean_stderr(values)
    assert (low, high) == pytest.approx((mean - 1.96 * stderr, mean + 1.96 * stderr), abs=0.3 * stderr)
    assert s.bootstrap_interval(values, seed=4) == s.bootstrap_interval(values, seed=4)


def test_smallest_detectable_difference_is_found_with_the_stated_power():
    effect = s.smallest_detectable_difference(1.0)
    assert effect == pytest.approx(2.8016, abs=1e-3)
    draws = np.random.default_rng(0).normal(effect, 1.0, size=20_000)
    assert np.mean(np.abs(draws) > 1.96) == pytest.approx(0.8, abs=0.015)


def test_chance_is_inside_or_not():
    assert s.contains_chance((0.2, 0.3), 0.25)
    assert not s.contains_chance((0.26, 0.3), 0.25)
    assert not s.contains_chance((0.0, 1.0), None)
