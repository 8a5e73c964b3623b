"""Error bars and tests: intervals, paired differences, agreement, F1, what a sample could have shown.

Every score that gristmill prints carries an interval from here. Only numpy and the standard library are used; a test
holds each function against scipy or a worked example. Intervals are two-sided; `confidence` is 0.95 unless told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class Interval(NamedTuple):
    """A closed interval; low <= high."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval and the number of items it rests on."""

    value: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Mean of a - b over the same items, with Student-t interval and two-sided p-value."""

    mean: float
    stderr: float
    low: float
    high: float
    p_value: float
    count: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class BinaryScores:
    """How well a yes/no rule agrees with labels, on `count` items of which `positives` are labelled yes."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    count: int
    positives: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[FloatArray], float] = lambda rows: float(np.mean(rows)),
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap over the first axis of `values`; the same seed gives the same interval.

    The statistic must be defined on every resample with repeats (a single item gives a point).
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.shape[0] == 0:
        raise ValueError("cannot resample no values")
    rng = np.random.default_rng(seed)
    drawn = [statistic(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(resamples)]
    return _percentiles(np.asarray(drawn), confidence)


def paired_difference(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> PairedDifference:
    """Is a better than b on the same items? Student-t on the differences.

    One pair proves nothing: the interval is then the whole line and p is 1. When all differences are equal the
    interval is a point and p is 0, or 1 if they are zero.
    """
    a_N, b_N = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a_N.shape != b_N.shape or a_N.ndim != 1:
        raise ValueError(f"paired scores must be two equally long lists, got shapes {a_N.shape} and {b_N.shape}")
    mean, stderr = mean_stderr(a_N - b_N)
    count = len(a_N)
    if count == 1:
        return PairedDifference(mean=mean, stderr=stderr, low=-math.inf, high=math.inf, p_value=1.0, count=1)
    # Equal differences leave a spread of rounding errors; it must not be read as evidence either way.
    if stderr <= 1e-13 * float(np.abs(a_N - b_N).max(initial=0.0)):
        return PairedDifference(
            mean=mean, stderr=0.0, low=mean, high=mean, p_value=1.0 if mean == 0 else 0.0, count=count
        )
    half = student_t_quantile(0.5 + confidence / 2, count - 1) * stderr
    p_value = min(1.0, 2 * student_t_cdf(-abs(mean / stderr), count - 1))
    return PairedDifference(mean=mean, stderr=stderr, low=mean - half, high=mean + half, p_value=p_value, count=count)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value that a and b are right equally often, from the items that only one of them got right."""
    n = only_a + only_b
    if n == 0:
        return 1.0
    log_terms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(min(only_a, only_b) + 1)
    ]
    tail = sum(math.exp(term - n * math.log(2)) for term in log_terms)
    return min(1.0, 2 * tail)


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


def precision_score(predicted: ArrayLike, actual: ArrayLike) -> Estimate:
    """Share of the predicted that is right; see binary_scores."""
    return binary_scores(predicted, actual).precision


def recall_score(predicted: ArrayLike, actual: ArrayLike) -> Estimate:
    """Share of the positives that is found; see binary_scores."""
    return binary_scores(predicted, actual).recall


def f1_score(predicted: ArrayLike, actual: ArrayLike) -> Estimate:
    """Harmonic mean of precision and recall; see binary_scores."""
    return binary_scores(predicted, actual).f1


def smallest_detectable_difference(stderr: float, *, level: float = 0.05, power: float = 0.8) -> float:
    """The true difference that a two-sided test at this level would find with this probability, given its error."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)) * stderr


def contains_chance(interval: tuple[float, float], chance: float | None) -> bool:
    """True when the score cannot be told from guessing. A task without a chance level is never at chance."""
    return chance is not None and interval[0] <= chance <= interval[1]


def student_t_cdf(t: float, degrees: float) -> float:
    """P(T <= t) of Student's distribution, by the incomplete beta function."""
    if abs(t) < 1:  # near the middle the tail would be the difference of almost equal numbers
        half = 0.5 * _incomplete_beta(0.5, degrees / 2, t * t / (degrees + t * t))
        return 0.5 + math.copysign(half, t)
    tail = 0.5 * _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))
    return 1 - tail if t > 0 else tail


def student_t_quantile(probability: float, degrees: float) -> float:
    """The t with P(T <= t) = probability, by bisection to the last bits."""
    if probability < 0.5:
        return -student_t_quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while student_t_cdf(high, degrees) < probability and high < 1e12:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta by its continued fraction (Abramowitz and Stegun 26.5.8), evaluated from below."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tail = 1.0
    for m in range(300, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        tail = 1 + odd / (1 + even / tail)
    return front / tail


def _kappa(table: NDArray[np.int64], weights: FloatArray) -> float:
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    chance = float((weights * expected).sum())
    return 1.0 if chance == 0 else 1 - float((weights * table).sum()) / chance


def _percentiles(drawn: FloatArray, confidence: float) -> Interval:
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(low), float(high))
