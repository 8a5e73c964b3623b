"""Error bars and tests: intervals, paired differences, agreement, F1.

Every score that gristmill prints carries an interval from here; a test holds each function against scipy.stats, a worked
example or a simulation. Intervals are two-sided; `confidence` is 0.95 unless told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, stdtr, stdtrit

from gristmill.written import Estimate

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

FloatArray = NDArray[np.float64]

FEWEST_DEGREES = 0.5  # one and a half effective items; the t quantile is 165 there and runs off to infinity below


class Interval(NamedTuple):
    """A closed interval; low <= high."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A sum over items divided by the sum of their sizes, with standard error, degrees of freedom and Student-t interval.

    `degrees` is what the items are worth, less one: as many as there are where sizes are equal, fewer where they are not.
    """

    value: float
    stderr: float
    degrees: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, kw_only=True)
class PairedDifference(Ratio):
    """How much larger a is than b on the same items, with the two-sided p-value that there is no difference."""

    p_value: float


@dataclass(frozen=True, kw_only=True)
class BinaryScores:
    """How well a yes/no rule agrees with labels, on `count` items of which `positives` are labelled yes."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    count: int
    positives: int


def mean_stderr(values: ArrayLike) -> tuple[float, float]:
    """Mean and standard error (sample deviation over root n). The error of a single value is NaN; none is a ValueError."""
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.size == 0:
        raise ValueError("the mean of no values is undefined")
    if values_N.size == 1:
        return float(values_N[0]), math.nan
    return float(values_N.mean()), float(values_N.std(ddof=1) / math.sqrt(values_N.size))


def normal_quantile(confidence: float) -> float:
    """The z for which a standard normal lies in [-z, z] with this probability (1.96 for 0.95)."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson_interval(successes: float, count: int, *, confidence: float = 0.95) -> Interval:
    """Interval of a proportion (Wilson 1927); honest near 0 and 1. With no items it is (0, 1)."""
    if count == 0:
        return Interval(0.0, 1.0)
    z = normal_quantile(confidence)
    p = successes / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return Interval(min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def proportion(successes: int, count: int, *, confidence: float = 0.95) -> Estimate:
    """A proportion with its Wilson interval; 0 when there are no items."""
    low, high = wilson_interval(successes, count, confidence=confidence)
    return Estimate(value=successes / count if count else 0.0, low=low, high=high, count=count)


def ratio_of_sums(amounts: ArrayLike, sizes: ArrayLike, *, confidence: float = 0.95) -> Ratio:
    """Sum of amounts over sum of sizes (bits per byte of documents), the items being drawn at random.

    Leaving out item i moves the ratio by residual / (total size - size): the error is that of the delete-one jackknife, so
    an item that pulls the ratio towards itself is not trusted to be near it. The t quantile has the degrees of freedom of
    Kish's effective number of items, (sum of sizes)² / sum of squared sizes, less one. Items of equal size give Student's
    interval of a mean exactly. Where one item is nearly all the size there is (FEWEST_DEGREES), nothing is proven and the
    interval is the whole line. Skewed noise, and amounts per size that run with size, still cost coverage:
    `benchmarks/coverage.py` shows how much.
    """
    amounts_N, sizes_N = np.asarray(amounts, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if amounts_N.shape != sizes_N.shape or amounts_N.ndim != 1 or not sizes_N.sum() > 0:
        raise ValueError(
            f"a ratio needs two equally long lists and a size above 0, got shapes {amounts_N.shape} and {sizes_N.shape}, "
            f"sizes that sum to {sizes_N.sum()}"
        )
    total, count = float(sizes_N.sum()), len(sizes_N)
    value = float(amounts_N.sum()) / total
    degrees = effective_number(sizes_N) - 1
    rest_N = total - sizes_N
    stderr, half = math.nan, math.inf
    if rest_N.min() > 0:
        moved_N = (amounts_N - value * sizes_N) / rest_N
        stderr = math.sqrt((count - 1) / count * float((moved_N**2).sum()))
    if degrees >= FEWEST_DEGREES:
        half = float(stdtrit(degrees, 0.5 + confidence / 2)) * stderr
    return Ratio(value=value, stderr=stderr, degrees=degrees, low=value - half, high=value + half, count=count)


def slope(xs: ArrayLike, ys: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Of the line of least squares through at least three points, with Student's interval of n - 2 degrees of freedom.

    It takes the scatter around the line for noise that is independent from point to point.
    """
    xs_N, ys_N = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    around_N = xs_N - xs_N.mean()
    spread = float((around_N**2).sum())
    if xs_N.shape != ys_N.shape or len(xs_N) < 3 or not spread > 0:
        raise ValueError(f"a slope needs three points that differ in x, got {len(xs_N)} and {len(ys_N)} values")
    value = float((around_N * ys_N).sum()) / spread
    degrees = len(xs_N) - 2
    residual_N = ys_N - ys_N.mean() - value * around_N
    half = float(stdtrit(degrees, 0.5 + confidence / 2)) * math.sqrt(float((residual_N**2).sum()) / degrees / spread)
    return Estimate(value=value, low=value - half, high=value + half, count=len(xs_N))


