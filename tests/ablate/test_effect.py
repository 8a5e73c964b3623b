"""The error of a difference between arms: right by its parts, and false verdicts no more often than the level says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gristmill.ablate.effect import effect, foreseen_detectable, run_scores, seed_noise
from gristmill.ablate.outcome import DECIDED, Measured, measured_of, outcome_of
from gristmill.statistics import holm

Array = np.ndarray


def ablation(
    rng: np.random.Generator,
    *,
    arms: int = 4,
    seeds: int = 5,
    items: int = 300,
    seed_sd: float = 0.02,
    item_sd: float = 0.05,
    shift: float = 0.0,
    text_sd: float = 0.0,
    per_text: int = 1,
) -> tuple[Array, Array]:
    """Bits of documents in `arms` × `seeds` runs. Documents differ in length (log-normal) and in how hard they are; a seed moves all
    arms alike, a run moves by `seed_sd` bits per byte, a document in a run by `item_sd` more where it is short. `per_text` documents in a
    row are of one text, which suits one arm and not another by `text_sd`. Arm 1 is `shift` worse."""
    sizes = np.ceil(rng.lognormal(6.0, 0.8, size=items))
    hard = rng.gamma(8.0, 0.25, size=items)
    of_seed = rng.normal(0, seed_sd, size=(1, seeds, 1))
    of_run = rng.normal(0, seed_sd, size=(arms, seeds, 1))
    of_item_and_arm = rng.standard_t(5, size=(arms, 1, items)) * item_sd
    of_item = rng.standard_t(5, size=(arms, seeds, items)) * item_sd
    moved = np.zeros((arms, 1, 1))
    moved[1] = shift
    if text_sd:
        moved = moved + np.repeat(rng.normal(0, text_sd, size=(arms, 1, items // per_text)), per_text, axis=2)
    rates = hard + of_seed + of_run + (of_item_and_arm + of_item) * np.sqrt(400 / sizes) + moved
    return rates * sizes, sizes


def verdicts(scores: Array, sizes: Array) -> list[bool]:
    p_values = [effect(scores, sizes, arm, 0).p_value for arm in range(1, len(scores))]
    return [p < 0.05 for p in holm(p_values)]


@pytest.mark.parametrize(("seeds", "items", "seed_sd"), [(5, 300, 0.02), (5, 40, 0.005), (10, 855, 0.03)])
def test_of_1000_ablations_without_a_better_arm_at_most_one_in_twenty_names_one(
    seeds: int, items: int, seed_sd: float
) -> None:
    """Three arms and a control that differ by nothing but their seeds; a verdict on any of the three is false."""
    rng = np.random.default_rng([7, seeds, items])
    false = sum(any(verdicts(*ablation(rng, seeds=seeds, items=items, seed_sd=seed_sd))) for _ in range(1000))
    assert false / 1000 <= 0.05


@pytest.mark.parametrize(("per_text", "by_documents"), [(5, 0.15), pytest.param(20, 0.4, marks=pytest.mark.slow)])
def test_documents_of_one_text_are_one_draw(per_text: int, by_documents: float) -> None:
    """Three arms that are no better than the control; but a text suits one of them and not another, with all of its documents."""
    rng = np.random.default_rng([17, per_text])
    items = 60 * per_text
    draw_D = np.repeat(np.arange(60), per_text)
    false = {"texts": 0, "documents": 0}
    for _ in range(1000):
        scores, sizes = ablation(rng, items=items, seed_sd=0.005, text_sd=0.05, per_text=per_text)
        runs = [[{"novel": {"amounts": run, "sizes": sizes.tolist()}} for run in arm] for arm in scores]
        for name, draws in (("texts", draw_D), ("documents", None)):
            task = measured_of("novel", runs, metric="bits_per_byte", is_at_chance=False, draw_D=draws)  # type: ignore[arg-type]
            false[name] += any(verdicts(task.scores_ASI, task.sizes_I))
    assert false["texts"] / 1000 <= 0.05
    assert false["documents"] / 1000 > by_documents


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("noise", ["the control is twice as noisy as the arms", "shares of one candidate"])
def test_arms_whose_noise_is_unlike_are_named_little_more_often(noise: str, seeds: int) -> None:
    """By the pooled residual, which is the mean over all pairs of arms, .07 to .14 of these name an arm."""
    rng = np.random.default_rng([9, seeds])
    if noise == "shares of one candidate":  # runs are the more alike the nearer their shares
        shares = np.array([0, 0.4, 0.6, 1.0])
        root = np.linalg.cholesky(1 - 0.5 * np.abs(shares[:, None] - shares))
    else:
        root = np.diag([2.0] + [1.0] * 7)
    sizes = np.full(100, 400.0)
    false = 0
    for _ in range(1000):
        of_run = (root @ rng.normal(0, 0.02, size=(len(root), seeds)))[:, :, None]
        rates = 2 + of_run + rng.normal(0, 0.02, size=(len(root), seeds, 100))
        false += any(verdicts(rates * sizes, sizes))
    assert false / 1000 <= 0.08


def test_who_looks_after_every_seed_and_stops_at_the_first_verdict_is_wrong_as_seldom_as_who_looks_once() -> None:
    """Two arms that are the same, looked at after 5, 6, … 16 seeds."""
    rng = np.random.default_rng(13)
    sizes = np.full(40, 400.0)
    false = 0
    for _ in range(600):
        rates = 2 + rng.normal(0, 0.02, size=(2, 16, 1)) + rng.normal(0, 0.01, size=(2, 16, 40))
        for looks, seeds in enumerate(range(5, 17), start=1):
            task = Measured(
                task="novel",
                metric="bits_per_byte",
                scores_ASI=rates[:, :seeds] * sizes,
                sizes_I=sizes,
                is_at_chance=False,
            )
            [row] = outcome_of(["control", "same"], [task], endpoint="novel", looks=looks).endpoint
            if row.verdict in DECIDED:
                false += 1
                break
    assert false / 600 <= 0.065


def test_a_difference_twice_the_detectable_one_is_found_nearly_always() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(200):
        scores, sizes = ablation(rng)
        size = effect(scores, sizes, 1, 0).detectable(comparisons=3)
        assert size is not None
        found += verdicts(*ablation(rng, shift=2 * size))[0]
    assert found / 200 > 0.97


@pytest.mark.parametrize(("arms", "seeds"), [(2, 6), (4, 5), (8, 5), (4, 10)])
def test_the_difference_that_is_foreseen_is_found_four_times_in_five(arms: int, seeds: int) -> None:
    """Foreseen from the noise that the simulation has, found by the verdicts at Holm's strictest share of the level."""
    rng = np.random.default_rng(5)
    sizes = np.full(200, 500.0)
    shift = foreseen_detectable(
        seed_sd=0.02, item_sd=0.08, num_arms=arms, num_seeds=seeds, effective_items=200.0, comparisons=arms - 1
    )
    assert shift is not None
    found = 0
    for _ in range(600):
        runs = rng.normal(0, 0.02, size=(arms, seeds, 1)) + rng.normal(0, 0.08 / math.sqrt(2), size=(arms, 1, 200))
        runs[1] += shift
        found += effect(runs * sizes, sizes, 1, 0).p_value < 0.05 / (arms - 1)
    assert 0.74 <= found / 600 <= 0.88


