"""A small project whose training text is as regular as a table, but for six documents of noise, three of which fill a sequence.

A model learns the regular text within forty steps. Whenever a step then reads a sequence of noise, a quarter of its batch, its loss is
far above that of the steps before, and nothing else is.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

SUBJECTS = ("the miller", "the baker", "a farmer", "the smith", "a weaver")
VERBS = ("carries", "weighs", "sells", "counts")
THINGS = ("sacks of flour", "loaves of bread", "bags of grain", "rolls of cloth")
NOISE_AT = (215, 216, 217, 391, 392, 393)  # among the tales; they are read late, three a sequence
SIGNS = "bcdfghjklmnpqrstvwxzBCDFGHJKLMNPQRSTVWXZ0123456789#$%&"
NOISE_CHARACTERS = 19
SEQ_LEN, SEQUENCES = 64, 4
BATCH = SEQ_LEN * SEQUENCES
STEPS = {"stable": 240, "second": 60, "decay": 20}


def write_project(folder: Path, **pretrain: Any) -> Path:
    """Writes data/ and recipe.yaml; returns the folder. pretrain: keys of that section."""
    (folder / "data").mkdir(parents=True)
    _write(folder / "data" / "tales.jsonl", _tales(2000))
    _write(
        folder / "data" / "sums.jsonl", [(f"sum-{n}", f"Number {n} is followed by number {n + 1}.") for n in range(900)]
    )
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(**pretrain), sort_keys=False), encoding="utf-8")
    return folder


def recipe(**pretrain: Any) -> dict[str, Any]:
    """Two sources without rules; the mixture changes twice."""
    source = {"license": "none", "rules": {"packs": []}}
    mixtures = {"stable": {"tales": 0.75, "sums": 0.25}, "second": {"tales": 0.25, "sums": 0.75}, "decay": {"tales": 0.5, "sums": 0.5}}  # fmt: skip
    return {
        "schema_version": 1,
        "name": "spiky",
        "seed": 5,
        "sources": {
            name: {**source, "read": {"format": "jsonl", "paths": [f"data/{name}.jsonl"], "id_field": "id"}}
            for name in ("tales", "sums")
        },
        "select": {"near_duplicates": None, "validation": {"fraction": 0.02, "min_bytes": 300}},
        "tokenizer": {"vocab_size": 360},
        "model": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "initializer_range": 0.1,
            "max_position_embeddings": 64,
        },
        "pretrain": {
            "stages": [
                {"name": name, "tokens": steps * BATCH, "seq_len": SEQ_LEN, "mixture": mixtures[name]}
                for name, steps in STEPS.items()
            ],
            "global_batch_tokens": BATCH,
            "warmup_tokens": 4 * BATCH,
            "decay_tokens": STEPS["decay"] * BATCH,
            "optimizer": {"peak_lr": 6.0e-3},
            "watch": {"every_tokens": 40 * BATCH, "validation_bytes": 300, "max_share": 1.0},
            "checkpoint_every_tokens": 25 * BATCH,
            **pretrain,
        },
        "evaluate": {"packs": [], "validation_bytes": 300},
        "export": {"dtype": "float32"},
    }


def _tales(count: int) -> list[tuple[str, str]]:
    draw = random.Random(1)
    tales = [
        (
            f"tale-{n}",
            f"In year {n} {draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(THINGS)} by the old mill.",
        )
        for n in range(count)
    ]
    for number, place in enumerate(NOISE_AT):
        tales[place] = (f"noise-{number}", "".join(draw.choice(SIGNS) for _ in range(NOISE_CHARACTERS)))
    return tales


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    lines = (json.dumps({"id": name, "text": text}) + "\n" for name, text in rows)
    path.write_text("".join(lines), encoding="utf-8")
