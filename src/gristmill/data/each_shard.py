"""What steps do that map a function over shards: where it runs, how far it is, which shards are this process's, when to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow.parquet as pq

from gristmill.data.executor import Executor, LocalThreads, executor_for, results_of
from gristmill.data.ray_tasks import RayTasks
from gristmill.errors import Interrupted
from gristmill.graph.progress import Position
from gristmill.graph.share import ShareDone
from gristmill.graph.step import StepContext

Item = TypeVar("Item")
Result = TypeVar("Result")


class Guarded(Protocol):
    """A function that hands its item to a guarded child and waits for it; progress takes how far it is."""

    def __call__(
        self, item: Any, /, *, should_stop: Callable[[], bool] = ..., progress: Callable[[Any], None] = ...
    ) -> Any:
        """What the guarded job returns."""
        ...


def each_shard(ctx: StepContext, function: Callable[[Path], Result], shards: Sequence[Path]) -> Iterator[Result]:
    """What the function returns for each shard, as they are done; it is safe to repeat and finds again what it did before.

    Raises the first error, Interrupted between two shards when the step is asked to stop, and at the end ShareDone where the shards
    of a rank are not all there are.
    """
    mine = ctx.machine.share_of(shards, ctx.name)
    sizes = {shard: num_rows(shard) for shard in mine}
    done, total = 0, sum(sizes.values())

    def at(documents: int) -> Position:
        return Position(done=documents, total=total, unit="document", counts={"documents": documents})

    ctx.progress(at(0))
    executor = shard_executor(ctx, num_items=len(mine), reads=shards[:1])
    for shard, result in results_of(executor, function, mine):
        done += sizes[shard]
        ctx.progress(at(done))
        yield result
        if ctx.should_stop():
            raise Interrupted(f"stopped; {ctx.name} resumes with the shards that are left.")
    if ctx.machine.share is not None:
        raise ShareDone(mine=len(mine), num_shards=len(shards))


def shard_executor(ctx: StepContext, *, num_items: int, reads: Iterable[Path]) -> Executor:
    """Where functions over shards run: on this machine, or on the Ray cluster of the run. reads: files that they must find there."""
    if ctx.machine.ray is not None:
        return _ray_tasks(ctx, ctx.should_stop, reads)
    return executor_for(ctx.machine, num_items=num_items, should_stop=ctx.should_stop)


def map_guarded(
    ctx: StepContext,
    function: Guarded,
    items: Sequence[Item],
    *,
    reads: Iterable[Path],
    should_stop: Callable[[], bool],
    progress: Callable[[Item, Any], None],
) -> Iterator[tuple[Item, Any]]:
    """As Executor.map, for a guarded function. progress: gets the item and how far the function is with it."""
    if ctx.machine.ray is not None:
        yield from _ray_tasks(ctx, should_stop, reads).map_guarded(function, items, progress=progress)
        return

    def one(item: Item) -> Any:
        return function(item, should_stop=should_stop, progress=partial(progress, item))

    yield from LocalThreads(threads=ctx.machine.processes, should_stop=should_stop).map(one, items)


def _ray_tasks(ctx: StepContext, should_stop: Callable[[], bool], reads: Iterable[Path]) -> RayTasks:
    assert ctx.machine.ray is not None
    return RayTasks(
        address=ctx.machine.ray,
        processes=ctx.machine.processes,
        must_see=(ctx.out, *reads),
        should_stop=should_stop,
    )


def num_rows(shard: Path) -> int:
    """Documents in a shard."""
    metadata: Any = pq.read_metadata(shard)
    return int(metadata.num_rows)
