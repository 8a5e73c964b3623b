"""STEP extract, one per source: read → main text → language → rules → documents, rejected, ledger.

    files ─→ shards ─→ guarded child: record → fate ─→ documents-NNNNN.parquet
                                                       rejected-NNNNN.parquet
                                                       shard-NNNNN.json   (last; the shard is done)
             all shards ─→ ledger.json; the shard-*.json are deleted

Documents that a task pack holds out are dropped first. A killed step resumes with the shards that have no shard-*.json;
what comes out is the same bytes as without the kill.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gristmill.data.document import DOCUMENT_SCHEMA, read_batches, shard_path
from gristmill.data.executor import LocalThreads
from gristmill.data.guard import Finished, run_guarded
from gristmill.data.ledger import REASONED, REJECTED_SCHEMA, Ledger
from gristmill.data.packs import held_out_ids, packs_of
from gristmill.data.write import ShardWriter
from gristmill.errors import DataError, Interrupted
from gristmill.extract.curate import CurateJob, Fate, Settings
from gristmill.extract.outputs import Extracted, TextCounts
from gristmill.extract.rules import check_rules
from gristmill.extract.shards import find_files, other_files, plan_shards
from gristmill.formats.format import Span
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.curation import MainText, Source
from gristmill.store.durable import write_json

VERSION = 5


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard of work and where its files go."""

    number: int
    spans: tuple[Span, ...]
    out: Path

    @property
    def record_path(self) -> Path:
        return self.out / f"shard-{self.number:05d}.json"

    def inputs(self) -> list[list[Any]]:
        """What the shard was made from, to tell whether a finished one still matches its files."""
        return [[span.name, span.start, span.end, span.path.stat().st_mtime_ns, span.size] for span in self.spans]


def run(ctx: StepContext) -> dict[str, Any]:
    """Curates the documents of one source; returns counts.

    Raises RecipeError for rules that do not exist, and DataError when the source holds no documents or keeps none.
    """
    ledger_path = ctx.out / "ledger.json"
    if not ledger_path.exists():
        _extract(ctx, ledger_path)
    left = Extracted(ctx.out)
    for leftover in ctx.out.glob("shard-*.json"):
        leftover.unlink()
    source = left.ledger.source(ctx.part)
    kept = source.total("kept").documents
    by_reason: dict[str, Any] = {
        kind: {reason: count.documents for reason, count in source.reasons(kind).items()} for kind in REASONED
    }
    ctx.say(f"{ctx.part}: kept {kept:,} of {source.came_in.documents:,} documents")
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
    check_rules(source.rules.packs, source.rules.off, source.rules.limits, where=f"sources.{name}.rules")
    outside = ctx.files["source"]
    files = find_files(outside, source.read)
    if others := other_files(outside, source.read):
        ctx.say(
            f"{name}: {len(others):,} files of its folders are not read, no {source.read.format} by their suffix; "
            f"the first is {others[0].name}"
        )
    shards = [
        Shard(number=number, spans=spans, out=ctx.out) for number, spans in enumerate(plan_shards(files, source.read))
    ]
    settings = settings_of(ctx)
    waiting = [shard for shard in shards if not _is_done(shard)]
    if len(waiting) < len(shards):
        ctx.say(f"{name}: {len(shards) - len(waiting)} of {len(shards)} shards are done already")
    done = len(shards) - len(waiting)
    errors: list[Exception] = []

    def should_stop() -> bool:
        return bool(errors) or ctx.should_stop()

    executor = LocalThreads(threads=ctx.machine.processes, should_stop=should_stop)
    try:
        for shard, outcome in executor.map(partial(extract_shard, settings, should_stop=should_stop), waiting):
            if isinstance(outcome, Exception):
                errors.append(outcome)
                continue
            done += 1
            ctx.say(f"{name}: shard {shard.number}, {done} of {len(shards)}, {outcome} documents kept")
    except Interrupted:
        if not errors:
            raise
    if errors:
        raise errors[0]
    _finish(ctx, ledger_path, shards)