def effective_number(sizes: ArrayLike) -> float:
    """How many items of equal size are worth as much as items of these sizes: (sum of sizes)² / sum of squared sizes (Kish 1965)."""
    sizes_N = np.asarray(sizes, dtype=np.float64)
    return float(sizes_N.sum() ** 2 / (sizes_N**2).sum())


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    sizes: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
) -> PairedDifference:
    """Is a larger than b on the same items? `sizes` are those of the items where a and b are amounts (bits, of bytes); `clusters` number
    the groups of items that are not independent, such as questions on one passage: then a group is what is drawn at random.

    Without sizes and clusters it is Student's paired test. One pair proves nothing: p is 1. When all differences are equal (per size)
    the interval is a point and p is 0, or 1 if they are zero.
    """
    a_N, b_N = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a_N.shape != b_N.shape or a_N.ndim != 1:
        raise ValueError(f"paired scores must be two equally long lists, got shapes {a_N.shape} and {b_N.shape}")
    sizes_N = np.ones_like(a_N) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if clusters is not None:
        a_N, b_N, sizes_N = (sums_by_cluster(values_N, clusters) for values_N in (a_N, b_N, sizes_N))
    found = ratio_of_sums(a_N - b_N, sizes_N, confidence=confidence)
    if math.isinf(found.low):
        return PairedDifference(**asdict(found), p_value=1.0)
    # Equal differences leave a spread of rounding errors; it must not be read as evidence either way.
    rounding = 1e-14 * float((np.abs(a_N) + np.abs(b_N)).sum() / sizes_N.sum())
    if found.stderr <= rounding:
        point = replace(found, stderr=0.0, low=found.value, high=found.value)
        return PairedDifference(**asdict(point), p_value=1.0 if abs(found.value) <= rounding else 0.0)
    p_value = min(1.0, 2 * float(stdtr(found.degrees, -abs(found.value / found.stderr))))
    return PairedDifference(**asdict(found), p_value=p_value)


def sums_by_cluster(values: ArrayLike, clusters: ArrayLike) -> FloatArray:
    """The sum of the values of each cluster, in the order of the clusters' numbers, which need not be consecutive."""
    _, number_N = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(number_N, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """The exact two-sided p-value that two models answer equally often right, by the items on which one is right and the other wrong.

    Of n such items, how many go to a is binomial with one half (McNemar 1947); without any p is 1. Items are independent of each other.
    """
    right_a, right_b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if right_a.shape != right_b.shape or right_a.ndim != 1:
        raise ValueError(f"answers must be two equally long lists, got shapes {right_a.shape} and {right_b.shape}")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    if not only_a + only_b:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def smallest_detectable(
    stderr: float | None, degrees: float, *, power: float = 0.8, confidence: float = 0.95
) -> float | None:
    """The difference that a two-sided test at this standard error finds with this probability, by Student's t with `degrees`.

    None where there is no standard error, or too few degrees of freedom for one (FEWEST_DEGREES).
    """
    if stderr is None or not math.isfinite(stderr) or degrees < FEWEST_DEGREES:
        return None
    return float(stdtrit(degrees, 0.5 + confidence / 2) + stdtrit(degrees, power)) * stderr


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where they are below the wanted level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def cohen_kappa(
    first: ArrayLike, second: ArrayLike, *, quadratic: bool = False, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Agreement of two annotators beyond chance, with a bootstrap interval over the items.

    Labels are integers; `quadratic` weighs a disagreement by its squared distance (for ordered labels).
    1 is full agreement, 0 is chance. Where both only ever use one and the same label, kappa is taken as 1.
    """
    first_N, second_N = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if first_N.shape != second_N.shape or first_N.ndim != 1 or first_N.size == 0:
        raise ValueError(f"kappa needs two equally long, non-empty lists, got {first_N.shape} and {second_N.shape}")
    labels = np.union1d(first_N, second_N)
    distance = (labels[:, None] - labels[None, :]).astype(np.float64)
    weights = distance**2 if quadratic else (distance != 0).astype(np.float64)
    cells = np.searchsorted(labels, first_N) * len(labels) + np.searchsorted(labels, second_N)
    table = np.bincount(cells, minlength=len(labels) ** 2)
    rng = np.random.default_rng(seed)
    tables = rng.multinomial(len(first_N), table / table.sum(), size=resamples)
    drawn = np.array([_kappa(row.reshape(weights.shape), weights) for row in tables])
    low, high = _percentiles(drawn, 0.95)
    return Estimate(value=_kappa(table.reshape(weights.shape), weights), low=low, high=high, count=len(first_N))


def binary_scores(predicted: ArrayLike, actual: ArrayLike) -> BinaryScores:
    """Precision, recall and F1 with Wilson intervals.

    F1 = 2 s / (1 + s), where s is the share of hits among all items that are predicted, positive, or both; its interval
    is that of s, carried over. Precision with nothing predicted, recall with nothing to find, and F1 with neither, are 0.
    """
    yes, truth = np.asarray(predicted, dtype=bool), np.asarray(actual, dtype=bool)
    if yes.shape != truth.shape or yes.ndim != 1:
        raise ValueError(f"predictions and labels must be equally long lists, got {yes.shape} and {truth.shape}")
    hits, predicted_yes, positives = int((yes & truth).sum()), int(yes.sum()), int(truth.sum())
    share = proportion(hits, predicted_yes + positives - hits)
    f1, low, high = (2 * s / (1 + s) for s in (share.value, share.low, share.high))
    return BinaryScores(
        precision=proportion(hits, predicted_yes),
        recall=proportion(hits, positives),
        f1=Estimate(value=f1, low=low, high=high, count=len(yes)),
        count=len(yes),
        positives=positives,
    )


def at_or_below_chance(interval: tuple[float, float], chance: float | None) -> bool:
    """True unless the whole interval lies above the score of guessing. A task without a chance level never is."""
    return chance is not None and interval[0] <= chance


def _kappa(table: NDArray[np.int64], weights: FloatArray) -> float:
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    chance = float((weights * expected).sum())
    return 1.0 if chance == 0 else 1 - float((weights * table).sum()) / chance


def _percentiles(drawn: FloatArray, confidence: float) -> Interval:
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(low), float(high))
