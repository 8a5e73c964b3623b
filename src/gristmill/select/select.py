"""STEP select: what stays, split into training and validation text, and written.

    fates, copies, links of `duplicates` ─→ clusters ─→ split by level ─→ what resembles validation text leaves
                                                                       ─→ its copies are searched again
                                                                       ─→ what repeats in training text, if the recipe asks
                                                                       ─→ <source>/train-NNNNN, validation-NNNNN, rejected-NNNNN

Late sources are decided after all others and after the late ones before them, and change no byte of those. Each rejected document
carries its rule, the value against the limit, and the survivor, the held-out text or the span. ledger.json adds up to what
extract counted as kept, so that a lost document shows; thresholds.json, decontamination.json and split.json are for a person.

In memory is what is linked, about 60 bytes a link, and 16 a copy; what is known of each document lies in files under work/, 18 bytes for each,
which are mapped. A killed step resumes with the stages and shards that are left.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gristmill.data.document import read_batches
from gristmill.data.executor import results_of
from gristmill.data.ledger import Ledger, SourceLedger, check_loss, in_sequence
from gristmill.data.write import write_rows, write_table
from gristmill.extract.outputs import Extracted
from gristmill.graph.progress import Position
from gristmill.graph.step import StepContext, by_source
from gristmill.select.catalogue import (
    DOCUMENTS,
    MATCHES,
    Catalogue,
    blocks,
    catalogue_of,
    executor_of,
    read_column,
)
from gristmill.select.duplicates import duplicate_rules
from gristmill.select.emptied import EMPTIED, emptied_survivors
from gristmill.select.fates import HELD_OUT, PASSED
from gristmill.select.files import new_array
from gristmill.select.hits import contamination_report
from gristmill.select.levels import (
    NEXT_SURVIVOR,
    RESEMBLANCE,
    Duplicates,
    Members,
    Searches,
    Split,
    split_by_level,
)
from gristmill.select.outputs import (
    MOST_SEEN,
    Deduplicated,
    NothingLeft,
    RepeatedReport,
    Searched,
    SearchedForItems,
    Selected,
    TextTaken,
)
from gristmill.select.repeated import Repeated
from gristmill.select.repeated_text import check_repeated, repeated_report, search_repeated
from gristmill.select.searches import resembling, search_again
from gristmill.select.seen import seen_shares
from gristmill.select.sides import SIDES, Decided, Names, WriteShard, read_written, selected_schema
from gristmill.select.split import document_names, split_report
from gristmill.select.thresholds import thresholds_report
from gristmill.store.durable import read_json, write_json
from gristmill.store.fingerprint import derive_seed
from gristmill.units import counted

VERSION = 7
Sizes = dict[str, dict[str, tuple[int, int]]]  # source → side → documents, bytes of text


def run(ctx: StepContext) -> dict[str, Any]:
    """Splits and writes. Raises DataError when nothing is left of a source, or less than its `max_loss` allows."""
    left, work = Selected(ctx.out), ctx.out / "work"
    if not left.accounts.is_file():
        work.mkdir(exist_ok=True)
        _select(ctx, left, work)
    extracted: dict[str, Extracted] = by_source(ctx.inputs, DOCUMENTS)
    report = left.repeated_text
    check_repeated(report, ctx.watching.config["repeated_text"])
    for source, limit in ctx.watching.config["max_loss"].items():
        both = in_sequence(extracted[source].ledger.source(source), left.ledger.source(source))
        check_loss(both, source, max_loss=limit)
    if work.exists():
        shutil.rmtree(work)
    return _counts(left.ledger, read_json(left.split), report)


def _select(ctx: StepContext, left: Selected, work: Path) -> None:
    catalogue = catalogue_of(ctx)
    found: Deduplicated = ctx.inputs["duplicates"]
    fate_D = np.load(found.fates, mmap_mode="r")
    _report(ctx, left, catalogue, fate_D)
    decided = Decided(
        fates=found.fates,
        clusters=work / "clusters.npy",
        sides=work / "sides.npy",
        copies=found.copies,
        freed=work / "freed.parquet",
        resembling=work / "resembling.parquet",
        emptied=work / "emptied.npy",
        names=work / "names",
    )
    if not decided.resembling.is_file():
        _split(ctx, catalogue, found, fate_D, decided, work)
    executor = executor_of(ctx, catalogue)
    side_D = np.load(decided.sides, mmap_mode="r")
    repeated = search_repeated(ctx, catalogue, side_D, work=work / "repeated", executor=executor)
    survivors = np.unique(np.concatenate([read_column(path, "survivor") for path in (found.copies, decided.freed)]))
    survivors = survivors[survivors >= 0]
    named, emptied = [survivors, read_column(decided.resembling, "held")], np.empty(0, dtype=EMPTIED)
    if repeated is not None:
        named.append(repeated.owners)
        emptied = emptied_survivors(catalogue, repeated, survivors, work=work / "repeated", executor=executor)
    np.save(decided.emptied, emptied)
    Names.write(decided.names, catalogue, np.unique(np.concatenate(named)))
    ledger, sizes, taken = _write(ctx, catalogue, decided, repeated, work)
    _check_kept(ledger)
    if repeated is not None:
        _report_repeated(ctx, left, catalogue, repeated, taken, sizes)
    _report_split(ctx, left, sizes, decided, _seen(ctx, catalogue, left, work))
    write_json(left.accounts, ledger.to_json())


def _report(ctx: StepContext, left: Selected, catalogue: Catalogue, fate_D: NDArray[np.int8]) -> None:
    """Thresholds and contamination, and a word where packs hold out documents that no source has."""
    classifiers = {source: threshold["classifier"] for source, threshold in ctx.config["min_scores"].items()}
    used = thresholds_report(catalogue, fate_D, _above(ctx), classifiers)
    write_json(left.thresholds, {source: row.to_json() for source, row in used.items()})
    matches: dict[str, Searched] = by_source(ctx.inputs, MATCHES)
    searched: dict[str, SearchedForItems] = {source: of.findings for source, of in matches.items()}
    report = contamination_report(catalogue, fate_D, searched)
    write_json(left.decontamination, report.to_json())
    ctx.say(f"select: evaluation items are in {counted(report.documents_removed, 'document')}")
    held_out = max((found.held_out_ids for found in searched.values()), default=0)
    if held_out and not any((fate_D[some] == HELD_OUT).any() for some in blocks(0, len(fate_D))):
        ctx.say(
            f"select: no source has any of the {counted(held_out, 'document')} that packs hold out by id; if their items were "
            "cut from these sources, compare the ids"
        )


# ── the split ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _split(
    ctx: StepContext,
    catalogue: Catalogue,
    found: Deduplicated,
    fate_D: NDArray[np.int8],
    decided: Decided,
    work: Path,
) -> None:
    """Leaves clusters and sides of all documents and, last, the table of those that resemble validation text."""
    count = len(catalogue)
    members = _members(catalogue, found, fate_D, work)
    split = Split(
        cluster_D=new_array(decided.clusters, np.int64, count),
        side_D=new_array(decided.sides, np.int8, count),
        resembling=np.empty(0, dtype=RESEMBLANCE),
        freed=np.empty(0, dtype=NEXT_SURVIVOR),
    )
    executor = executor_of(ctx, catalogue)
    done = split_by_level(
        members,
        Duplicates(
            links_E2=np.stack([read_column(found.links, name) for name in ("document", "other")], axis=1),
            document_C=read_column(found.copies, "document"),
            survivor_C=read_column(found.copies, "survivor"),
        ),
        split,
        rules=ctx.config["validation"],
        seed=derive_seed(ctx.seed, "split"),
        searches=Searches(
            resembling=partial(resembling, ctx, catalogue, executor, work),
            again=partial(search_again, ctx, catalogue, executor, work),
        ),
    )
    for array in (split.cluster_D, split.side_D):
        assert isinstance(array, np.memmap)
        array.flush()
    write_table(decided.freed, _table(done.freed))
    write_table(decided.resembling, _table(done.resembling))


def _members(catalogue: Catalogue, found: Deduplicated, fate_D: NDArray[np.int8], work: Path) -> Members:
    """Names and sizes of all documents, and which of them are left to be split, in mapped files."""
    count = len(catalogue)
    name_D = new_array(work / "document-names.npy", np.int64, count)
    size_D = new_array(work / "sizes.npy", np.int64, count)
    kept_D = new_array(work / "kept.npy", np.bool_, count)
    for shard in catalogue.shards:
        mine = slice(shard.first, shard.end)
        size_D[mine] = read_column(shard.prints, "num_bytes")
        kept_D[mine] = fate_D[mine] == PASSED
        first = shard.first
        for batch in read_batches(shard.prints, columns=["id"], batch_rows=65_536):
            name_D[first : first + batch.num_rows] = document_names(shard.source, batch.column("id").to_pylist())
            first += batch.num_rows
    kept_D[pq.read_table(found.copies, columns=["document"]).column(0).to_numpy()] = False
    return Members(sources=catalogue.sources, name_D=name_D, num_bytes_D=size_D, kept_D=kept_D)


def _table(rows: NDArray[np.void]) -> pa.Table:
    return pa.table({name: rows[name].copy() for name in rows.dtype.names or ()})


# ── the writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(
    ctx: StepContext, catalogue: Catalogue, decided: Decided, repeated: Repeated | None, work: Path
) -> tuple[Ledger, Sizes, dict[str, TextTaken]]:
    """Writes all shards. What came in is what extract counted as kept. A side of a source without a document is a file
    without rows."""
    (work / "written").mkdir(exist_ok=True)
    names = [source.name for source in catalogue.sources]
    for source in names:
        (ctx.out / source).mkdir(exist_ok=True)
    function = WriteShard(
        catalogue=catalogue,
        decided=decided,
        rules=duplicate_rules(ctx.config["near_duplicates"]),
        above=_above(ctx),
        repeated=repeated,
        out=ctx.out,
        written=work / "written",
    )
    executor = executor_of(ctx, catalogue)
    for number, _ in enumerate(results_of(executor, function, catalogue.shards), start=1):
        ctx.progress(Position(done=number, total=len(catalogue.shards), unit="shard", part="writing"))
    documents: dict[str, Extracted] = by_source(ctx.inputs, DOCUMENTS)
    ledger = Ledger()
    for source, of in documents.items():
        kept = of.ledger.source(source).total("kept")
        ledger.saw(source, kept.num_bytes, documents=kept.documents)
    sizes: Sizes = {source: dict.fromkeys(SIDES, (0, 0)) for source in names}
    taken = {source: TextTaken() for source in names}
    for shard in catalogue.shards:
        one, counts, lost = read_written(function.target(shard))
        ledger.merge(one)
        taken[shard.source].add(lost)
        for side, (documents_now, size) in counts.items():
            before = sizes[shard.source][side]
            sizes[shard.source][side] = (before[0] + documents_now, before[1] + size)
    ledger.check()
    for source, sides in sizes.items():
        for side, (count, _) in sides.items():
            if not count:
                schema = selected_schema(documents[source].documents[0])
                write_rows(ctx.out / source / f"{side}-00000.parquet", schema, [])
    return ledger, sizes, taken


def _report_repeated(
    ctx: StepContext,
    left: Selected,
    catalogue: Catalogue,
    repeated: Repeated,
    taken: Mapping[str, TextTaken],
    sizes: Sizes,
) -> None:
    mine = {source: taken[source] for source in ctx.config["repeated_text"]["sources"]}
    train_bytes = {source: sides["train"][1] for source, sides in sizes.items()}
    report = repeated_report(catalogue, repeated, mine, train_bytes)
    write_json(left.repeated, report.to_json())
    for source, lost in mine.items():
        if lost.num_bytes:
            ctx.say(
                f"select: {source} loses {report.share(source):.1%} of its training text as repeated {report.unit}s: "
                f"{counted(lost.edited_documents, 'document')} edited, {lost.dropped_documents:,} dropped"
            )


def _seen(ctx: StepContext, catalogue: Catalogue, left: Selected, work: Path) -> dict[str, float]:
    """Source → the share of its validation text that also occurs in training text."""
    sides = {source.name: Selected(left.folder, source=source.name) for source in catalogue.sources}
    validation = {source: of.validation for source, of in sides.items()}
    train = [path for of in sides.values() for path in of.train]
    return seen_shares(train, validation, work=work / "seen", executor=executor_of(ctx, catalogue))


def _report_split(ctx: StepContext, left: Selected, sizes: Sizes, decided: Decided, seen: Mapping[str, float]) -> None:
    rules = ctx.config["validation"]
    report = split_report(sizes, seen, rules=rules)
    write_json(left.split, report)
    for source, row in report.items():
        if not row["enough"]:
            size = row["validation"]["bytes"]
            ctx.say(f"select: validation of {source} has {size:,} bytes, fewer than the {rules.min_bytes:,} asked for")
    if known := [f"{source} {share:.0%}" for source, share in seen.items() if share > MOST_SEEN]:
        asked = ctx.config.get("repeated_text") is not None
        more = "" if asked else "; select.repeated_text takes repeated paragraphs or lines out of training text"
        ctx.say(
            f"select: validation text that also stands in training text, 13 words in a row: {', '.join(known)}; a score on it says "
            f"little about text that is new{more}"
        )
    if count := pq.read_metadata(decided.resembling).num_rows:
        ctx.say(f"select: {counted(count, 'document')} dropped for resembling validation text")


def _check_kept(ledger: Ledger) -> None:
    for source in ledger.sources:
        if not ledger.source(source).total("kept").documents:
            raise NothingLeft(source, ledger.table(source))


def _counts(ledger: Ledger, split: Mapping[str, Any], repeated: RepeatedReport | None) -> dict[str, Any]:
    held = sum(row["validation"]["documents"] for row in split.values())
    taken = (
        {} if repeated is None else {source: {"repeated": lost.to_json()} for source, lost in repeated.taken.items()}
    )
    return {
        "validation_documents": held,
        **{source: {**_fates_of(ledger.source(source)), **taken.get(source, {})} for source in ledger.sources},
    }


def _fates_of(row: SourceLedger) -> dict[str, Any]:
    dropped = {reason: count.documents for reason, count in row.reasons("dropped").items()}
    return {"documents_in": row.came_in.documents, "kept": row.total("kept").documents, "dropped": dropped}


def _above(ctx: StepContext) -> dict[str, float]:
    return {source: threshold["above"] for source, threshold in ctx.config["min_scores"].items()}
