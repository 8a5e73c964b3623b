"""How many distinct texts all units hold, by how many were met in one unit of a sample, in two, in three.

    most likely     a text lies in 1, 2, 3, 4, 6 ... units, and a unit is read with the chance of its share. How many texts lie in
                    how many units is what makes the counts most likely, found by expectation and maximisation (a mixture of
                    binomials: Böhning and Schön 2005, Journal of the Royal Statistical Society C 54: 721)
    at least        by what was met in one unit and in two (Chao and Lin 2012, Biometrics 68: 912): exact where all texts have as
                    many copies, too low where some have many and others none

So an interval begins at the low end of the second and ends at the high end of the first.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

MOST_MET = 6  # units; what was met in more counts as met in so many
LIES_IN = np.unique(np.round(np.geomspace(1, 200, 16)))  # units
FALLS_BY = 2.0  # the power of their number, by which texts are fewer before anything is counted
ROUNDS = 100

Draws = NDArray[np.float64]


def met_in_several(units: Iterable[int]) -> tuple[int, ...]:
    """Texts that were met in 2, 3 ... MOST_MET units, of the number of units of each text."""
    counts = np.bincount([min(number, MOST_MET) for number in units] or [0], minlength=MOST_MET + 1)
    return tuple(counts[2:].tolist())


def at_least(met_TD: Draws, share_D: Draws, *, units: int) -> Draws:
    """(draws,) distinct texts. met_TD: (MOST_MET, draws) those met in 1, 2 ... units. units: that were read."""
    once_D, twice_D = met_TD[:2]
    unseen_D = once_D**2 / (2 * twice_D * units / max(1, units - 1) + share_D / (1 - share_D) * once_D + 1e-9)
    found: Draws = met_TD.sum(axis=0) + unseen_D
    return found


def most_likely(met_TD: Draws, share: float) -> Draws:
    """(draws,) distinct texts. met_TD as above."""
    chance_TL = binom.pmf(np.arange(1, MOST_MET)[:, None], LIES_IN, share)
    seen_L = 1 - (1 - share) ** LIES_IN
    chance_TL = np.vstack([chance_TL, np.maximum(seen_L - chance_TL.sum(axis=0), 0.0)])
    texts_LD = np.outer(LIES_IN**-FALLS_BY / seen_L, met_TD.sum(axis=0))
    for _ in range(ROUNDS):
        texts_LD *= chance_TL.T @ (met_TD / (chance_TL @ texts_LD + 1e-12)) / seen_L[:, None]
    found: Draws = texts_LD.sum(axis=0)
    return found
