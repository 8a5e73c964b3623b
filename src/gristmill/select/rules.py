"""What counts as a copy, and how far the search for copies goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gristmill.select.signatures import Bands
from gristmill.select.words import WIDENING, Int64

MIN_CONTAINMENT = 0.95
MAX_COMPARISONS = 64  # kept candidates that a document is verified against: those sharing most bands first
MAX_LISTED = 256  # kept documents that one band key leads to: templates would else cost the square of their number


@dataclass(frozen=True, kw_only=True)
class DuplicateRules:
    """How near-duplicates are sought; `min_jaccard` is inclusive, and so is MIN_CONTAINMENT.

    With `remove_near` off, near copies stay but are linked, so that the split keeps them on one side.
    """

    num_bands: int
    rows_per_band: int
    ngram: int
    min_jaccard: float
    remove_near: bool
    max_comparisons: int = MAX_COMPARISONS
    max_listed: int = MAX_LISTED

    @property
    def bands(self) -> Bands:
        """What the prints must have been made with."""
        return Bands(num_bands=self.num_bands, rows_per_band=self.rows_per_band, ngram=self.ngram)

    def same_order(self, shared_P: Int64, size_P: Int64, other_size_P: Int64) -> NDArray[np.bool_]:
        """Of pairs of repetitive documents, whether their wide n-grams agree as far as those of copies do.

        Where changed words leave a share c of the n-grams, they leave c ** WIDENING of those that are WIDENING times as long; two
        texts of one length have c = 2 J / (1 + J). So a limit on n-grams has its counterpart on wide ones.
        """
        left = (2 * self.min_jaccard / (1 + self.min_jaccard)) ** WIDENING
        smaller_P = np.minimum(size_P, other_size_P)
        alike_P = shared_P >= left / (2 - left) * (size_P + other_size_P - shared_P)
        within_P = shared_P >= MIN_CONTAINMENT**WIDENING * smaller_P
        result: NDArray[np.bool_] = alike_P | within_P
        return result
