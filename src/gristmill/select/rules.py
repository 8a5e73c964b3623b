"""What counts as a copy, and how far the search for copies goes."""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.select.signatures import Bands

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
