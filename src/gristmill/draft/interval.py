"""From what was read to all of it: estimates of unique tokens with their 95 % intervals.

    tokens before copies that cross units    ratio estimator over units: tokens per byte read × bytes on disk (Cochran, Sampling
                                             Techniques, 1977, chapter 6), with the correction for a finite population; large
                                             pieces apart, of each of which the same share is read
    copies that cross units                  a pair is seen only when both units are, so what was seen is far too few. Distinct
                                             text is estimated as species are: by what was met in one unit and in two (Chao and
                                             Lin 2012, Biometrics 68: 912, sampling without replacement)

Both are drawn from their distributions at once, Student's t for the ratio and a gamma for the number of texts met twice, so the
interval of the product needs no formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 4_000
VOCABULARY_ERROR = (
    0.02  # relative: the tokenizer of a sample cuts other text a little differently than that of all would
)
LEVEL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class UnitTally:
    """A unit that was read. left, lost: tokens that are no copies, and that are copies of text in another unit."""

    is_large: bool
    read_bytes: float
    documents: int
    left: float
    lost: float


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What was read of a source. small_bytes, large_bytes: on disk, in units and in large pieces; num_units: all small ones.

    in_two_units: tokens of each text that was met in exactly two units; in_several_units: of all met in more than one.
    """

    units: tuple[UnitTally, ...]
    num_units: int
    small_bytes: float
    large_bytes: float
    in_two_units: tuple[float, ...]
    in_several_units: float
    is_whole: bool


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval; all three are the same where it was counted."""

    value: float
    low: float
    high: float

    @property
    def is_counted(self) -> bool:
        """Whether there is no interval."""
        return self.low == self.high


@dataclass(frozen=True, kw_only=True)
class _Total:
    """A total over a source with its standard error and degrees of freedom."""

    value: float
    error: float
    freedom: int

    def draws(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Values it may have."""
        noise = rng.standard_t(max(1, self.freedom), DRAWS) if self.error else np.zeros(DRAWS)
        return np.maximum(self.value + self.error * noise, 0.0)


def unique_tokens(tallies: Mapping[str, Tally], *, seed: int) -> dict[str, Estimate]:
    """Tokens of each source when copies are gone, before the split."""
    if all(tally.is_whole for tally in tallies.values()):
        return {name: _counted(sum(unit.left for unit in tally.units)) for name, tally in tallies.items()}
    rng = np.random.default_rng(seed)
    totals = {name: _gross(tally) for name, tally in tallies.items()}
    gross = {name: np.sum([total.draws(rng) for total in own], axis=0) for name, own in totals.items()}
    value = {name: sum(total.value for total in own) for name, own in totals.items()}
    lost = _lost_share(tallies, np.array(sum(value.values())), None)
    lost_draws = _lost_share(tallies, np.sum([*gross.values()], axis=0), rng)
    weights = _weights(tallies, value)
    estimates = {}
    for name, tally in tallies.items():
        if tally.is_whole and len(tallies) == 1:
            estimates[name] = _counted(sum(unit.left for unit in tally.units))
            continue
        noise = 1 + VOCABULARY_ERROR * rng.standard_normal(DRAWS)
        draws = gross[name] * np.clip(1 - lost_draws * weights[name], 0.0, 1.0) * noise
        low, high = np.quantile(draws, LEVEL)
        middle = value[name] * max(0.0, 1 - float(lost) * weights[name])
        estimates[name] = Estimate(value=middle, low=min(float(low), middle), high=max(float(high), middle))
    return estimates


def _counted(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value)


def _gross(tally: Tally) -> list[_Total]:
    """Totals of small units and of large pieces: tokens that are left, or lost to copies in other units."""
    small = [unit for unit in tally.units if not unit.is_large]
    large = [unit for unit in tally.units if unit.is_large]
    return [
        ratio_total(
            [unit.left + unit.lost for unit in units], [unit.read_bytes for unit in units], num_bytes, population
        )
        for units, num_bytes, population in (
            (small, tally.small_bytes, tally.num_units),
            (large, tally.large_bytes, None),
        )
        if units
    ]


def ratio_total(
    tokens: Sequence[float], read_bytes: Sequence[float], all_bytes: float, population: int | None
) -> _Total:
    """The total of tokens over `all_bytes` by the ratio estimator. population: units in all; None where units are parts of pieces."""
    y, b = np.asarray(tokens, dtype=np.float64), np.asarray(read_bytes, dtype=np.float64)
    count = len(y)
    share = min(1.0, float(b.sum()) / all_bytes) if population is None else count / population
    if share >= 1:
        return _Total(value=float(y.sum()), error=0.0, freedom=1)
    ratio = float(y.sum() / b.sum())
    value = ratio * all_bytes
    if count < 2:
        return _Total(value=value, error=0.5 * value, freedom=3)  # one unit tells nothing of the others
    residual = y - ratio * b
    variance = (all_bytes / b.sum()) ** 2 * count * (1 - share) * float(residual @ residual) / (count - 1)
    return _Total(value=value, error=float(np.sqrt(variance)), freedom=count - 1)


def _lost_share(
    tallies: Mapping[str, Tally], gross: NDArray[np.float64], rng: np.random.Generator | None
) -> NDArray[np.float64]:
    """Share of all tokens that copies across units take; drawn where there is a generator."""
    left = sum(unit.left for tally in tallies.values() for unit in tally.units)
    seen = left + sum(unit.lost for tally in tallies.values() for unit in tally.units)
    documents = sum(unit.documents for tally in tallies.values() for unit in tally.units)
    units = sum(len(tally.units) for tally in tallies.values())
    twice = [size for tally in tallies.values() for size in tally.in_two_units]
    once = left - sum(tally.in_several_units for tally in tallies.values())
    each = float(np.mean(twice)) if twice else seen / max(1, documents)
    number: NDArray[np.float64] | float = len(twice) if rng is None else rng.gamma(len(twice) + 0.5, size=DRAWS)
    share = np.clip(seen / np.maximum(gross, 1.0), 1e-9, 1 - 1e-9)
    unseen = once**2 / (2 * each * np.asarray(number) * units / max(1, units - 1) + share / (1 - share) * once + 1e-9)
    lost: NDArray[np.float64] = np.clip(1 - (left + unseen) / np.maximum(gross, 1.0), 0.0, 1.0)
    return lost


def _weights(tallies: Mapping[str, Tally], gross: Mapping[str, float]) -> dict[str, float]:
    """By how much the lost share of each source is larger than that of all."""
    lost = {name: sum(unit.lost for unit in tally.units) for name, tally in tallies.items()}
    all_lost, all_gross = sum(lost.values()), sum(gross.values())
    if not all_lost:
        return dict.fromkeys(tallies, 1.0)
    return {name: lost[name] / all_lost / max(1e-9, gross[name] / all_gross) for name in tallies}
