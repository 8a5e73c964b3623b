"""The two searches that the split asks for, level by level: what resembles held-out text, and what its copies are now copies of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gristmill.data.executor import Executor
from gristmill.errors import Interrupted
from gristmill.graph.step import StepContext
from gristmill.select.catalogue import Catalogue, blocks, read_column, search_corpus, survivor_ranks
from gristmill.select.duplicates import duplicate_rules
from gristmill.select.files import new_array
from gristmill.select.freed import copies_among
from gristmill.select.levels import NEXT_SURVIVOR, RESEMBLANCE, TRAIN
from gristmill.select.resemblance import neighbours_of
from gristmill.select.split import is_one_of
from gristmill.select.words import Int64


def resembling(
    ctx: StepContext,
    catalogue: Catalogue,
    executor: Executor,
    work: Path,
    first: int,
    end: int,
    side_D: NDArray[np.int8],
    held: Int64,
    sides: Sequence[int],
) -> NDArray[np.void]:
    """RESEMBLANCE rows of those documents from first to end that are on one of the sides, against the held ones, by full texts."""
    if ctx.should_stop():
        raise Interrupted("stopped while splitting; what was written is kept.")
    if not len(held):
        return np.empty(0, dtype=RESEMBLANCE)
    folder = work / f"neighbours-{first}-{'own' if held[0] >= first else 'earlier'}-{sides[0]}"
    folder.mkdir(exist_ok=True)
    masks = {name: folder / f"{name}.npy" for name in ("asked", "held")}
    asked_D = new_array(masks["asked"], np.bool_, len(side_D))
    asked_D[first:end] = np.isin(side_D[first:end], sides)
    held_D = new_array(masks["held"], np.bool_, len(side_D))
    held_D[held] = True
    asked_D.flush()
    held_D.flush()
    rules = duplicate_rules(ctx.config["near_duplicates"])
    corpus = search_corpus(catalogue, {}, turns=masks["asked"], scores=masks["asked"])  # which has no survivors to rank
    found = neighbours_of(corpus, held=masks["held"], asked=masks["asked"], rules=rules, work=folder, executor=executor)
    return _rows(found, RESEMBLANCE)


def search_again(
    ctx: StepContext,
    catalogue: Catalogue,
    executor: Executor,
    work: Path,
    first: int,
    side_D: NDArray[np.int8],
    freed: Int64,
) -> NDArray[np.void]:
    """NEXT_SURVIVOR rows of those of the freed documents that are copies of one in train or of each other, by the rules and
    the order of `duplicates`."""
    folder = work / f"again-{first}"
    folder.mkdir(exist_ok=True)
    kept, turns, scores = (folder / f"{name}.npy" for name in ("kept", "turns", "scores"))
    kept_D = new_array(kept, np.bool_, len(catalogue))
    turn_D = new_array(turns, np.int8, len(catalogue))
    score_D = new_array(scores, np.float32, len(catalogue))
    for some in blocks(0, len(catalogue)):
        kept_D[some] = side_D[some] == TRAIN
    for shard in catalogue.shards:
        if shard.scores is not None:
            score_D[shard.first : shard.end] = read_column(shard.scores, "score")
    for array in (kept_D, score_D):
        array.flush()
    ranks = survivor_ranks(ctx.config["early"], ctx.config["late"], ctx.config["priority"])
    found = copies_among(
        search_corpus(catalogue, ranks, turns=turns, scores=scores),
        freed,
        turn_D,
        kept=kept,
        rules=duplicate_rules(ctx.config["near_duplicates"]),
        work=folder,
        executor=executor,
        should_stop=ctx.should_stop,
    )
    rows = _rows(found, NEXT_SURVIVOR)
    return rows[is_one_of(rows["document"], freed)]


def _rows(path: Path, kind: np.dtype[np.void]) -> NDArray[np.void]:
    table = pq.read_table(path)
    rows = np.empty(len(table), dtype=kind)
    for name in kind.names or ():
        rows[name] = table.column(name).to_numpy()
    return rows