def test_without_noise_between_items_it_is_the_paired_t_test_of_two_arms_over_seeds() -> None:
    rng = np.random.default_rng(1)
    runs = rng.normal(2.0, 0.1, size=(2, 6, 1))
    sizes = rng.integers(100, 900, size=50).astype(float)
    found = effect(runs * sizes, sizes, 1, 0)
    expected = stats.ttest_rel(runs[1, :, 0], runs[0, :, 0])
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)


def test_without_noise_between_seeds_it_is_the_paired_t_test_of_the_items() -> None:
    rng = np.random.default_rng(2)
    items = np.repeat(rng.normal(2.0, 0.1, size=(3, 1, 60)), 5, axis=1)
    found = effect(items, np.ones(60), 2, 0)
    expected = stats.ttest_rel(items[2, 0], items[0, 0])
    assert found.seed_stderr == pytest.approx(0, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)


def test_seed_noise_is_the_residual_of_a_two_way_analysis_of_variance() -> None:
    """Against least squares on dummy variables."""
    rng = np.random.default_rng(4)
    runs = rng.normal(size=(4, 5))
    dummies = np.hstack([np.repeat(np.eye(4), 5, axis=0), np.tile(np.eye(5), (4, 1))[:, :-1]])
    _, (residual,), rank, _ = np.linalg.lstsq(dummies, runs.ravel(), rcond=None)
    found = seed_noise(runs[:, :, None], np.ones(1))
    assert found is not None
    assert found.degrees == 20 - rank
    assert found.sd == pytest.approx(math.sqrt(residual / found.degrees), rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), arms=st.integers(2, 5), seeds=st.integers(2, 6), items=st.integers(3, 40))
def test_two_arms_swapped_are_the_same_difference_the_other_way(seed: int, arms: int, seeds: int, items: int) -> None:
    scores, sizes = ablation(np.random.default_rng(seed), arms=arms, seeds=seeds, items=items)
    one, two = effect(scores, sizes, 1, 0), effect(scores, sizes, 0, 1)
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))
    assert one.p_value == pytest.approx(two.p_value)
    means = run_scores(scores, sizes).mean(axis=1)
    assert one.value == pytest.approx(means[1] - means[0])


def test_one_seed_or_a_handful_of_documents_says_nothing() -> None:
    scores, sizes = ablation(np.random.default_rng(0), seeds=1)
    assert effect(scores, sizes, 1, 0).p_value == 1
    assert math.isinf(effect(scores, sizes, 1, 0).high)
    few = effect(*ablation(np.random.default_rng(0), items=12), 1, 0)
    assert not few.is_measurable
    one_book = np.array([1e6, 10.0, 10.0])
    assert not effect(np.random.default_rng(0).normal(size=(2, 5, 3)) * one_book, one_book, 1, 0).is_measurable
    assert effect(*ablation(np.random.default_rng(0)), 1, 0).is_measurable
