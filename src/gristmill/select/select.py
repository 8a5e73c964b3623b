"""STEP select: which documents are kept, decided over all sources together.

    held-out ids -> score threshold -> exact and near-duplicates -> contamination -> validation split

Late sources are decided after all others and after the late ones before them, and change no byte of those.
Reads only extract/* and score/*, so that a changed threshold remakes neither. Writes, per source,
train-00000.parquet and validation-00000.parquet (documents with their cluster), and rejected.parquet (every dropped
document, with the rule, the value against the limit, the survivor or the span), ledger.json, thresholds.json,
near_duplicates.json, decontamination.json, split.json.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gristmill.data.document import DOCUMENT_SCHEMA, read_batches
from gristmill.data.executor import Executor, InProcess, LocalProcesses
from gristmill.data.ledger import REJECTED_SCHEMA, Ledger, SourceLedger
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
    PASSED,
    Candidates,
    ReadShard,
    list_shards,
    read_candidates,
    without_duplicate_ids,
)
from gristmill.select.decontaminate import Decontaminator, Match, planted_recall
from gristmill.select.evidence import (
    check_losses,
    contamination_report,
    near_duplicates_report,
    planting_texts,
    thresholds_report,
)
from gristmill.select.in_memory import Duplicates, find_duplicates
from gristmill.select.levels import Members, Split, split_by_level
from gristmill.select.reasons import Rejection, reasons, reasons_of_resembling
from gristmill.select.resemblance import HeldOutTexts, Resemblance
from gristmill.select.rules import DuplicateRules
from gristmill.select.split import split_report
from gristmill.select.words import Int64
from gristmill.store.durable import write_json
from gristmill.store.fingerprint import derive_seed
from gristmill.units import counted

VERSION = 3
STEP = "select"
DOCUMENTS = "documents of "  # roles, each followed by a source
SELECTED_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("cluster", pa.int64(), nullable=False))


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
    used = thresholds_report(candidates, above, classifiers)
    write_json(ctx.out / "thresholds.json", {source: row.to_json() for source, row in used.items()})

    duplicates = _deduplicate(ctx, candidates, rules)
    finder = Decontaminator(packs, ngram=section.decontaminate.ngram)
    matches = _decontaminate(ctx, candidates, finder, without(candidates.passed, list(duplicates.copies)))

    rejections = reasons(candidates, above, duplicates, rules, matches, ngram=finder.ngram)
    split = _split(ctx, candidates, duplicates, rules, rejections)
    rejections |= reasons_of_resembling(candidates, split, rules)
    ledger = _write(ctx, candidates, extracted, rejections, split)
    ledger.check()
    write_json(ctx.out / "ledger.json", ledger.to_json())
    return _counts(ctx, ledger, split.validation_D)


def levels_of(early: Sequence[str], late: Sequence[str]) -> dict[str, int]:
    """When each source is decided: at 0 with all others, or as a late one at 1, 2, … in their order."""
    return {**dict.fromkeys(early, 0), **{source: level for level, source in enumerate(late, start=1)}}


def survivor_ranks(early: Sequence[str], late: Sequence[str], priority: Sequence[str]) -> dict[str, int]:
    """Whose copy survives, 0 first: sources of `priority`, then others by name, then late ones in their order."""
    unlisted = sorted(set(early) - set(priority))
    return {source: rank for rank, source in enumerate([*priority, *unlisted, *late])}


def duplicate_rules(section: NearDuplicates | None) -> DuplicateRules:
    """The rules of the recipe; without the section near copies are still found, for the split, but kept."""
    chosen = NearDuplicates() if section is None else section
    return DuplicateRules(
        num_bands=chosen.num_bands,
        rows_per_band=chosen.rows_per_band,
        ngram=chosen.ngram,
        min_jaccard=chosen.min_jaccard,
        remove_near=section is not None,
    )


def without(documents: Int64, places: Sequence[int]) -> Int64:
    """The documents but for those at these places."""
    keep = np.ones(len(documents), dtype=bool)
    keep[list(places)] = False
    return documents[keep]


def _read(ctx: StepContext, above: Mapping[str, float], rules: DuplicateRules, held_out: frozenset[str]) -> Candidates:
    documents: dict[str, Extracted] = by_source(ctx.inputs, DOCUMENTS)
    scores: dict[str, Scored] = by_source(ctx.inputs, "scores of ")
    shards = [
        shard
        for source in (*ctx.config["early"], *ctx.config["late"])
        for shard in list_shards(
            source, documents[source].documents, scores[source].scores if source in above else None
        )
    ]
    function = ReadShard(above=above, held_out=held_out, rules=rules, seed=derive_seed(ctx.seed, "minhash"))
    in_line = len(shards) == 1 or ctx.machine.processes == 1
    executor: Executor = (
        InProcess(should_stop=ctx.should_stop)
        if in_line
        else LocalProcesses(processes=ctx.machine.processes, should_stop=ctx.should_stop)
    )
    read = read_candidates(shards, function, executor)
    candidates = without_duplicate_ids(read)
    ctx.say(f"select: {counted(len(candidates.sources), 'document')} read, {len(read.passed):,} passed the thresholds")
    if later := len(read.passed) - len(candidates.passed):
        ctx.say(f"select: {counted(later, 'document')} dropped: the id is that of an earlier one of the source")
    _leave_if_asked(ctx)
    return candidates


def _say_if_nothing_was_held_out(
    ctx: StepContext, candidates: Candidates, extracted: Mapping[str, SourceLedger], held_out: frozenset[str]
) -> None:
    met = int((candidates.columns.fate_D == HELD_OUT).sum())
    met += sum("held_out_item" in row.reasons("dropped") for row in extracted.values())
    if held_out and not met:
        ctx.say(
            f"select: no source has any of the {counted(len(held_out), 'document')} that packs hold out by id; if their items were "
            "cut from these sources, compare the ids"
        )


def _deduplicate(ctx: StepContext, candidates: Candidates, rules: DuplicateRules) -> Duplicates:
    ranks = survivor_ranks(ctx.config["early"], ctx.config["late"], ctx.config["select"].priority)
    found = find_duplicates(
        candidates.columns.prints,
        candidates.keys(ranks),
        rules=rules,
        ngrams_of=candidates.ngram_sets(rules.ngram),
    )
    near: NearDuplicates | None = ctx.watching.config["select"].near_duplicates
    limit = None if near is None else near.max_source_loss
    report = near_duplicates_report(candidates, found, rules, max_source_loss=limit)
    write_json(ctx.out / "near_duplicates.json", report.to_json())
    if limit is not None:
        check_losses(candidates, found, max_source_loss=limit)
    exact = sum(copy.exact for copy in found.copies.values())
    ctx.say(f"select: {exact:,} exact and {len(found.copies) - exact:,} near copies dropped")
    _leave_if_asked(ctx)
    return found


def _decontaminate(
    ctx: StepContext, candidates: Candidates, finder: Decontaminator, documents: Int64
) -> dict[int, Match]:
    """Measures recall on planted items, then looks through the documents."""
    planting = planting_texts(candidates, documents) or [""]
    recall = planted_recall(finder, planting, seed=derive_seed(ctx.seed, "plant"))
    matches: dict[int, Match] = {}
    for batch in _batches(ctx, candidates.texts_of(documents)) if finder.packs else ():
        for (d, _), match in zip(batch, finder.match_all([text for _, text in batch]), strict=True):
            if match is not None:
                matches[d] = match
    _leave_if_asked(ctx)
    write_json(ctx.out / "decontamination.json", contamination_report(candidates, finder, matches, recall).to_json())
    planted = sum(pack.planted for pack in recall.values())
    ctx.say(
        f"select: all {counted(planted, 'planted item')} found; evaluation items are in {counted(len(matches), 'document')}"
    )
    return matches


def _split(
    ctx: StepContext,
    candidates: Candidates,
    duplicates: Duplicates,
    rules: DuplicateRules,
    rejections: Mapping[int, Rejection],
) -> Split:
    """The split of the documents that passed the thresholds, by their place among them."""
    section: Validation = ctx.config["select"].validation
    levels = levels_of(ctx.config["early"], ctx.config["late"])
    passed, columns = candidates.passed, candidates.columns
    sources = [candidates.sources[d] for d in passed.tolist()]
    members = Members(
        ids=[columns.ids[d] for d in passed.tolist()],
        sources=sources,
        level_D=np.array([levels[source] for source in sources], dtype=np.int64),
        num_bytes_D=columns.num_bytes_D[passed],
        kept_D=np.array([d not in rejections for d in passed.tolist()], dtype=bool),
    )

    def resembling(documents: Int64, held: Int64) -> dict[int, Resemblance]:
        texts = HeldOutTexts(_batches(ctx, candidates.passed_texts(held)), rules)
        found: dict[int, Resemblance] = {}
        for batch in _batches(ctx, candidates.passed_texts(documents)):
            found |= texts.find(batch)
        return found

    split = split_by_level(
        members, duplicates.links_E2, rules=section, seed=derive_seed(ctx.seed, "split"), resembling=resembling
    )
    left = np.array([d for d in np.flatnonzero(members.kept_D).tolist() if d not in split.resembling], dtype=np.int64)
    report = split_report(
        split.validation_D[left], [sources[d] for d in left.tolist()], members.num_bytes_D[left], rules=section
    )
    write_json(ctx.out / "split.json", report)
    for source, row in report.items():
        if not row["enough"]:
            size = row["validation"]["bytes"]
            ctx.say(
                f"select: validation of {source} has {size:,} bytes, fewer than the {section.min_bytes:,} asked for"
            )
    if split.resembling:
        ctx.say(
            f"select: {counted(len(split.resembling), 'document')} of late sources dropped for resembling validation text"
        )
    return split


def _write(
    ctx: StepContext,
    candidates: Candidates,
    extracted: Mapping[str, SourceLedger],
    rejections: Mapping[int, Rejection],
    split: Split,
) -> Ledger:
    """Reads all documents once more and writes each to train, validation or rejected, and into the ledger.

    What came in is what extract counted as kept, so that a lost document shows.
    """
    place_D = np.cumsum(candidates.columns.fate_D == PASSED) - 1
    ledger = Ledger()
    for source, row in extracted.items():
        kept = row.total("kept")
        ledger.saw(source, kept.num_bytes, documents=kept.documents)
    with ExitStack() as stack:
        rejected = stack.enter_context(ShardWriter(ctx.out / "rejected.parquet", REJECTED_SCHEMA))
        writers = {
            (source, side): stack.enter_context(_side_writer(ctx.out / source, side))
            for source in extracted
            for side in ("train", "validation")
        }
        for k, shard in enumerate(candidates.shards):
            d = int(candidates.offsets[k])
            for batch in read_batches(shard.documents, columns=DOCUMENT_SCHEMA.names, batch_rows=BATCH_ROWS):
                _leave_if_asked(ctx)
                for row in batch.to_pylist():
                    if (why := rejections.get(d)) is not None:
                        rejected.write(why.row(row, step=STEP))
                        ledger.add(shard.source, "dropped", row["bytes_in"], reason=why.reason)
                    else:
                        place = int(place_D[d])
                        side = "validation" if split.validation_D[place] else "train"
                        writers[shard.source, side].write({**row, "cluster": int(split.cluster_D[place])})
                        ledger.add(shard.source, "kept", row["bytes_in"])
                    d += 1
    return ledger


def _side_writer(folder: Path, side: str) -> ShardWriter:
    folder.mkdir(exist_ok=True)
    return ShardWriter(folder / f"{side}-00000.parquet", SELECTED_SCHEMA)


def _batches(ctx: StepContext, rows: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Rows in batches of BATCH_ROWS; checks before each whether to stop."""
    _leave_if_asked(ctx)
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        yield batch
        _leave_if_asked(ctx)


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
