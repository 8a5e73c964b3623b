"""STEP extract, one per source: read → URL → main text → language → rules → documents, rejected, ledger.

    files ─→ shards ─→ guarded child: record → fate ─→ documents-NNNNN.parquet       (shard.py)
                                                       rejected-NNNNN.parquet
                                                       shard-NNNNN.json   (last; the shard is done)
             all shards ─→ ledger.json; the shard-*.json are deleted

A killed step resumes with the shards that have no shard-*.json; what comes out is the same bytes as without the kill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gristmill.data.document import count_rows, read_batches
from gristmill.data.each_shard import map_guarded, shard_executor
from gristmill.data.executor import results_of
from gristmill.data.ledger import REASONED, Ledger, SourceLedger, check_failures, check_loss
from gristmill.data.lists import Lists
from gristmill.data.outside import find_outside
from gristmill.errors import DataError, Interrupted
from gristmill.extract.account import Taken, enter, join_shared
from gristmill.extract.curate import Settings
from gristmill.extract.judge import check_rules
from gristmill.extract.language import languages_in
from gristmill.extract.meter import Meter
from gristmill.extract.outputs import Extracted, TextCounts
from gristmill.extract.own_packs import OwnPack, load_own_packs, read_own_packs
from gristmill.extract.redact import in_words
from gristmill.extract.same_columns import check_same_columns
from gristmill.extract.shard import Shard, changed_while_read, extract_shard
from gristmill.extract.shards import find_files, plan_shards
from gristmill.extract.urls import WITHOUT_URL
from gristmill.formats.format import Content, Span, format_of, size_of
from gristmill.graph.share import ShareDone
from gristmill.graph.step import OutsideFiles, StepContext
from gristmill.recipe.schema.curation import MainText, Source, UrlRules, rules_label
from gristmill.recipe.schema.formats import ReadFiles
from gristmill.store.durable import read_json, write_json
from gristmill.units import counted, in_bytes

VERSION = 14


def run(ctx: StepContext) -> dict[str, Any]:
    """Curates the documents of one source; returns counts.

    Raises RecipeError for rules that do not exist, and DataError when the source holds no documents or keeps none.
    """
    ledger_path = ctx.out / "ledger.json"
    if not ledger_path.exists():
        _extract(ctx, ledger_path)
    elif ctx.machine.share is not None:
        raise ShareDone(mine=0, num_shards=0)  # a run was stopped when it had put all together
    left = Extracted(ctx.out)
    for leftover in ctx.out.glob("shard-*"):
        leftover.unlink()
    source = left.ledger.source(ctx.part)
    kept = source.total("kept").documents
    by_reason: dict[str, Any] = {
        kind: {reason: count.documents for reason, count in source.reasons(kind).items()} for kind in REASONED
    }
    ctx.say(f"{ctx.part}: kept {kept:,} of {counted(source.came_in.documents, 'document')}")
    if failures := source.total("failed").documents:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in by_reason["failed"].items())
        size, whole = source.total("failed").num_bytes, source.came_in.num_bytes
        ctx.say(f"{ctx.part}: {failures:,} failed, {in_bytes(size)} of {in_bytes(whole)}: {listed}")
    if replaced := in_words(left.counts.details):
        ctx.say(f"{ctx.part}: replaced {replaced}")
    section: Source = ctx.config["source"]
    if section.urls is not None and (untold := left.counts.details.get(WITHOUT_URL, 0)):
        ctx.say(f"{ctx.part}: {counted(untold, 'document')} without a URL, which the lists of URLs let pass")
    is_told = section.language is None and section.read.format != "code"
    if is_told and (words := languages_in(left.documents).choice()):
        ctx.say(f"{ctx.part}: {words}")
    return {
        "documents_in": source.came_in.documents,
        "bytes_in": source.came_in.num_bytes,
        "documents": kept,
        **by_reason,
        **left.counts.to_json(),
    }


def _extract(ctx: StepContext, ledger_path: Path) -> None:
    name = ctx.part
    source: Source = ctx.config["source"]
    settings = settings_of(ctx)
    rules, own = source.rules, load_own_packs(settings.own_packs)
    check_rules(rules.packs, rules.off, rules.limits, where=f"sources.{name}.rules", own=own)
    files = find_files(_outside(ctx), source.read)
    check_same_columns(name, source.read, files, max_failed=ctx.watching.config["source"].max_failed)
    shards = [
        Shard(number=number, spans=spans, out=ctx.out) for number, spans in enumerate(plan_shards(files, source.read))
    ]
    mine = ctx.machine.share_of(shards, ctx.name)
    waiting = [shard for shard in mine if not shard.is_done()]
    if len(waiting) < len(mine):
        ctx.say(f"{name}: {len(mine) - len(waiting)} of {len(mine)} shards are done already")
    meter = Meter(name, mine, waiting=waiting, report=ctx.progress)
    errors: list[Exception] = []

    def should_stop() -> bool:
        return bool(errors) or ctx.should_stop()

    outcomes = map_guarded(
        ctx,
        partial(extract_shard, settings),
        waiting,
        reads=[span.path for shard in shards[:1] for span in shard.spans[:1]],
        should_stop=should_stop,
        progress=meter.reads,
    )
    try:
        for shard, outcome in outcomes:
            if isinstance(outcome, Exception):
                errors.append(outcome)
                continue
            meter.finishes(shard, outcome)
    except Interrupted:
        if not errors:
            raise
    if errors:
        raise errors[0]
    if ctx.machine.share is not None:
        raise ShareDone(mine=len(mine), num_shards=len(shards))
    _finish(ctx, ledger_path, shards)


def _outside(ctx: StepContext) -> OutsideFiles:
    """The files of the source: outside of the run, or among those that were fetched."""
    if "fetched" not in ctx.inputs:
        return ctx.files["source"]
    return find_outside(
        ctx.inputs["fetched"].files, ctx.config["paths"], where=f"sources.{ctx.part}.read.paths, among what was fetched"
    )


def _finish(ctx: StepContext, ledger_path: Path, shards: list[Shard]) -> None:
    """Adds the shards up, holds the sum against files and rows, and writes the ledger."""
    name = ctx.part
    ledger, counts, text_bytes = Ledger(), Counter[str](), 0
    source = ledger.source(name)
    for shard in shards:
        if not shard.is_done():
            raise changed_while_read(name, shard)
    records = [read_json(shard.record_path) for shard in shards]
    for record in records:
        ledger.merge(Ledger.from_json(record))
        counts.update(record["counts"])
        text_bytes += record["text_bytes"]
    shared = join_shared(records)
    if format_of(ctx.config["source"].read).seeks_spans:
        _measure_whole(ctx, shards, shared)
    for file, taken in shared.items():
        enter(ledger, name, file, taken)
    ledger.check()
    _hold_against_rows(source, shards)
    paths = ", ".join(map(str, [*_outside(ctx).paths][:3]))
    if source.came_in.documents == 0:
        raise DataError(
            f"the source {name!r} holds no documents: {len(shards)} shards of {paths} were read.\n"
            f"  Look at the files, or at sources.{name}.read."
        )
    if source.total("kept").documents == 0:
        raise DataError(
            f"the source {name!r} ({paths}) keeps none of its documents:\n{ledger.table(name)}\n"
            f"  The first of them: {_first_rejected(shards)}\n"
            f"  The reasons say what to change: the files, the reader's settings, language, or rules (off, limits)."
        )
    check_failures(ledger, name, max_failed=ctx.watching.config["source"].max_failed)
    check_loss(ledger.source(name), name, max_loss=ctx.watching.config["source"].max_loss)
    more = TextCounts(text_bytes=text_bytes, shards=len(shards), details=dict(sorted(counts.items())))
    write_json(ledger_path, {**ledger.to_json(), "counts": more.to_json()})


def _measure_whole(ctx: StepContext, shards: list[Shard], shared: dict[str, Taken]) -> None:
    """Measures files that several shards share as a whole: what their spans hold may rest on the same mistake."""
    paths = {span.name: span.path for shard in shards for span in shard.spans if span.name in shared}
    executor = shard_executor(ctx, num_items=len(paths), reads=[*paths.values()][:1])
    for name, content in results_of(executor, partial(measure_file, ctx.config["source"].read, paths), sorted(paths)):
        shared[name].content = content


def measure_file(read: ReadFiles, paths: Mapping[str, Path], name: str) -> Content | None:
    """The content of a whole file; None where it cannot be read."""
    try:
        return format_of(read).content(Span(path=paths[name], name=name, size=size_of(paths[name])), read)
    except OSError:
        return None


def _hold_against_rows(source: SourceLedger, shards: list[Shard]) -> None:
    """The rows that lie on the disk are the documents of the ledger: it was written by those who wrote the rows."""
    rows = {
        "kept": sum(count_rows(shard.documents_path) for shard in shards),
        "rejected": sum(count_rows(shard.rejected_path) for shard in shards),
    }
    told = {
        "kept": source.total("kept").documents,
        "rejected": source.total("dropped").documents + source.total("failed").documents,
    }
    assert rows == told, f"the files hold {rows}, the ledger says {told}"


def _first_rejected(shards: list[Shard]) -> str:
    """The id, reason and detail of the first document that was not kept."""
    paths = [shard.rejected_path for shard in shards]
    batches = (batch for path in paths for batch in read_batches(path, columns=["id", "reason", "detail"]))
    row = next(row for batch in batches for row in batch.slice(0, 1).to_pylist())
    return ", ".join(part for part in (row["id"], row["reason"], row["detail"]) if part)


# ── from the recipe to plain settings ────────────────────────────────────────────────────────────────────────────────


def settings_of(ctx: StepContext) -> Settings:
    """The settings of this step's source."""
    source: Source = ctx.config["source"]
    own_packs = read_own_packs(source.rules, lambda path: ctx.files[rules_label(path)].only)
    return settings_of_source(
        ctx.part,
        source,
        max_failed=ctx.watching.config["source"].max_failed,
        own_packs=own_packs,
        urls=Lists.among(ctx.files, UrlRules.model_fields),
    )


def settings_of_source(
    name: str,
    source: Source,
    *,
    max_failed: float,
    own_packs: tuple[OwnPack, ...] = (),
    urls: Lists | None = None,
) -> Settings:
    """What is done to each document of a source."""
    page = source.main_text or MainText()
    language = source.language
    return Settings(
        source=name,
        read=source.read,
        extractor=page.extractor if source.read.holds_html else None,
        keep_maths=page.keep_maths,
        deadline_seconds=page.deadline_seconds,
        max_memory_mb=page.max_memory_mb,
        max_failed=max_failed,
        min_language_scores=None if language is None else {code: language.score_of(code) for code in language.keep},
        packs=tuple(source.rules.packs),
        off=frozenset(source.rules.off),
        limits=dict(source.rules.limits),
        redact=frozenset(source.redact),
        own_packs=own_packs,
        urls=urls,
    )
