"""Statistics against scipy, against worked examples, and their laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
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


@pytest.mark.parametrize("count", [3, 4, 8, 400])
def test_slope_matches_scipy(count):
    rng = np.random.default_rng(count)
    xs = rng.uniform(1e9, 2e9, size=count)
    ys = 3 - 1e-9 * xs + rng.normal(0, 0.2, size=count)
    found, reference = s.slope(xs, ys), stats.linregress(xs, ys)
    half = stats.t.ppf(0.975, count - 2) * reference.stderr
    assert found.value == pytest.approx(reference.slope)
    assert (found.low, found.high) == pytest.approx((reference.slope - half, reference.slope + half))


@pytest.mark.parametrize(("xs", "ys"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 2])])
def test_a_slope_of_too_few_points_is_refused(xs, ys):
    with pytest.raises(ValueError, match="three points"):
        s.slope(xs, ys)


@pytest.mark.parametrize("count", [2, 3, 10, 400])
def test_ratio_over_equal_sizes_is_students_mean(count):
    rates = np.random.default_rng(count).normal(2, 0.3, size=count)
    found = s.ratio_of_sums(700 * rates, np.full(count, 700))
    reference = stats.t.interval(0.95, count - 1, loc=rates.mean(), scale=stats.sem(rates))
    assert (found.low, found.high) == pytest.approx(reference, rel=1e-9)
    assert (found.value, found.degrees) == pytest.approx((rates.mean(), count - 1))


def test_error_of_a_ratio_is_the_spread_of_leaving_one_out():
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(7, 1.5, size=9)
    amounts = sizes * rng.normal(2, 0.3, size=9)
    left_out = [np.delete(amounts, i).sum() / np.delete(sizes, i).sum() for i in range(9)]
    expected = math.sqrt(8 / 9 * sum((one - amounts.sum() / sizes.sum()) ** 2 for one in left_out))
    assert s.ratio_of_sums(amounts, sizes).stderr == pytest.approx(expected)
    assert s.ratio_of_sums(amounts, 8 * sizes).stderr == pytest.approx(expected / 8)


@pytest.mark.parametrize("sizes", [[5], [5, 0], [1000, 1, 1]])
def test_text_that_is_nearly_all_one_document_proves_nothing(sizes):
    amounts = np.arange(1.0, len(sizes) + 1)
    found = s.ratio_of_sums(amounts, sizes)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.value == pytest.approx(amounts.sum() / sum(sizes))
    assert s.paired_difference(amounts, 0 * amounts, sizes=sizes).p_value == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_mcnemar_is_the_exact_test_of_the_items_on_which_two_models_differ(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 60)) < np.array([[0.5 + seed / 20], [0.5]])
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert s.mcnemar(a, b) == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert s.mcnemar(a, b) == s.mcnemar(b, a)
    assert s.mcnemar(a, a) == 1


def test_of_questions_on_shared_passages_the_passages_are_what_is_drawn():
    """400 ablations of nothing: 40 passages with 5 questions each, on which a model does well or badly as a whole."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(40), 5)
    false = dict.fromkeys(("clustered", "as if apart"), 0)
    for _ in range(400):
        rates = np.clip(0.5 + rng.normal(0, 0.3, size=(2, 40)), 0, 1).repeat(5, axis=1)
        a, b = (rng.random(rates.shape) < rates).astype(float)
        false["clustered"] += s.paired_difference(a, b, clusters=clusters).p_value < 0.05
        false["as if apart"] += s.paired_difference(a, b).p_value < 0.05
    assert false["clustered"] / 400 < 0.08
    assert false["as if apart"] / 400 > 0.12


def test_clusters_of_one_item_change_nothing_and_equal_clusters_are_students_test_of_their_means():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 60))
    alone = s.paired_difference(a, b)
    own = s.paired_difference(a, b, clusters=np.arange(60)[::-1] * 7)
    assert vars(own) == pytest.approx(vars(alone))
    found = s.paired_difference(a, b, clusters=np.repeat(np.arange(20), 3))
    expected = stats.ttest_rel(a.reshape(20, 3).mean(axis=1), b.reshape(20, 3).mean(axis=1))
    assert (found.value, found.p_value) == pytest.approx((a.mean() - b.mean(), expected.pvalue))


def test_nothing_has_no_ratio():
    for amounts, sizes in ([[], []], [[1.0], [0.0]], [[1.0], [1.0, 2.0]]):
        with pytest.raises(ValueError, match="size above 0"):
            s.ratio_of_sums(amounts, sizes)


def test_difference_per_size_is_a_ratio_and_one_that_never_varies_is_certain():
    sizes = np.array([100.0, 900.0, 500.0, 400.0])
    a, b = 2.1 * sizes + [3, -50, 20, 1], 2.0 * sizes
    found, ratio = s.paired_difference(a, b, sizes=sizes), s.ratio_of_sums(a - b, sizes)
    assert (found.value, found.low, found.high) == (ratio.value, ratio.low, ratio.high)
    for level in (0.5, 0.99):
        within = s.paired_difference(a, b, sizes=sizes, confidence=level)
        assert (within.low > 0 or within.high < 0) == (found.p_value < 1 - level)
    certain = s.paired_difference(1.9 * sizes, b, sizes=sizes)
    assert (certain.value, certain.low, certain.p_value) == (pytest.approx(-0.1), certain.high, 0.0)


def documents(rng, count, spread):
    """Sizes, and bits of a model whose noise is partly a document's own and partly that of its tokens, 2 bits a byte in truth."""
    sizes = np.round(rng.lognormal(7, spread, size=count)) + 1
    rates = 2 + 0.2 * rng.normal(size=count) + 0.3 * rng.normal(size=count) * np.sqrt(1000 / sizes)
    return sizes * rates, sizes


@pytest.mark.parametrize("spread", [1.0, 1.5])
@pytest.mark.parametrize("count", [7, 13, 15, 100])
def test_interval_of_bits_per_byte_covers_the_truth_as_often_as_it_says(count, spread):
    draws = 2500
    rng = np.random.default_rng([count, int(10 * spread)])
    found = [s.ratio_of_sums(*documents(rng, count, spread)) for _ in range(draws)]
    coverage = np.mean([one.low <= 2 <= one.high for one in found])
    # Four binomial deviations below what is said, or three points above: few documents of unequal size cost width.
    assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / draws) < coverage < 0.98


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


def test_binary_scores_of_nothing_are_zero_with_the_widest_interval():
    f1 = s.binary_scores([], []).f1
    assert (f1.value, f1.low, f1.high, f1.count) == (0, 0, 1, 0)


def test_the_interval_of_f1_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1500):
        truth = rng.random(120) < 0.3
        guess = np.where(rng.random(120) < 0.8, truth, ~truth)
        f1 = s.binary_scores(guess, truth).f1
        covered += f1.low <= 2 * 0.24 / (0.24 + 0.14 + 0.3) <= f1.high
    assert 0.93 < covered / 1500 < 0.975


def test_no_hits_are_not_certainty():
    f1 = s.binary_scores([1] * 5 + [0] * 15, [0] * 15 + [1] * 5).f1
    assert f1.value == f1.low == 0
    assert f1.high > 0.3


def test_only_an_interval_wholly_above_chance_is_above_chance():
    assert s.at_or_below_chance((0.2, 0.3), 0.25)
    assert s.at_or_below_chance((0.25, 0.3), 0.25)
    assert s.at_or_below_chance((0.1, 0.2), 0.25)
    assert not s.at_or_below_chance((0.26, 0.3), 0.25)
    assert not s.at_or_below_chance((0.0, 1.0), None)
