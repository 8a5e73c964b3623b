"""What tells two arms of an ablation apart: a difference of scores whose error has both the seeds and the items in it.

    scores_ASI   arm, seed, item: bits of a text, or 0 and 1 of an answer; arms share their seeds and their items
    sizes_I      bytes of a text, or ones

The score of a run is sum of amounts / sum of sizes. A difference of two arms is off for two reasons. Their runs saw their data in one
order of many: the residual of runs less arm and seed means, pooled over all arms, with (arms - 1)(seeds - 1) degrees of freedom, or what
the two arms' own differences over seeds say where that is more. And they were asked these items and no others: the paired jackknife over
items of the means over seeds (`ratio_of_sums`). The variances add up, their degrees of freedom by Satterthwaite (1946). What runs differ in
by item is in both, so the error is rather too large than too small. Items are taken as independent of each other: documents of one text are
one item (draws.py), and so are questions on one passage.

The pooled residual is the mean over all pairs of arms. It is too small for a pair that differs by more than most: a control that is noisier
than the arms, or an arm that is far from it while others are near. Then the pair's own variance counts, with degrees of freedom between its
own and the pooled ones (their geometric mean, found by simulation): false verdicts fall from .13 to .07 there, and where all pairs are alike
power falls from .88 to .74 with five seeds, from .78 to .71 with ten.

Neither part is enough by itself: with items only, runs of one recipe with other seeds differ "significantly"; with seed means only,
three numbers decide. `tests/ablate/test_effect.py` simulates ablations in which no arm is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from gristmill.statistics import FEWEST_DEGREES, ratio_of_sums, smallest_detectable

FloatArray = NDArray[np.float64]

FEWEST_SEEDS = 5
FEWEST_ITEMS = 30.0  # by Kish's effective number


@dataclass(frozen=True, kw_only=True)
class Effect:
    """How much larger the score of one arm is than that of another, with its error; `seed_stderr` and `item_stderr` are its parts.

    degrees: Satterthwaite's. effective_items: Kish's number of the items. A p-value is 1 where nothing can be said.
    """

    value: float
    stderr: float
    degrees: float
    low: float
    high: float
    p_value: float
    seed_stderr: float
    item_stderr: float
    num_seeds: int
    num_items: int
    effective_items: float

    @property
    def is_measurable(self) -> bool:
        """Whether there are seeds and items enough for a verdict."""
        return self.num_seeds >= FEWEST_SEEDS and self.effective_items >= FEWEST_ITEMS

    def detectable(self, *, comparisons: int = 1) -> float | None:
        """The difference that is found four times in five, where so many comparisons share the level by Holm's strictest share of it."""
        return smallest_detectable(self.stderr, self.degrees, confidence=1 - 0.05 / comparisons)


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """The standard deviation of a run's score over seeds, arm and seed means removed; `degrees` are those of its square."""

    sd: float
    degrees: int


def run_scores(scores_ASI: FloatArray, sizes_I: FloatArray) -> FloatArray:
    """(arms, seeds): the score of each run."""
    return np.asarray(scores_ASI.sum(axis=2) / sizes_I.sum())


def seed_noise(scores_ASI: FloatArray, sizes_I: FloatArray) -> SeedNoise | None:
    """Pooled over all arms; None for fewer than two arms or two seeds."""
    runs_AS = run_scores(scores_ASI, sizes_I)
    arms, seeds = runs_AS.shape
    degrees = (arms - 1) * (seeds - 1)
    if not degrees:
        return None
    residual_AS = runs_AS - runs_AS.mean(axis=1, keepdims=True) - runs_AS.mean(axis=0, keepdims=True) + runs_AS.mean()
    return SeedNoise(sd=math.sqrt(float((residual_AS**2).sum()) / degrees), degrees=degrees)


def effect(scores_ASI: FloatArray, sizes_I: FloatArray, arm: int, other: int, *, confidence: float = 0.95) -> Effect:
    """The score of `arm` less that of `other`. Raises ValueError for shapes that do not fit, and for fewer than two arms."""
    if scores_ASI.ndim != 3 or scores_ASI.shape[2:] != sizes_I.shape or scores_ASI.shape[0] < 2:
        raise ValueError(
            f"expected scores of two arms or more by seed and item, and the size of each item; got shapes {scores_ASI.shape} "
            f"and {sizes_I.shape}"
        )
    seeds = scores_ASI.shape[1]
    items = ratio_of_sums(scores_ASI[arm].mean(axis=0) - scores_ASI[other].mean(axis=0), sizes_I)
    noise = seed_noise(scores_ASI, sizes_I)
    known = noise is not None and items.degrees >= FEWEST_DEGREES
    seed_variance, seed_degrees = math.nan, 0.0
    if noise is not None:
        runs_AS = run_scores(scores_ASI, sizes_I)
        pooled, own = 2 * noise.sd**2, float((runs_AS[arm] - runs_AS[other]).var(ddof=1))
        seed_variance = max(pooled, own) / seeds
        seed_degrees = noise.degrees if pooled >= own else math.sqrt(noise.degrees * (seeds - 1))
    variance = seed_variance + items.stderr**2
    stderr, degrees, half, p_value = math.sqrt(variance), 0.0, math.inf, 1.0
    if known and variance > 0:
        degrees = variance**2 / (seed_variance**2 / seed_degrees + items.stderr**4 / items.degrees)
        half = float(stdtrit(degrees, 0.5 + confidence / 2)) * stderr
        p_value = min(1.0, 2 * float(stdtr(degrees, -abs(items.value) / stderr)))
    return Effect(
        value=items.value,
        stderr=stderr,
        degrees=degrees,
        low=items.value - half,
        high=items.value + half,
        p_value=p_value,
        seed_stderr=math.sqrt(seed_variance),
        item_stderr=items.stderr,
        num_seeds=seeds,
        num_items=items.count,
        effective_items=items.degrees + 1,
    )


def foreseen_detectable(
    *, seed_sd: float, item_sd: float, num_arms: int, num_seeds: int, effective_items: float, comparisons: int
) -> float | None:
    """The difference that an ablation would find four times in five, before it is made.

    seed_sd: of a run's score over seeds. item_sd: of an item's difference between two arms, per size. Of the pooled variance of seeds and the
    pair's own, `effect` takes the larger; it is foreseen as their mean and .4 standard deviations of their difference, which is what the larger
    of two normal ones has.
    """
    own_degrees = num_seeds - 1
    pooled_degrees = (num_arms - 1) * own_degrees
    degrees_of_items = effective_items - 1
    if pooled_degrees < 1 or degrees_of_items < FEWEST_DEGREES:
        return None
    larger = 1 + 0.4 * math.sqrt(2 / own_degrees - 2 / pooled_degrees)
    seed_variance, item_variance = larger * 2 * seed_sd**2 / num_seeds, item_sd**2 / effective_items
    degrees_of_seeds = math.sqrt(own_degrees * pooled_degrees)
    variance = seed_variance + item_variance
    if variance == 0:
        return 0.0
    degrees = variance**2 / (seed_variance**2 / degrees_of_seeds + item_variance**2 / degrees_of_items)
    return smallest_detectable(math.sqrt(variance), degrees, confidence=1 - 0.05 / comparisons)
