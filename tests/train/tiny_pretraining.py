"""A pretraining small enough for tests on several ranks: made-up documents, a tiny model, two stages.

As a program it runs in the folder it is given, on so many ranks; with a step as fourth argument it ends itself by SIGKILL when that step
is done. With "serve" and a port in place of the number of ranks it is the second of two that it did not start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.context import context_of
from gristmill.graph.machine import Machine
from gristmill.graph.progress import Position, Report, unreported
from gristmill.graph.rank_place import RankPlace
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.jsonl import read_log
from gristmill.tokens.shards import ShardWriter
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer
from gristmill.train.monitor import METRICS
from gristmill.train.ranks.launch import run_on_ranks
from gristmill.train.ranks.service import serve

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
STEPS = 56
PRETRAIN: dict[str, Any] = {
    "stages": [
        {"name": "stable", "tokens": 40 * 128, "seq_len": 16, "mixture": {"web": 0.75, "code": 0.25}},
        {"name": "decay", "tokens": 16 * 128, "seq_len": 32, "mixture": {"web": 0.5, "code": 0.5}},
    ],
    "global_batch_tokens": 128,
    "warmup_tokens": 256,
    "decay_tokens": 16 * 128,
    "optimizer": {"peak_lr": 1e-2},
    "watch": {"every_tokens": 1280, "validation_bytes": 100, "packs_every_tokens": 10**9, "max_share": 1.0},
    "checkpoint_every_tokens": 10 * 128,
    "sample_prompts": ["one two"],
    "allow_epochs": {name: {"max": 1000, "reason": "a test of ranks"} for name in ("web", "code")},
}


def recipe(**changes: Any) -> Recipe:
    """With other fields of `pretrain`."""
    source = {"read": {"format": "text", "paths": ["x"]}, "license": "none"}
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "tiny",
            "seed": 3,
            "sources": {"web": source, "code": source},
            "tokenizer": {"vocab_size": 300},
            "model": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "initializer_range": 0.1,
                "max_position_embeddings": 64,
            },
            "pretrain": {**PRETRAIN, **changes},
        }
    )


def write_inputs(folder: Path) -> None:
    """Tokenizer and token shards."""
    tokenizer = Tokenizer(train_tokenizer(["one two three four five six seven"] * 4, 276))
    tokenizer.save(folder / "tokenizer")
    random = np.random.default_rng(0)
    for source, num_documents in (("web", 40), ("code", 24)):
        for split in ("train", "validation"):
            with ShardWriter(
                folder / "tokenize" / source / split, tokenizer_sha256="0" * 64, vocab_size=276, eos_id=0
            ) as writer:
                for number in range(num_documents if split == "train" else 4):
                    text = " ".join(random.choice(WORDS, size=5 + 3 * number))
                    writer.add(tokenizer.encode(text), num_bytes=len(text))


def context(
    folder: Path,
    out: str,
    *,
    ranks: int = 1,
    replicas: int = 1,
    recompute: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Report = unreported,
    should_stop: Callable[[], bool] = lambda: False,
    **changes: Any,
) -> StepContext:
    """The step in `folder`, into its folder `out`."""
    return context_of(
        recipe(**changes),
        "pretrain",
        folders={"tokenizer": folder / "tokenizer", "tokenize": folder / "tokenize"},
        recipe_dir=folder,
        out=folder / out,
        machine=Machine(
            processes=1,
            threads=1,
            device="cpu",
            micro_batch_tokens=40,
            ranks=ranks,
            replicas=replicas,
            recompute=recompute,
        ),
        say=say,
        progress=progress,
        should_stop=should_stop,
    )


def train(ctx: StepContext) -> dict[str, Any]:
    """The counts of the step."""
    return run_on_ranks("gristmill.train.pretrain", ctx)


def metrics(folder: Path, out: str, kind: str = "train") -> list[dict[str, Any]]:
    """The lines of one kind of the metrics log, but for timings."""
    lines = [line for line in read_log(folder / out / METRICS) if line["kind"] == kind]
    return [{key: value for key, value in line.items() if not key.startswith("throughput/")} for line in lines]


def at_step(step: int, do: Callable[[], None]) -> Report:
    """Does something once, when so many steps are done."""
    done: list[int] = []

    def progress(position: Position) -> None:
        if position.unit == "step" and position.done == step and not done:
            done.append(step)
            do()

    return progress


def place(rank: int, port: int) -> RankPlace:
    """Of one of two ranks that meet at a port of this machine."""
    return RankPlace(rank=rank, size=2, local_rank=rank, local_size=2, host="127.0.0.1", port=port, is_hosted=False)


if __name__ == "__main__":
    folder_name, out_name, how, *more = sys.argv[1:]
    if how == "serve":
        serve(place(1, int(more[0])), context(Path(folder_name), out_name).run.folder, say=print)
    else:
        kill = at_step(int(more[0]), lambda: os.kill(os.getpid(), signal.SIGKILL)) if more else unreported
        train(context(Path(folder_name), out_name, ranks=int(how), progress=kill))
