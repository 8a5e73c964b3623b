"""STEP select: which documents stay, decided over all sources together.

    held-out ids -> score threshold -> exact and near-duplicates -> contamination -> validation split

Reads extract/* and score/* alone, so that a changed threshold costs this step and no other. Writes, per source,
train-00000.parquet and validation-00000.parquet (documents with their cluster), and rejected.parquet (every document that
went, with the rule, the value against the limit, the survivor or the span), ledger.json, thresholds.json,
near_duplicates.json, decontamination.json, split.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gristmill.data.document import DOCUMENT_SCHEMA, read_batches
from gristmill.data.executor import Executor, InProcess, LocalProcesses
from gristmill.data.ledger import REJECTED_SCHEMA, Ledger, SourceLedger, rejected_row
from gristmill.data.packs import held_out_ids, packs_of
from gristmill.data.write import ShardWriter
from gristmill.errors import DataError, Interrupted
from gristmill.extract.outputs import Extracted
from gristmill.graph.step import StepContext, by_source
from gristmill.recipe.schema.curation import NearDuplicates, Select, Validation
from gristmill.score.outputs import Scored
from gristmill.select.candidates import (
    BATCH_ROWS,
    HELD_OUT,
    LOW_SCORE,
    Candidates,
    ReadShard,
    list_shards,
    read_candidates,
)
from gristmill.select.decontaminate import Decontaminator, Match, planted_recall
from gristmill.select.dedup import DuplicateRules, Duplicates, find_duplicates
from gristmill.select.evidence import (
    check_losses,
    contamination_report,
    near_duplicates_report,
    planting_texts,
    thresholds_report,
)
from gristmill.select.split import SplitRules, choose_validation, cluster_ids, split_report
from gristmill.select.words import Int64
from gristmill.store.durable import write_json
from gristmill.store.fingerprint import derive_seed

VERSION = 2
STEP = "select"
DOCUMENTS = "documents of "  # roles, each followed by a source
SELECTED_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("cluster", pa.int64(), nullable=False))


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why one document goes: the measured value, what the rule allows, and the survivor or the span."""

    reason: str
    value: float | None = None
    limit: float | None = None
    duplicate_of: str | None = None
    detail: str = ""


def run(ctx: StepContext) -> dict[str, Any]:
    """Selects. Raises DataError when a source loses too much to near-duplicates, or everything."""
    section: Select = ctx.config["select"]
    above = {source: threshold.above for source, threshold in section.min_scores.items()}
    rules = duplicate_rules(section.near_duplicates)
    packs = packs_of(ctx.files)
    candidates = _read(ctx, above, rules, held_out_ids(packs))
    documents: dict[str, Extracted] = by_source(ctx.inputs, DOCUMENTS)
    extracted = {source: kept.ledger.source(source) for source, kept in documents.items()}
    _say_if_nothing_was_held_out(ctx, candidates, extracted, held_out_ids(packs))
    classifiers = {source: threshold.classifier for source, threshold in section.min_scores.items()}
    write_json(ctx.out / "thresholds.json", thresholds_report(candidates, above, classifiers))

    duplicates = _deduplicate(ctx, candidates, rules)
    finder = Decontaminator(packs, ngram=section.decontaminate.ngram)
    matches = _decontaminate(ctx, candidates, finder, without(candidates.passed, list(duplicates.copies)))

    rejections = reasons(candidates, above, duplicates, rules, matches, ngram=finder.ngram)
    kept = np.array([d for d in candidates.passed.tolist() if d not in rejections], dtype=np.int64)
    cluster_D, validation_D = _split(ctx, candidates, duplicates, kept)
    ledger = _write(ctx, candidates, extracted, rejections, cluster_D, validation_D)
    ledger.check()
    write_json(ctx.out / "ledger.json", ledger.to_json())
    return _counts(ctx, ledger, validation_D[kept])


