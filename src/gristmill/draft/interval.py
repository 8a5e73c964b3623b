"""From what was read to all of it: estimates of unique tokens with their 95 % intervals.

    documents, tokens of a distinct one      ratio estimator over units: documents per byte read × bytes on disk (Cochran, Sampling
                                             Techniques, 1977, chapter 6), with the correction for a finite population
    copies that cross units                  a pair is seen only when both units are, so what was seen is far too few. Distinct
                                             texts are estimated as species are: by how many were met in one unit, in two, in
                                             more (distinct.py)

    unique tokens = (documents - copies) × tokens of a distinct document

Units are drawn again and again with replacement (the bootstrap), widened to Student's t; the numbers of texts met twice and more
are drawn from gamma distributions. So the interval of the product needs no formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from gristmill.draft.distinct import Draws, at_least, most_likely
from gristmill.units import scale

DRAWS = 2_000
VOCABULARY_ERROR = (
    0.02  # relative: the tokenizer of a sample cuts other text a little differently than that of all would
)
ONE_UNIT_ERROR = 0.5  # relative: one unit tells nothing of the others
LEVEL = (0.025, 0.975)
NORMAL = 1.96  # the quantile of the normal distribution at that level


@dataclass(frozen=True, kw_only=True)
class UnitTally:
    """A unit that was read, or a block of a large piece. left: documents and tokens that are no copies; lost: documents that are
    copies of text in another unit that was drawn by chance."""

    read_bytes: float
    left_documents: int
    left_tokens: float
    lost_documents: int


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Units of one kind of a source. share: of them, read; num_bytes: of all of them, on disk."""

    units: tuple[UnitTally, ...]
    share: float
    num_bytes: float


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What was read of a source: in units drawn by chance, and in large pieces, the same share of each.

    met_in_several: texts that were met in 2 units, in 3, and so on.
    """

    strata: tuple[Stratum, ...]
    met_in_several: tuple[int, ...]
    is_whole: bool

    @property
    def is_counted(self) -> bool:
        """Whether all of it was read, and none of it met again in text of which more may lie unread: no copies are left to find."""
        return self.is_whole and not self.total("lost_documents")

    def total(self, what: str) -> float:
        """A figure of all units."""
        return float(sum(getattr(unit, what) for stratum in self.strata for unit in stratum.units))


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

    def __str__(self) -> str:
        """For people: a count in full, an estimate with its interval."""
        if self.is_counted:
            return f"{self.value:,.0f}"
        value, low, high = (scale(round(size)) for size in (self.value, self.low, self.high))
        return f"≈ {value} ({low}-{high})"


def unique_tokens(tallies: Mapping[str, Tally], *, seed: int) -> dict[str, Estimate]:
    """Tokens of each source when copies are gone, before the split."""
    if all(tally.is_whole for tally in tallies.values()):
        return {name: _counted(tally.total("left_tokens")) for name, tally in tallies.items()}
    rng = np.random.default_rng(seed)
    sums = {
        name: np.sum([_totals(stratum, rng) for stratum in tally.strata], axis=0) for name, tally in tallies.items()
    }
    documents = {name: total[0] for name, total in sums.items()}
    fewest, most = _copies(tallies, np.sum([*documents.values()], axis=0), rng)
    shares = _shares_of_copies(tallies, {name: float(total[0]) for name, total in documents.items()})
    found = {}
    for name, (all_documents, left_documents, left_tokens) in sums.items():
        size = left_tokens / np.maximum(left_documents, 1e-9)
        vocabulary = np.concatenate([[1.0], 1 + VOCABULARY_ERROR * rng.standard_normal(DRAWS)])
        least, likely = (
            np.maximum(all_documents - shares[name] * copies, 0.0) * size * vocabulary for copies in (most, fewest)
        )
        middle = float(likely[0])
        low, high = float(np.quantile(least[1:], LEVEL[0])), float(np.quantile(likely[1:], LEVEL[1]))
        found[name] = Estimate(value=middle, low=min(low, middle), high=max(high, middle))
    return found


def _counted(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value)


def _totals(stratum: Stratum, rng: np.random.Generator) -> Draws:
    """(3, 1 + DRAWS) totals over the stratum by the ratio estimator, the first column: documents, before copies that cross units
    go; documents and tokens that are left."""
    rows = np.array(
        [(unit.left_documents + unit.lost_documents, unit.left_documents, unit.left_tokens) for unit in stratum.units]
    ).T
    read = np.array([unit.read_bytes for unit in stratum.units])
    count = len(read)
    middle = rows.sum(axis=1, keepdims=True) * stratum.num_bytes / read.sum()
    if stratum.share >= 1:
        return np.repeat(rows.sum(axis=1, keepdims=True), 1 + DRAWS, axis=1)
    if count == 1:
        noise = 1 + ONE_UNIT_ERROR * rng.standard_normal(DRAWS)
        return np.concatenate([middle, np.maximum(middle * noise, 0.0)], axis=1)
    times = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).T
    drawn = rows @ times * stratum.num_bytes / (read @ times)
    width = np.sqrt((1 - stratum.share) * count / (count - 1)) * student.ppf(LEVEL[1], count - 1) / NORMAL
    return np.concatenate([middle, np.maximum(middle + width * (drawn - middle), 0.0)], axis=1)


def _copies(tallies: Mapping[str, Tally], documents: Draws, rng: np.random.Generator) -> tuple[Draws, Draws]:
    """(1 + DRAWS,) documents of all that are copies across units: as many as is likely, and at most; the first are the estimates."""
    left = sum(tally.total("left_documents") for tally in tallies.values())
    seen = left + sum(tally.total("lost_documents") for tally in tallies.values())
    units = sum(len(stratum.units) for tally in tallies.values() for stratum in tally.strata)
    several = np.sum([tally.met_in_several for tally in tallies.values()], axis=0, dtype=float)
    first = several + np.where(np.arange(len(several)) == 0, 0.5, 0.0)
    several_TD = np.column_stack([several, rng.gamma(first, size=(DRAWS, len(several))).T])
    in_units = np.arange(2, 2 + len(several))
    more_D = in_units @ (several_TD - several[:, None])  # one more pair is two less that were met once
    once_D = np.maximum(left - several.sum() - more_D, 0.0)
    met_TD = np.concatenate([once_D[None], several_TD])
    share_D = np.clip(seen / np.maximum(documents, 1.0), 1e-9, 1 - 1e-9)
    likely = most_likely(met_TD, float(share_D[0])) * documents / max(1.0, documents[0])
    least = at_least(met_TD, share_D, units=units)
    return np.maximum(documents - likely, 0.0), np.maximum(documents - least, 0.0)


def _shares_of_copies(tallies: Mapping[str, Tally], documents: Mapping[str, float]) -> dict[str, float]:
    """Source → its share of the copies: as in what was read, or by its documents where there were none. One that was counted has
    none."""
    lost = {name: tally.total("lost_documents") for name, tally in tallies.items()}
    unsure = {name: 0.0 if tallies[name].is_counted else number for name, number in documents.items()}
    basis = lost if sum(lost.values()) else unsure
    return {name: basis[name] / max(1e-9, sum(basis.values())) for name in tallies}
