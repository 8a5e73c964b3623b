"""What each source loses to copies, for a person to look at, and the refusal where one survivor takes too much of one.

Crawls often lose half of their documents, to many survivors: that is reported. One document that stands for most of a source is
hardly ever a copy of it: a footer was read as the text, or all documents share a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gristmill.errors import DataError
from gristmill.select.catalogue import Catalogue, SourceRange, blocks
from gristmill.select.dedup import DuplicateCounts
from gristmill.select.fates import PASSED
from gristmill.select.minhash import SIGNER, chance_found
from gristmill.select.outputs import ChanceFound, CopiesOfOne, CopiesOfSource, DuplicateRule, NearDuplicateReport
from gristmill.select.rules import MAX_COMPARISONS, MIN_CONTAINMENT, DuplicateRules
from gristmill.select.signatures import MAX_SIGNED_CHARS
from gristmill.select.words import Int64

LARGEST_CLUSTERS = 20
EXCERPT_CHARS = 200
NAMED_COPIES = 5
CURVE = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class CopiesFound:
    """The C copies in the order of their documents, 25 bytes each, and how many documents of each source took part."""

    document_C: Int64
    survivor_C: Int64
    exact_C: NDArray[np.bool_]
    jaccard_C: NDArray[np.float64]
    documents: dict[str, int]

    @classmethod
    def read(cls, copies: Path, catalogue: Catalogue, fates: Path) -> CopiesFound:
        """From copies.parquet and fates.npy."""
        columns = {
            name: pq.read_table(copies, columns=[name]).column(0).to_numpy()
            for name in ("document", "survivor", "exact", "jaccard")
        }
        fate_D = np.load(fates, mmap_mode="r")
        passed = {
            source.name: sum(int((fate_D[some] == PASSED).sum()) for some in blocks(source.first, source.end))
            for source in catalogue.sources
        }
        return cls(**{f"{name}_C": values for name, values in columns.items()}, documents=passed)

    def of_source(self, source: SourceRange) -> slice:
        """The copies among one source's documents."""
        first, end = np.searchsorted(self.document_C, [source.first, source.end]).tolist()
        return slice(first, end)


def near_duplicates_report(
    catalogue: Catalogue,
    copies: CopiesFound,
    found: DuplicateCounts,
    rules: DuplicateRules,
    *,
    max_source_loss: float | None,
) -> NearDuplicateReport:
    """The rule with its recall curve, counts, losses per source, and the largest clusters with excerpts."""
    everything = slice(0, len(copies.document_C))
    return NearDuplicateReport(
        rules=DuplicateRule(
            num_bands=rules.num_bands,
            rows_per_band=rules.rows_per_band,
            ngram=rules.ngram,
            min_jaccard=rules.min_jaccard,
            min_containment=MIN_CONTAINMENT,
            removed=rules.remove_near,
            signer=SIGNER,
            signed_characters=MAX_SIGNED_CHARS,
            max_comparisons=MAX_COMPARISONS,
            survivor="by priority of the source, then score, length, id",
        ),
        curve=tuple(ChanceFound(jaccard=j, found=_chance(j, rules)) for j in CURVE),
        documents=found.documents,
        candidate_pairs=found.candidate_pairs,
        compared_pairs=found.compared_pairs,
        refused_pairs=found.refused_pairs,
        documents_with_too_many_candidates=found.capped,
        sources=losses(catalogue, copies, max_source_loss=max_source_loss),
        survivor_source=_survivor_sources(catalogue, copies),
        largest_clusters=tuple(largest_clusters(catalogue, copies, everything, most=LARGEST_CLUSTERS)),
    )


def losses(catalogue: Catalogue, copies: CopiesFound, *, max_source_loss: float | None) -> dict[str, CopiesOfSource]:
    """Per source with documents that took part: what it lost in all, and to the survivor that took most."""
    found: dict[str, CopiesOfSource] = {}
    for source in sorted(catalogue.sources, key=lambda source: source.name):
        mine, total = copies.of_source(source), copies.documents[source.name]
        if not total:
            continue
        lost = mine.stop - mine.start
        exact = int(copies.exact_C[mine].sum())
        taken_by, most = _taker(copies.survivor_C[mine])
        ids = dict(catalogue.ids_of([taken_by] if most else []))
        found[source.name] = CopiesOfSource(
            documents=total,
            exact_copies=exact,
            near_copies=lost - exact,
            lost_share=lost / total,
            largest_share=most / total,
            taken_by=ids.get(taken_by, ""),
            max_source_loss=max_source_loss,
        )
    return found


