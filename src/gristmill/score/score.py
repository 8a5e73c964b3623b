"""STEP score/<source>: a raw quality score for every document of a source; nothing is dropped.

Reads extract/<source> and the classifier that select.min_scores names for it. Writes scores-NNNNN.parquet (id, score): same
rows, same order as documents-NNNNN.parquet. Documents that the classifier was trained on take their out-of-fold score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.data.document import read_batches
from gristmill.data.each_shard import each_shard
from gristmill.data.write import write_table
from gristmill.errors import DataError
from gristmill.extract.outputs import Extracted
from gristmill.graph.step import StepContext
from gristmill.score.classifiers import Classifier, load_classifier
from gristmill.score.outputs import TrainedClassifier

VERSION = 1
SCORE_SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("score", pa.float32(), nullable=False)])
STEM = "scores"


@dataclass(frozen=True, kw_only=True)
class ScoreShard:
    """The function over shards: reads one shard of documents, writes its scores. Safe to repeat."""

    model: Path
    out_of_fold: Path | None
    out: Path

    def __call__(self, shard: Path) -> int:
        """Scores one shard unless that was done before; returns its number of documents."""
        target = self.out / shard.name.replace("documents", STEM)
        if target.is_file():
            return int(pq.ParquetFile(target).metadata.num_rows)
        known = {} if self.out_of_fold is None else read_scores(self.out_of_fold)
        scores = score_documents(load_classifier(self.model), shard, known)
        write_table(target, scores)
        return int(scores.num_rows)


def run(ctx: StepContext) -> dict[str, Any]:
    """Scores all shards. A stopped or killed run resumes with the shards that are not there yet."""
    classifier: TrainedClassifier = ctx.inputs["classifier"]
    out_of_fold = classifier.out_of_fold if ctx.config["labelled_here"] else None  # ids are unique only within a source
    function = ScoreShard(model=classifier.model, out_of_fold=out_of_fold, out=ctx.out)
    documents_in: Extracted = ctx.inputs["documents"]
    return {"documents": sum(each_shard(ctx, function, documents_in.documents))}


def score_documents(model: Classifier, shard: Path, known: Mapping[str, float]) -> pa.Table:
    """The scores of one shard of documents, in order; `known` scores by id come before the model's."""
    ids: list[str] = []
    scores: list[float] = []
    for batch in read_batches(shard, columns=["id", "text"]):
        names = batch.column("id").to_pylist()
        raw = model.score(batch.column("text").to_pylist()).tolist()
        ids += names
        scores += [known.get(name, score) for name, score in zip(names, raw, strict=True)]
    return pa.table({"id": pa.array(ids, pa.string()), "score": pa.array(scores, pa.float32())}, schema=SCORE_SCHEMA)


def read_scores(path: Path) -> dict[str, float]:
    """Score by id, from a file with the columns id and score. Raises DataError when an id has two scores."""
    scores: dict[str, float] = {}
    rows = 0
    for batch in read_batches(path, columns=["id", "score"]):
        scores.update(zip(batch.column("id").to_pylist(), batch.column("score").to_pylist(), strict=True))
        rows += batch.num_rows
    if len(scores) != rows:
        raise DataError(f"{path} scores {rows - len(scores)} documents twice; ids within a source must be unique.")
    return scores
