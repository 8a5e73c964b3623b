"""Every two models on the same items: paired differences, Holm-adjusted over all of them, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NotRequired, TypedDict

from gristmill.evaluate.outputs import Comparison, Figure, Verdict
from gristmill.statistics import PairedDifference, holm, mcnemar, paired_difference, sums_by_cluster
from gristmill.train.outputs import BITS

LEVEL = 0.05


class ItemScores(TypedDict):
    """What comparisons pair, in the order of the items: scores of a pack's items, or bits of documents and their bytes.

    clusters: the number of the passage that an item asks about, where several items ask about one.
    """

    amounts: list[float]
    sizes: list[int] | None
    clusters: NotRequired[list[int]]


def compare(scores: Mapping[str, Mapping[str, ItemScores]], results: Sequence[Figure]) -> list[Comparison]:
    """Later against earlier model, for every two, on the same items of every pack and the same held-out documents.

    `scores`: model → task → scores. p-values, McNemar's exact ones where items are right or wrong and independent, are Holm-adjusted over
    all comparisons made here. A task on which both are at or
    below chance decides nothing. Of bits per byte, fewer are better.
    """
    figures = {(found.model, found.task): found for found in results}
    found = [
        (figures[later, task], figures[earlier, task], _paired(scores[later][task], scores[earlier][task]))
        for earlier, later in combinations(scores, 2)
        for task in scores[earlier]
    ]
    adjusted = holm([difference.p_value for *_, difference in found])
    return [
        Comparison(
            a=a.model,
            b=b.model,
            task=a.task,
            metric=a.metric,
            difference=difference.value,
            stderr=difference.stderr if math.isfinite(difference.stderr) else None,
            degrees=difference.degrees,
            interval=(difference.low, difference.high) if math.isfinite(difference.low) else None,
            n=difference.count,
            prompting=(a.prompting, b.prompting),
            p_value=difference.p_value,
            p_adjusted=p_adjusted,
            verdict=_verdict(a, b, difference.value, p_adjusted),
        )
        for (a, b, difference), p_adjusted in zip(found, adjusted, strict=True)
    ]


def _paired(a: ItemScores, b: ItemScores) -> PairedDifference:
    assert a["sizes"] == b["sizes"], "two models were scored on different documents"
    clusters = a.get("clusters")
    found = paired_difference(a["amounts"], b["amounts"], sizes=a["sizes"], clusters=clusters)
    if clusters is not None and not found.stderr:  # the same on every passage: how many there are is what is known
        better = sums_by_cluster(a["amounts"], clusters) - sums_by_cluster(b["amounts"], clusters)
        return replace(found, p_value=mcnemar(better > 0, better < 0))
    if clusters is not None or a["sizes"] is not None or not {*a["amounts"], *b["amounts"]} <= {0.0, 1.0}:
        return found
    return replace(found, p_value=mcnemar(a["amounts"], b["amounts"]))


def _verdict(a: Figure, b: Figure, difference: float, p_adjusted: float) -> Verdict:
    if a.at_or_below_chance and b.at_or_below_chance:
        return "at or below chance, no verdict"
    if p_adjusted >= LEVEL:
        return "no evidence either way"
    return "better" if (difference > 0) == (a.metric != BITS) else "worse"
