"""Ledgers of the small pretrainings of course_recipes.py, over three small sources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from course_recipes import SOURCES

from gristmill.recipe.schema.training import Pretrain
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.stream import Stream
from gristmill.train.course import course_of
from gristmill.train.standing.ledger import Ledger


def write_shards(folder: Path) -> dict[str, TokenShard]:
    """Twenty documents of each source."""
    rng = np.random.default_rng(3)
    for first, name in enumerate(SOURCES):
        with ShardWriter(folder / name, tokenizer_sha256="a" * 64, vocab_size=1000, eos_id=0) as writer:
            for length in rng.integers(1, 14, size=20).tolist():
                writer.add(300 * first + rng.integers(1, 300, size=length), num_bytes=length)
    return {name: TokenShard(folder / name) for name in SOURCES}


def ledger_of(data: Mapping[str, Any], shards: Mapping[str, TokenShard]) -> Ledger:
    """Of a recipe's section."""
    pretrain = Pretrain.model_validate(data)
    course = course_of(pretrain, rope_theta=10_000.0)
    return Ledger(course=course, stream=Stream(shards, course.stream_stages(), seed=5), pretrain=pretrain)
