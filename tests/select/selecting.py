"""The steps of selection over documents in files: what tests of `select` share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.context import context_of
from gristmill.data.document import Document, shard_path, write_documents
from gristmill.data.ledger import Ledger
from gristmill.data.write import write_table
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.curation import Select
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import write_json

SOURCE = {"read": {"format": "text", "paths": ["x"]}, "license": "CC0"}
SELECTION = ("signatures", "contamination", "duplicates", "select")
REST = {
    "schema_version": 1,
    "name": "small",
    "seed": 11,
    "packs": {"quiz": {"path": "quiz"}},
    "classifiers": {"edu": {"source": "web", "annotations": "edu.jsonl"}},
    "tokenizer": {"vocab_size": 300},
    "model": {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.1,
        "max_position_embeddings": 16,
    },
    "pretrain": {
        "stages": [{"name": "one", "tokens": 320, "seq_len": 16, "mixture": {"web": 1.0}}],
        "global_batch_tokens": 32,
        "warmup_tokens": 32,
        "decay_tokens": 32,
        "optimizer": {"peak_lr": 0.001},
        "watch": {"every_tokens": 320},
        "checkpoint_every_tokens": 320,
    },
}


def recipe_of(section: dict[str, Any], sources: Sequence[str], late: Sequence[str]) -> Recipe:
    return Recipe.model_validate(
        {
            **REST,
            "sources": {source: {**SOURCE, "late": source in late} for source in sources},
            "select": Select(**section),
        }
    )


def run_selection(
    folder: Path,
    section: dict[str, Any],
    *,
    name: str = "select",
    sources: Sequence[str] = ("manuals", "web"),
    late: Sequence[str] = (),
    until: str = "select",
    **machine: Any,
) -> tuple[Path, dict[str, Any]]:
    """Runs all steps of selection; returns the folder of the last one and its counts. What the others leave lies beside it,
    in <name>.steps."""
    recipe = recipe_of(section, sources, late)
    steps = [step.name for step in steps_of(recipe) if step.name.partition("/")[0] in SELECTION]
    for step in steps[: steps.index(until) + 1]:
        ctx = context(folder, recipe, step, name=name, **machine)
        counts = importlib.import_module(f"gristmill.select.{step.partition('/')[0]}").run(ctx)
    return ctx.out, counts


def context(
    folder: Path,
    recipe: Recipe,
    step: str,
    *,
    name: str = "select",
    processes: int = 1,
    say: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StepContext:
    """What one step is given. Extraction and scores lie in `folder` itself."""
    beside = folder / f"{name}.steps"
    folders = {f"{kind}/{source}": folder / kind / source for kind in ("extract", "score") for source in recipe.sources}
    folders |= {f"{kind}/{source}": beside / kind / source for kind in SELECTION[:2] for source in recipe.sources}
    folders["duplicates"] = beside / "duplicates"
    out = folder / name if step == "select" else folders[step]
    out.mkdir(exist_ok=True, parents=True)
    return context_of(
        recipe,
        step,
        folders=folders,
        recipe_dir=folder,
        out=out,
        machine=Machine(processes=processes),
        say=say,
        should_stop=should_stop,
    )


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_source(folder: Path, source: str, *shards: Sequence[Document], extracted: int | None = None) -> None:
    """As extract leaves it. extracted: documents that its ledger counts as kept, where these are others than there are."""
    out = folder / "extract" / source
    out.mkdir(parents=True, exist_ok=True)
    for path in out.glob("documents-*.parquet"):
        path.unlink()
    for number, documents in enumerate(shards):
        write_documents(shard_path(out, number), documents)
    rows = [document for documents in shards for document in documents]
    ledger, size = Ledger(), sum(document.bytes_in for document in rows)
    count = len(rows) if extracted is None else extracted
    ledger.saw(source, size, documents=count)
    ledger.add(source, "kept", size, documents=count)
    write_json(out / "ledger.json", ledger.to_json())


def write_scores(folder: Path, source: str, *shards: Sequence[tuple[str, float]]) -> None:
    """As score leaves it."""
    out = folder / "score" / source
    out.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shards):
        table = pa.table({"id": [name for name, _ in rows], "score": pa.array([s for _, s in rows], pa.float32())})
        write_table(out / f"scores-{number:05d}.parquet", table)


def rows_of(out: Path, pattern: str) -> list[dict[str, Any]]:
    """The rows of all files that the pattern names, in order."""
    return [row for path in sorted(out.glob(pattern)) for row in pq.read_table(path).to_pylist()]


def kept_rows(out: Path, source: str, side: str) -> list[dict[str, Any]]:
    """The documents on one side of one source."""
    return rows_of(out, f"{source}/{side}-*.parquet")


def rejected_rows(out: Path, source: str = "*") -> list[dict[str, Any]]:
    """The rejected documents."""
    return rows_of(out, f"{source}/rejected-*.parquet")


def fates_of(out: Path, source: str) -> dict[str, str]:
    """id → side, or the reason why it is dropped."""
    fates = {row["id"]: row["reason"] for row in rejected_rows(out, source)}
    for side in ("train", "validation"):
        fates |= {row["id"]: side for row in kept_rows(out, source, side)}
    return fates


def bytes_of(out: Path, sources: Sequence[str]) -> dict[str, bytes]:
    """File → bytes of the train and validation files of some sources."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for source in sources
        for side in ("train", "validation")
        for path in sorted(out.glob(f"{source}/{side}-*.parquet"))
    }
