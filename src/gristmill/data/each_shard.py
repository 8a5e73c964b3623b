"""What steps do that map a function over the shards of documents of a source: run it, say how far it is, stop when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from gristmill.data.executor import executor_for, results_of
from gristmill.errors import Interrupted
from gristmill.graph.progress import Position
from gristmill.graph.step import StepContext

Result = TypeVar("Result")


def each_shard(ctx: StepContext, function: Callable[[Path], Result], shards: Sequence[Path]) -> Iterator[Result]:
    """What the function returns for each shard, as they are done; it is safe to repeat and finds again what it did before.

    Raises the first error, and Interrupted between two shards when the step is asked to stop.
    """
    sizes = {shard: num_rows(shard) for shard in shards}
    done, total = 0, sum(sizes.values())

    def at(documents: int) -> Position:
        return Position(done=documents, total=total, unit="document", counts={"documents": documents})

    ctx.progress(at(0))
    executor = executor_for(ctx.machine, num_items=len(shards), should_stop=ctx.should_stop)
    for shard, result in results_of(executor, function, shards):
        done += sizes[shard]
        ctx.progress(at(done))
        yield result
        if ctx.should_stop():
            raise Interrupted(f"stopped; {ctx.name} resumes with the shards that are left.")


def num_rows(shard: Path) -> int:
    """Documents in a shard."""
    metadata: Any = pq.read_metadata(shard)
    return int(metadata.num_rows)
