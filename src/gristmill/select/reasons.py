"""Why documents are dropped: one reason each, with the value against the limit, and the survivor, the held-out text or the span."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.data.ledger import rejected_row
from gristmill.select.candidates import DUPLICATE_ID, HELD_OUT, LOW_SCORE, Candidates
from gristmill.select.decontaminate import Match
from gristmill.select.in_memory import Duplicates
from gristmill.select.levels import Split
from gristmill.select.rules import MIN_CONTAINMENT, DuplicateRules


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why one document is dropped: the measured value, what the rule allows, and the survivor or the span."""

    reason: str
    value: float | None = None
    limit: float | None = None
    duplicate_of: str | None = None
    detail: str = ""

    def row(self, document: Mapping[str, Any], *, step: str) -> dict[str, Any]:
        """A row of rejected.parquet."""
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


def reasons(
    candidates: Candidates,
    above: Mapping[str, float],
    duplicates: Duplicates,
    rules: DuplicateRules,
    matches: Mapping[int, Match],
    *,
    ngram: int,
) -> dict[int, Rejection]:
    """Every dropped document with its first reason."""
    columns, passed = candidates.columns, candidates.passed
    found: dict[int, Rejection] = {}
    for d in np.flatnonzero(columns.fate_D == HELD_OUT).tolist():
        found[d] = Rejection(reason="held_out_item", detail="an evaluation item was cut from this document")
    for d in np.flatnonzero(columns.fate_D == LOW_SCORE).tolist():
        limit = above[candidates.sources[d]]
        found[d] = Rejection(reason="score_too_low", value=float(columns.score_D[d]), limit=limit)
    for d in np.flatnonzero(columns.fate_D == DUPLICATE_ID).tolist():
        found[d] = Rejection(reason="duplicate_id", detail="an earlier document of this source has this id")
    for copy in duplicates.copies.values():
        survivor = int(passed[copy.survivor])
        contained = not copy.exact and copy.jaccard < rules.min_jaccard
        value, limit = (copy.containment, MIN_CONTAINMENT) if contained else (copy.jaccard, rules.min_jaccard)
        near = f", Jaccard {copy.jaccard:.3f}, {copy.containment:.3f} of its n-grams occur there"
        found[int(passed[copy.document])] = Rejection(
            reason="exact_duplicate" if copy.exact else "contained_in_longer" if contained else "near_duplicate",
            value=None if copy.exact else value,
            limit=None if copy.exact else limit,
            duplicate_of=columns.ids[survivor],
            detail=f"survivor in source {candidates.sources[survivor]}{'' if copy.exact else near}",
        )
    for d, match in matches.items():
        limit_words = None if match.rule == "short_item" else float(ngram)
        found[d] = Rejection(reason="contaminated", value=float(match.words), limit=limit_words, detail=match.detail)
    return found


def reasons_of_resembling(candidates: Candidates, split: Split, rules: DuplicateRules) -> dict[int, Rejection]:
    """Documents of late sources dropped because validation text resembles them, with that text's document."""
    passed = candidates.passed
    found: dict[int, Rejection] = {}
    for place, one in split.resembling.items():
        held = int(passed[one.held])
        value, limit, how = None, None, "through other documents of its cluster"
        if one.jaccard is not None and one.containment is not None:
            contained = one.jaccard < rules.min_jaccard
            value, limit = (one.containment, MIN_CONTAINMENT) if contained else (one.jaccard, rules.min_jaccard)
            how = f"Jaccard {one.jaccard:.3f}, {one.containment:.3f} of the n-grams of one occur in the other"
        found[int(passed[place])] = Rejection(
            reason="copy_of_held_out",
            value=value,
            limit=limit,
            duplicate_of=candidates.columns.ids[held],
            detail=f"validation text of source {candidates.sources[held]}, {how}",
        )
    return found
