"""Why documents are dropped: one reason each, with the value against the limit, and the survivor, the held-out text or the span."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.data.ledger import rejected_row
from gristmill.select.decontaminate import Match
from gristmill.select.rules import MIN_CONTAINMENT, DuplicateRules
from gristmill.units import counted


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why one document is dropped: the measured value, what the rule allows, and the survivor or the span."""

    reason: str
    value: float | None = None
    limit: float | None = None
    duplicate_of: str | None = None
    detail: str = ""

    def row(self, document: Mapping[str, Any], *, step: str) -> dict[str, Any]:
        """A row of rejected-NNNNN.parquet."""
        return rejected_row(
            id=document["id"],
            source=document["source"],
            step=step,
            reason=self.reason,
            bytes_in=document["bytes_in"],
            value=self.value,
            limit=self.limit,
            duplicate_of=self.duplicate_of,
            detail=self.detail,
            text=document["text"],
        )


@dataclass(frozen=True, kw_only=True)
class Named:
    """Another document: its id and source."""

    id: str
    source: str


ON_OPT_OUT_LIST = Rejection(reason="opted_out", detail="its URL, its domain or its id is on a list of select.opt_out")
HELD_OUT_ITEM = Rejection(reason="held_out_item", detail="an evaluation item was cut from this document")
SECOND_ID = Rejection(reason="duplicate_id", detail="an earlier document of this source has this id")


def too_low(score: float, *, above: float) -> Rejection:
    """A score that is not above the threshold."""
    return Rejection(reason="score_too_low", value=score, limit=above)


def holds_item(match: Match) -> Rejection:
    """An item of a pack, with its span: how much of the item stands in the document, against what is asked for."""
    return Rejection(reason="contaminated", value=match.share, limit=match.need, detail=match.detail)


def copy_of(
    survivor: Named,
    *,
    exact: bool,
    jaccard: float,
    containment: float,
    rules: DuplicateRules,
    keeper: Named | None = None,
) -> Rejection:
    """A copy of a survivor, with the evidence between the two. keeper: where the survivor is dropped as `only_repeated`, the
    document that keeps most of it; else the survivor is kept."""
    gone = (
        ""
        if keeper is None
        else f"; that one leaves as only_repeated, most of it stands in {keeper.id} of source {keeper.source}"
    )
    if exact:
        return Rejection(
            reason="exact_duplicate", duplicate_of=survivor.id, detail=f"survivor in source {survivor.source}{gone}"
        )
    contained = jaccard < rules.min_jaccard
    value, limit = (containment, MIN_CONTAINMENT) if contained else (jaccard, rules.min_jaccard)
    return Rejection(
        reason="contained_in_longer" if contained else "near_duplicate",
        value=value,
        limit=limit,
        duplicate_of=survivor.id,
        detail=f"survivor in source {survivor.source}, Jaccard {jaccard:.3f}, {containment:.3f} of its n-grams occur there{gone}",
    )


def only_repeated(words: int, *, min_words: int, num_units: int, unit: str, keeper: Named) -> Rejection:
    """A document of which hardly anything is left without what other documents have. keeper: of them, the one that keeps most of it."""
    return Rejection(
        reason="only_repeated",
        value=words,
        limit=min_words,
        duplicate_of=keeper.id,
        detail=f"words left without {counted(num_units, unit)} of other documents, most of them of this one in source {keeper.source}",
    )


def resembles(held: Named, *, jaccard: float, containment: float, is_late: bool, rules: DuplicateRules) -> Rejection:
    """Text that resembles validation text: of a late source, which has to keep away from all that is held out, or of the
    sources that are decided together. NaN where the two only share a cluster."""
    value, limit, how = None, None, "through other documents of its cluster"
    if not math.isnan(jaccard):
        contained = jaccard < rules.min_jaccard
        value, limit = (containment, MIN_CONTAINMENT) if contained else (jaccard, rules.min_jaccard)
        how = f"Jaccard {jaccard:.3f}, {containment:.3f} of the n-grams of one occur in the other"
    return Rejection(
        reason="copy_of_held_out" if is_late else "near_validation",
        value=value,
        limit=limit,
        duplicate_of=held.id,
        detail=f"validation text of source {held.source}, {how}",
    )