def duplicate_rules(section: NearDuplicates | None) -> DuplicateRules:
    """The rules of the recipe; without the section near copies are still found, for the split, but stay."""
    if section is None:
        return DuplicateRules(remove_near=False)
    return DuplicateRules(
        num_bands=section.num_bands,
        rows_per_band=section.rows_per_band,
        ngram=section.ngram,
        min_jaccard=section.min_jaccard,
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
    """Every document that goes, with the one reason that came first."""
    columns, passed = candidates.columns, candidates.passed
    found: dict[int, Rejection] = {}
    for d in np.flatnonzero(columns.fate_D == HELD_OUT).tolist():
        found[d] = Rejection(reason="held_out_item", detail="an evaluation item was cut from this document")
    for d in np.flatnonzero(columns.fate_D == LOW_SCORE).tolist():
        limit = above[candidates.sources[d]]
        found[d] = Rejection(reason="score_too_low", value=float(columns.score_D[d]), limit=limit)
    for copy in duplicates.copies.values():
        survivor = int(passed[copy.survivor])
        contained = not copy.exact and copy.jaccard < rules.min_jaccard
        value, limit = (copy.containment, rules.min_containment) if contained else (copy.jaccard, rules.min_jaccard)
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


def without(documents: Int64, places: Sequence[int]) -> Int64:
    """The documents but for those at these places."""
    keep = np.ones(len(documents), dtype=bool)
    keep[list(places)] = False
    return documents[keep]


def _read(ctx: StepContext, above: Mapping[str, float], rules: DuplicateRules, held_out: frozenset[str]) -> Candidates:
    scores: dict[str, Scored] = by_source(ctx.inputs, "scores of ")
    shards = [
        shard
        for source, documents in by_source(ctx.inputs, DOCUMENTS).items()
        for shard in list_shards(source, documents.documents, scores[source].scores if source in above else None)
    ]
    function = ReadShard(above=above, held_out=held_out, rules=rules, seed=derive_seed(ctx.seed, "minhash"))
    in_line = len(shards) == 1 or ctx.machine.processes == 1
    executor: Executor = (
        InProcess(should_stop=ctx.should_stop)
        if in_line
        else LocalProcesses(processes=ctx.machine.processes, should_stop=ctx.should_stop)
    )
    candidates = read_candidates(shards, function, executor)
    ctx.say(f"select: {len(candidates.sources):,} documents read, {len(candidates.passed):,} pass the thresholds")
    _leave_if_asked(ctx)
    return candidates


def _say_if_nothing_was_held_out(
    ctx: StepContext, candidates: Candidates, extracted: Mapping[str, SourceLedger], held_out: frozenset[str]
) -> None:
    met = int((candidates.columns.fate_D == HELD_OUT).sum())
    met += sum("held_out_item" in row.reasons("dropped") for row in extracted.values())
    if held_out and not met:
        ctx.say(
            f"select: no source has any of the {len(held_out):,} documents that packs hold out by id; if their items were "
            "cut from these sources, compare the ids"
        )


def _deduplicate(ctx: StepContext, candidates: Candidates, rules: DuplicateRules) -> Duplicates:
    section: Select = ctx.config["select"]
    listed = section.priority
    unlisted = sorted(set(by_source(ctx.inputs, DOCUMENTS)) - set(listed))
    priority = {source: rank for rank, source in enumerate([*listed, *unlisted])}
    found = find_duplicates(
        candidates.columns.prints,
        candidates.keys(priority),
        rules=rules,
        ngrams_of=candidates.ngram_sets(rules.ngram),
    )
    near: NearDuplicates | None = ctx.watching.config["select"].near_duplicates
    limit = None if near is None else near.max_source_loss
    report = near_duplicates_report(candidates, found, rules, max_source_loss=limit)
    write_json(ctx.out / "near_duplicates.json", report)
    if limit is not None:
        check_losses(candidates, found, max_source_loss=limit)
    exact = sum(copy.exact for copy in found.copies.values())
    ctx.say(f"select: {exact:,} exact and {len(found.copies) - exact:,} near copies go")
    _leave_if_asked(ctx)
    return found


def _decontaminate(
    ctx: StepContext, candidates: Candidates, finder: Decontaminator, documents: Int64
) -> dict[int, Match]:
    """Measures recall on planted items, then looks through the documents."""
    planting = planting_texts(candidates, documents) or [""]
    recall = planted_recall(finder, planting, seed=derive_seed(ctx.seed, "plant"))
    matches: dict[int, Match] = {}
    batch: list[tuple[int, str]] = []

    def search() -> None:
        _leave_if_asked(ctx)
        for (d, _), match in zip(batch, finder.match_all([text for _, text in batch]), strict=True):
            if match is not None:
                matches[d] = match
        batch.clear()

    for row in candidates.texts_of(documents) if finder.packs else ():
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            search()
    search()
    write_json(ctx.out / "decontamination.json", contamination_report(candidates, finder, matches, recall))
    planted = sum(pack["planted"] for pack in recall.values())
    ctx.say(f"select: {planted:,} planted items all found; {len(matches):,} documents hold an evaluation item")
    return matches


def _split(
    ctx: StepContext, candidates: Candidates, duplicates: Duplicates, kept: Int64
) -> tuple[Int64, NDArray[np.bool_]]:
    """(cluster name, is validation) per document; 0 and False for those that did not pass the thresholds."""
    passed, columns = candidates.passed, candidates.columns
    section: Validation = ctx.config["select"].validation
    rules = SplitRules(fraction=section.fraction, min_bytes=section.min_bytes, max_bytes=section.max_bytes)
    cluster_D = np.zeros(len(columns.ids), dtype=np.int64)
    sources = [candidates.sources[d] for d in passed.tolist()]
    cluster_D[passed] = cluster_ids(duplicates.cluster_D, sources, [columns.ids[d] for d in passed.tolist()])
    kept_sources, sizes = [candidates.sources[d] for d in kept.tolist()], columns.num_bytes_D[kept]
    held = choose_validation(cluster_D[kept], kept_sources, sizes, rules=rules, seed=derive_seed(ctx.seed, "split"))
    report = split_report(held, kept_sources, sizes, rules=rules)
    write_json(ctx.out / "split.json", report)
    for source, row in report.items():
        if not row["enough"]:
            size = row["validation"]["bytes"]
            ctx.say(f"select: validation of {source} has {size:,} bytes, fewer than the {rules.min_bytes:,} asked for")
    validation_D = np.zeros(len(columns.ids), dtype=bool)
    validation_D[kept] = held
    return cluster_D, validation_D


def _write(
    ctx: StepContext,
    candidates: Candidates,
    extracted: Mapping[str, SourceLedger],
    rejections: Mapping[int, Rejection],
    cluster_D: Int64,
    validation_D: NDArray[np.bool_],
) -> Ledger:
    """Goes through all documents once more: each into train, validation or rejected, and into the ledger.

    What came in is what extract counted as kept, so that documents lost on the way show.
    """
    ledger = Ledger()
    for source, row in extracted.items():
        kept = row.total("kept")
        ledger.saw(source, kept.num_bytes, documents=kept.documents)
    with ExitStack() as stack:
        rejected = stack.enter_context(ShardWriter(ctx.out / "rejected.parquet", REJECTED_SCHEMA))
        writers = {
            (source, split): stack.enter_context(_split_writer(ctx.out / source, split))
            for source in extracted
            for split in ("train", "validation")
        }
        for k, shard in enumerate(candidates.shards):
            d = int(candidates.offsets[k])
            for batch in read_batches(shard.documents, columns=DOCUMENT_SCHEMA.names, batch_rows=BATCH_ROWS):
                _leave_if_asked(ctx)
                for row in batch.to_pylist():
                    if (why := rejections.get(d)) is not None:
                        rejected.write(_rejected(row, why))
                        ledger.add(shard.source, "dropped", row["bytes_in"], reason=why.reason)
                    else:
                        split = "validation" if validation_D[d] else "train"
                        writers[shard.source, split].write({**row, "cluster": int(cluster_D[d])})
                        ledger.add(shard.source, "kept", row["bytes_in"])
                    d += 1
    return ledger


def _split_writer(folder: Path, split: str) -> ShardWriter:
    folder.mkdir(exist_ok=True)
    return ShardWriter(folder / f"{split}-00000.parquet", SELECTED_SCHEMA)


def _rejected(row: Mapping[str, Any], why: Rejection) -> dict[str, Any]:
    return rejected_row(
        id=row["id"],
        source=row["source"],
        step=STEP,
        reason=why.reason,
        bytes_in=row["bytes_in"],
        value=why.value,
        limit=why.limit,
        duplicate_of=why.duplicate_of,
        detail=why.detail,
        text=row["text"],
    )


def _counts(ctx: StepContext, ledger: Ledger, held: NDArray[np.bool_]) -> dict[str, Any]:
    counts: dict[str, Any] = {"validation_documents": int(held.sum())}
    for source in ledger.sources:
        row = ledger.source(source)
        kept = row.total("kept").documents
        if not kept:
            raise DataError(f"select leaves nothing of source {source!r}:\n{ledger.table(source)}")
        dropped = {reason: count.documents for reason, count in row.reasons("dropped").items()}
        counts[source] = {"documents_in": row.came_in.documents, "kept": kept, "dropped": dropped}
    return counts


def _leave_if_asked(ctx: StepContext) -> None:
    if ctx.should_stop():
        raise Interrupted("stopped while selecting; the step starts over, and nothing before it is touched.")
