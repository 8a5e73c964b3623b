"""Runs the step extract in a process of its own, for tests that kill it: run_extract.py PAGES_FOLDER OUT_FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gristmill.context import context_of
from gristmill.extract import extract
from gristmill.formats.html import Html
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.recipe import Recipe

OPTIMIZER = {"peak_lr": 1e-3}


def recipe(sources: dict[str, Any], packs: dict[str, Any] | None = None) -> Recipe:
    """The smallest recipe with these sources."""
    stage = {"name": "one", "tokens": 256, "seq_len": 256, "mixture": {next(iter(sources)): 1.0}}
    pretrain = {
        "stages": [stage],
        "global_batch_tokens": 256,
        "warmup_tokens": 0,
        "decay_tokens": 256,
        "optimizer": OPTIMIZER,
        "watch": {"every_tokens": 256},
        "checkpoint_every_tokens": 256,
    }
    model = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.02,
        "max_position_embeddings": 256,
    }
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "tiny",
            "seed": 1,
            "packs": packs or {},
            "sources": sources,
            "tokenizer": {"vocab_size": 300},
            "model": model,
            "pretrain": pretrain,
        }
    )


def context(recipe_dir: Path, out: Path, source: dict[str, Any], *, processes: int = 1, **more: Any) -> StepContext:
    """The context of extract/web for one source read from `recipe_dir`."""
    out.mkdir(parents=True, exist_ok=True)
    return context_of(
        recipe({"web": {"license": "MIT", **source}}, more.get("packs")),
        "extract/web",
        folders={},
        recipe_dir=recipe_dir,
        out=out,
        machine=Machine(processes=processes),
        say=more.get("say", lambda line: None),
        should_stop=more.get("should_stop", lambda: False),
    )


def main() -> None:
    pages, out = Path(sys.argv[1]), Path(sys.argv[2])
    Html.shard_bytes = (60_000, 60_000)
    source = {"read": {"format": "html", "paths": ["."]}, "rules": {"packs": ["gopher_quality@1"]}}
    extract.run(context(pages, out, source, processes=2))


if __name__ == "__main__":
    main()