def check_losses(catalogue: Catalogue, copies: CopiesFound, *, max_source_loss: float) -> None:
    """Raises DataError, with both texts, where one survivor would take a larger share of a source than the limit."""
    for source in catalogue.sources:
        mine, total = copies.of_source(source), copies.documents[source.name]
        _, most = _taker(copies.survivor_C[mine])
        if most <= max_source_loss * total:
            continue
        (cluster,) = largest_clusters(catalogue, copies, mine, most=1)
        raise DataError(
            f"one document, {cluster.survivor!r} of source {cluster.source!r}, would take {most:,} of {total:,} documents "
            f"({most / total:.0%}) of source {source.name!r} as its copies; the limit is {max_source_loss:.0%}.\n"
            f"  It begins: {cluster.excerpt!r}\n"
            f"  The copy that is least like it, {cluster.weakest_copy!r} (Jaccard {cluster.weakest_jaccard:.2f}): "
            f"{cluster.weakest_excerpt!r}\n"
            f"  If this is not the text that was meant, look at sources.{source.name}.read: a field or a part that all documents "
            "share is read as the text. If they only share a template, raise select.near_duplicates.min_jaccard, or drop the "
            "template with a rule. If they are copies, raise select.near_duplicates.max_source_loss."
        )


def largest_clusters(catalogue: Catalogue, copies: CopiesFound, some: slice, *, most: int) -> list[CopiesOfOne]:
    """The survivors with most of some copies: ids, the weakest evidence, and the beginnings of survivor and a copy."""
    survivor_U, counts_U = np.unique(copies.survivor_C[some], return_counts=True)
    ranked = np.lexsort((survivor_U, -counts_U))[:most]
    clusters = [
        (int(survivor_U[u]), np.flatnonzero(copies.survivor_C[some] == survivor_U[u]) + some.start) for u in ranked
    ]
    weakest = {survivor: int(own[np.argmin(copies.jaccard_C[own])]) for survivor, own in clusters}
    shown = [d for survivor, own in clusters for d in (survivor, *copies.document_C[own[:NAMED_COPIES]].tolist())]
    weak = {survivor: int(copies.document_C[c]) for survivor, c in weakest.items()}
    ids = dict(catalogue.ids_of([*shown, *weak.values()]))
    texts = {d: text[:EXCERPT_CHARS] for d, text in catalogue.texts_of([*weak, *weak.values()])}
    return [
        CopiesOfOne(
            removed=len(own),
            survivor=ids[survivor],
            source=catalogue.source_of(survivor),
            excerpt=texts[survivor],
            weakest_jaccard=float(copies.jaccard_C[weakest[survivor]]),
            weakest_copy=ids[weak[survivor]],
            weakest_excerpt=texts[weak[survivor]],
            copies=tuple(ids[d] for d in copies.document_C[own[:NAMED_COPIES]].tolist()),
        )
        for survivor, own in clusters
    ]


def _taker(survivor_C: Int64) -> tuple[int, int]:
    """(the survivor of most of these copies, how many it takes); (-1, 0) without any."""
    if not len(survivor_C):
        return -1, 0
    survivor_U, counts_U = np.unique(survivor_C, return_counts=True)
    best = int(np.argmax(counts_U))
    return int(survivor_U[best]), int(counts_U[best])


def _survivor_sources(catalogue: Catalogue, copies: CopiesFound) -> dict[str, dict[str, int]]:
    """Source of the copy -> source of the survivor -> copies."""
    firsts = [source.first for source in catalogue.sources]
    table: dict[str, dict[str, int]] = {}
    for source in sorted(catalogue.sources, key=lambda source: source.name):
        of = np.searchsorted(firsts, copies.survivor_C[copies.of_source(source)], side="right") - 1
        counts = np.bincount(of, minlength=len(firsts)).tolist()
        row = {other.name: count for other, count in zip(catalogue.sources, counts, strict=True) if count}
        if row:
            table[source.name] = dict(sorted(row.items()))
    return table


def _chance(jaccard: float, rules: DuplicateRules) -> float:
    return round(chance_found(jaccard, num_bands=rules.num_bands, rows_per_band=rules.rows_per_band), 6)
