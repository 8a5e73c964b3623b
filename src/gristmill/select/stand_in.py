"""A search in memory behind the interface of `resemblance`, until that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.data.write import write_table
from gristmill.select.corpus import Corpus, batches_of_texts
from gristmill.select.rules import DuplicateRules


def neighbours_of(corpus: Corpus, *, held: Path, asked: Path, rules: DuplicateRules, work: Path, **_: Any) -> Path:
    held_D, asked_D = np.load(held).astype(bool), np.load(asked).astype(bool)

    def texts(mask):
        for k, shard in enumerate(corpus.shards):
            first, end = corpus.firsts_S1[k], corpus.firsts_S1[k + 1]
            rows = np.flatnonzero(mask[first:end])
            for some, found in batches_of_texts(shard.documents, rows):
                yield [(int(first + row), text) for row, text in zip(some, found)]

    from gristmill.select.resemblance import HeldOutTexts

    index = HeldOutTexts(texts(held_D), rules)
    found = {}
    for batch in texts(asked_D):
        found |= index.find(batch)
    rows = sorted(found.items())
    path = work / "neighbours.parquet"
    write_table(
        path,
        pa.table(
            {
                "document": pa.array([d for d, _ in rows], pa.int64()),
                "held": pa.array([r.held for _, r in rows], pa.int64()),
                "jaccard": pa.array([r.jaccard for _, r in rows], pa.float64()),
                "containment": pa.array([r.containment for _, r in rows], pa.float64()),
            }
        ),
    )
    return path
