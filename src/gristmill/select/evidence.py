"""What select leaves for a person to look at: thresholds, near-duplicates with their guard, contamination.

Each function returns the content of one file, or a part of it; nothing is decided here but to stop where a source would lose too much.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from gristmill.errors import DataError
from gristmill.select.candidates import HELD_OUT, LOW_SCORE, Candidates
from gristmill.select.decontaminate import ANSWER_WINDOW, MIN_EXACT_WORDS, Decontaminator, Match
from gristmill.select.in_memory import Copy, Duplicates
from gristmill.select.minhash import SIGNER, chance_found
from gristmill.select.outputs import (
    ChanceFound,
    ContaminationHit,
    ContaminationReport,
    CopiesOfOne,
    CopiesOfSource,
    DuplicateRule,
    NearDuplicateReport,
    OtherThreshold,
    PlantedRecall,
    ThresholdUsed,
)
from gristmill.select.rules import MIN_CONTAINMENT, DuplicateRules
from gristmill.select.signatures import MAX_SIGNED_CHARS
from gristmill.select.words import Int64

LARGEST_CLUSTERS = 20
EXCERPT_CHARS = 200
CURVE = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
MAX_HITS = 200


def thresholds_report(
    candidates: Candidates, above: Mapping[str, float], classifiers: Mapping[str, str]
) -> dict[str, ThresholdUsed]:
    """Per source with a threshold: what it kept, where the scores lie, what other thresholds would have kept."""
    columns, names = candidates.columns, np.asarray(candidates.sources)
    report: dict[str, ThresholdUsed] = {}
    for source, limit in sorted(above.items()):
        mine = (names == source) & (columns.fate_D != HELD_OUT)
        scores, sizes = columns.score_D[mine], columns.num_bytes_D[mine]
        kept = mine & (columns.fate_D != LOW_SCORE)
        cuts = sorted({*np.arange(0.0, 5.0, 0.5).tolist(), limit})
        quantiles = np.quantile(scores, np.linspace(0, 1, 11)).tolist() if len(scores) else []
        report[source] = ThresholdUsed(
            classifier=classifiers[source],
            above=limit,
            documents=int(mine.sum()),
            kept_documents=int(kept.sum()),
            kept_bytes=int(columns.num_bytes_D[kept].sum()),
            score_deciles=tuple(quantiles),
            other_thresholds=tuple(
                OtherThreshold(above=cut, documents=int((scores > cut).sum()), bytes=int(sizes[scores > cut].sum()))
                for cut in cuts
            ),
        )
    return report


def near_duplicates_report(
    candidates: Candidates, found: Duplicates, rules: DuplicateRules, *, max_source_loss: float | None
) -> NearDuplicateReport:
    """The rule with its recall curve, counts, losses per source, and the largest clusters with excerpts."""
    passed = candidates.passed
    copies = list(found.copies.values())
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
            max_comparisons=rules.max_comparisons,
            survivor="by priority of the source, then score, length, id",
        ),
        curve=tuple(ChanceFound(jaccard=j, found=_chance(j, rules)) for j in CURVE),
        documents=len(passed),
        candidate_pairs=found.num_candidates,
        compared_pairs=found.num_compared,
        refused_pairs=found.num_refused,
        documents_with_too_many_candidates=found.num_capped,
        sources=losses(candidates, copies, max_source_loss=max_source_loss),
        survivor_source=_survivor_sources(candidates, copies),
        largest_clusters=tuple(largest_clusters(candidates, copies)),
    )


def losses(
    candidates: Candidates, copies: Sequence[Copy], *, max_source_loss: float | None
) -> dict[str, CopiesOfSource]:
    """Per source: documents, exact and near copies removed, and the share lost to near copies."""
    passed = candidates.passed
    total = Counter(candidates.sources[d] for d in passed.tolist())
    exact = Counter(candidates.sources[passed[copy.document]] for copy in copies if copy.exact)
    near = Counter(candidates.sources[passed[copy.document]] for copy in copies if not copy.exact)
    return {
        source: CopiesOfSource(
            documents=count,
            exact_copies=exact[source],
            near_copies=near[source],
            near_share=near[source] / count,
            max_source_loss=max_source_loss,
        )
        for source, count in sorted(total.items())
    }


def check_losses(candidates: Candidates, found: Duplicates, *, max_source_loss: float) -> None:
    """Raises DataError, with the largest clusters of the source, where near-duplicates would take too much of one."""
    copies = list(found.copies.values())
    for source, row in losses(candidates, copies, max_source_loss=max_source_loss).items():
        if row.near_share <= max_source_loss:
            continue
        passed = candidates.passed
        own = [c for c in copies if not c.exact and candidates.sources[passed[c.document]] == source]
        lines = [
            f"  {cluster.removed:,} copies of {cluster.survivor!r}: {cluster.excerpt[:100]!r}"
            for cluster in largest_clusters(candidates, own)[:5]
        ]
        raise DataError(
            f"near-duplicate removal would take {row.near_copies:,} of {row.documents:,} documents "
            f"({row.near_share:.0%}) of source {source!r}; the limit is {max_source_loss:.0%}.\n"
            "  The largest clusters are:\n" + "\n".join(lines) + "\n"
            "  If they are copies, raise select.near_duplicates.max_source_loss. If they only share a template, raise "
            "min_jaccard, or drop the template with a rule."
        )


def largest_clusters(candidates: Candidates, copies: Sequence[Copy]) -> list[CopiesOfOne]:
    """The survivors with most removed copies: ids, the weakest evidence, and the beginnings of survivor and a copy."""
    passed = candidates.passed
    by_survivor: dict[int, list[Copy]] = defaultdict(list)
    for copy in copies:
        by_survivor[copy.survivor].append(copy)
    ranked = sorted(by_survivor.items(), key=lambda item: (-len(item[1]), item[0]))[:LARGEST_CLUSTERS]
    wanted = [int(passed[p]) for survivor, mine in ranked for p in (survivor, _weakest(mine).document)]
    texts = {d: text[:EXCERPT_CHARS] for d, text in candidates.texts_of(wanted)}
    return [
        CopiesOfOne(
            removed=len(mine),
            survivor=candidates.columns.ids[passed[survivor]],
            source=candidates.sources[passed[survivor]],
            excerpt=texts[int(passed[survivor])],
            weakest_jaccard=_weakest(mine).jaccard,
            weakest_copy=candidates.columns.ids[passed[_weakest(mine).document]],
            weakest_excerpt=texts[int(passed[_weakest(mine).document])],
            copies=tuple(candidates.columns.ids[passed[copy.document]] for copy in mine[:5]),
        )
        for survivor, mine in ranked
    ]


def contamination_report(
    candidates: Candidates, finder: Decontaminator, matches: Mapping[int, Match], recall: Mapping[str, PlantedRecall]
) -> ContaminationReport:
    """What was planted and found, and every hit on real text with its span, for a person to judge."""
    by_source = Counter(candidates.sources[d] for d in matches)
    by_pack = Counter(
        pack for match in matches.values() for pack in {name.partition("/")[0] for name in match.item_ids}
    )
    return ContaminationReport(
        rule={
            "ngram": finder.ngram,
            "long_question": f"{2 * finder.ngram} consecutive words of the question, or all where it has fewer",
            "question_and_answer": f"{finder.ngram} words of the question and the answer within {ANSWER_WINDOW} words",
            "short_item": f"whole question of {MIN_EXACT_WORDS} words or more, with its answer; shorter: both in one",
        },
        packs=recall,
        documents_removed=len(matches),
        by_source=dict(sorted(by_source.items())),
        by_pack=dict(sorted(by_pack.items())),
        hits=tuple(
            ContaminationHit(
                id=candidates.columns.ids[d],
                source=candidates.sources[d],
                items=tuple(match.item_ids),
                rule=match.rule,
                words=match.words,
                start=match.start,
                end=match.end,
                excerpt=match.excerpt,
            )
            for d, match in sorted(matches.items())[:MAX_HITS]
        ),
    )


def planting_texts(candidates: Candidates, documents: Int64, *, count: int = 50, max_chars: int = 20_000) -> list[str]:
    """Real texts, evenly spread over all, into which evaluation items are planted."""
    if not len(documents):
        return []
    places = np.unique(np.linspace(0, len(documents) - 1, count).astype(np.int64))
    return [text[:max_chars] for _, text in candidates.texts_of(documents[places])]


def _weakest(copies: Sequence[Copy]) -> Copy:
    return min(copies, key=lambda copy: (copy.jaccard, copy.document))


def _survivor_sources(candidates: Candidates, copies: Sequence[Copy]) -> dict[str, dict[str, int]]:
    """Source of the copy -> source of the survivor -> copies."""
    passed = candidates.passed
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for copy in copies:
        table[candidates.sources[passed[copy.document]]][candidates.sources[passed[copy.survivor]]] += 1
    return {source: dict(sorted(row.items())) for source, row in sorted(table.items())}


def _chance(jaccard: float, rules: DuplicateRules) -> float:
    return round(chance_found(jaccard, num_bands=rules.num_bands, rows_per_band=rules.rows_per_band), 6)