def _finish(ctx: StepContext, ledger_path: Path, shards: list[Shard]) -> None:
    """Adds the shards up, checks the sum and writes the ledger."""
    ledger, counts, characters = Ledger(), Counter[str](), 0
    ledger.source(ctx.part)
    for shard in shards:
        value = json.loads(shard.record_path.read_text(encoding="utf-8"))
        ledger.merge(Ledger.from_json(value))
        counts.update(value["counts"])
        characters += value["text_bytes"]
    ledger.check()
    source = ledger.source(ctx.part)
    paths = ", ".join(map(str, [*ctx.files["source"].paths][:3]))
    if source.came_in.documents == 0:
        raise DataError(
            f"the source {ctx.part!r} holds no documents: {len(shards)} shards of {paths} were read.\n"
            f"  Look at the files, or at sources.{ctx.part}.read."
        )
    if source.total("kept").documents == 0:
        raise DataError(
            f"the source {ctx.part!r} ({paths}) keeps none of its documents:\n{ledger.table(ctx.part)}\n"
            f"  The first of them: {_first_rejected(shards)}\n"
            f"  The reasons say what to change: the files, the reader's settings, language, or rules (off, limits)."
        )
    more = TextCounts(text_bytes=characters, shards=len(shards), details=dict(sorted(counts.items())))
    write_json(ledger_path, {**ledger.to_json(), "counts": more.to_json()})


def _first_rejected(shards: list[Shard]) -> str:
    """The id, reason and detail of the first document that was not kept."""
    paths = [shard_path(shard.out, shard.number, stem="rejected") for shard in shards]
    batches = (batch for path in paths for batch in read_batches(path, columns=["id", "reason", "detail"]))
    row = next(row for batch in batches for row in batch.slice(0, 1).to_pylist())
    return ", ".join(part for part in (row["id"], row["reason"], row["detail"]) if part)


# ── one shard ────────────────────────────────────────────────────────────────────────────────────────────────────────


def extract_shard(settings: Settings, shard: Shard, *, should_stop: Callable[[], bool]) -> int:
    """Curates one shard in a guarded child and writes its three files; returns how many documents were kept."""
    job = CurateJob(settings, shard.spans)
    fates = run_guarded(job, deadline_seconds=settings.deadline_seconds, max_memory_mb=settings.max_memory_mb)
    ledger, counts, text_bytes = Ledger(), Counter[str](), 0
    inputs = shard.inputs()
    with (
        ShardWriter(shard_path(shard.out, shard.number), DOCUMENT_SCHEMA) as documents,
        ShardWriter(shard_path(shard.out, shard.number, stem="rejected"), REJECTED_SCHEMA) as rejected,
        closing(fates),
    ):
        for fate in fates:
            if isinstance(fate, Finished):
                ledger.saw(settings.source, fate.summary, documents=fate.num_documents)
                continue
            if should_stop():
                raise Interrupted(f"stopped in shard {shard.number} of {settings.source!r}.")
            _count(fate, ledger, settings.source)
            counts.update(fate.counts)
            if fate.kind == "kept":
                documents.write(fate.row)
                text_bytes += len(fate.row["text"].encode("utf-8"))
            else:
                rejected.write(fate.row)
    ledger.check()
    more = {"counts": dict(counts), "text_bytes": text_bytes, "inputs": inputs}
    write_json(shard.record_path, {**ledger.to_json(), **more})
    return documents.num_rows


def _count(fate: Fate, ledger: Ledger, source: str) -> None:
    ledger.add(source, fate.kind, fate.bytes_in, reason=fate.reason)
    for reason in fate.would_drop:
        ledger.add(source, "would_drop", fate.bytes_in, reason=reason)


def _is_done(shard: Shard) -> bool:
    if not shard.record_path.exists():
        return False
    record = json.loads(shard.record_path.read_text(encoding="utf-8"))
    return bool(record["inputs"] == shard.inputs())


# ── from the recipe to plain settings ────────────────────────────────────────────────────────────────────────────────


def settings_of(ctx: StepContext) -> Settings:
    """The settings of this step's source, with the ids that the recipe's packs hold out."""
    source: Source = ctx.config["source"]
    page = source.main_text or MainText()
    language = source.language
    return Settings(
        source=ctx.part,
        read=source.read,
        extractor=page.extractor if source.read.holds_html else None,
        keep_maths=page.keep_maths,
        deadline_seconds=page.deadline_seconds,
        max_memory_mb=page.max_memory_mb,
        languages=None if language is None else frozenset(language.keep),
        min_language_score=0.0 if language is None else language.min_score,
        packs=tuple(source.rules.packs),
        off=frozenset(source.rules.off),
        limits=dict(source.rules.limits),
        held_out=held_out_ids(packs_of(ctx.files)),
    )
