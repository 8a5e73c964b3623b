"""The guard: runs a job over records in a child process that may hang, crash or eat memory without losing the rest.

    parent                                            child (forkserver)
    ──────                                            ──────────────────
    waits                                      ◄──    for each record: cursor = place, arm the deadline, read, process,
    the child ends early: the cursor says where       append the result to the spool
    a new child resumes there, the record      ──►    gives it a reason instead of processing it, or leaves the stretch
    or the stretch of the file marked as bad          that cannot be read behind
    returns the value                          ◄──    at the end: job.finish(results of the spool) writes what is to stay

Reason codes: `error:<exception>`, `timeout`, `out_of_memory`, `killed:<signal>`. The spool is a file of results, one after
another; what is in it is never made twice, so results and their order do not depend on how often a child was started, and a
crash costs two starts of a child and what must be read again to reach its place.

The deadline is the kernel's interval timer with its default action, so it also ends C code that holds the interpreter
lock, and a child whose parent is gone. The end of a job has one, too, from one result that it takes to the next. The memory
limit is on address space, counted from the child's size at start (Linux; elsewhere there is none). A crash, a lack of memory
or of time is believed only when it happens again in a fresh
child: what went before in the same process may be to blame, or a machine that was busy or asleep.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gristmill.data.cursor import FINISHING, LEAVING, PROCESSING, READING, Cursor, State
from gristmill.data.guarded_child import OUT_OF_MEMORY_EXIT, run_child
from gristmill.data.job import FINISH_SECONDS, Job, Limits, Order, Place
from gristmill.data.processes import context_for
from gristmill.errors import DataError, Interrupted, ResourceError

MIN_CRASHES = 200  # before their share of a job's records counts
POLL_SECONDS = 0.5


def run_guarded(
    job: Job[Any, Any],
    *,
    spool: Path,
    deadline_seconds: float,
    max_memory_mb: int,
    max_crashed: float = 1.0,
    finish_seconds: float = FINISH_SECONDS,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[State], None] = lambda state: None,
) -> Any:
    """What `job.finish` returns. `spool` is the path of a temporary file, which is removed. progress: gets where the child is,
    twice a second.

    `deadline_seconds` is wall time per record, reading included; reading in pieces extends it (`data/deadline.py`).
    `finish_seconds` is wall time that `job.finish` may spend without taking a result or reading on.
    Raises what `job.finish` raises and the GristmillErrors of `job.items`, Interrupted once `should_stop()`, ResourceError
    when the end of the job, or leaving an unreadable stretch behind, ends its process time and again, and DataError when a larger
    share of the records than `max_crashed` end theirs.
    """
    limits = Limits(
        deadline_seconds=deadline_seconds,
        max_memory_mb=max_memory_mb,
        max_crashed=max_crashed,
        finish_seconds=finish_seconds,
    )
    spool.write_bytes(b"")
    try:
        return _run(job, spool, limits, should_stop, progress)
    finally:
        spool.unlink(missing_ok=True)


def _run(
    job: Job[Any, Any],
    spool: Path,
    limits: Limits,
    should_stop: Callable[[], bool],
    progress: Callable[[State], None],
) -> Any:
    state = State(part=0, entry=0, passed=0, records=0, spool_bytes=0, phase=READING)
    bad: dict[tuple[Place, int], str] = {}  # the last one: what comes before it is in the spool
    unreadable: dict[tuple[Place, int], str] = {}
    crashes = Counter[str]()
    suspects: dict[tuple[State, str], int] = {}
    alone = again = False
    while True:
        order = Order(start=state, spool=spool, bad=bad, unreadable=unreadable, alone=alone, again=again, limits=limits)
        with _started(job, order) as (process, connection, cursor):
            ended = _outcome(process, connection, cursor, limits, should_stop, progress)
            if isinstance(ended, _Outcome):
                if isinstance(ended.value, BaseException):
                    raise ended.value
                return ended.value
            state, reason = cursor.read(), ended
        times = suspects[state, reason] = suspects.get((state, reason), 0) + 1
        where = (Place(state.part, state.entry), state.passed)
        alone = state.phase == READING
        again = state.phase == FINISHING
        if times > 2 or (times > 1 and state.phase == LEAVING):
            doing = "writing its results" if state.phase == FINISHING else f"passing over what is unreadable at {where}"
            raise ResourceError(f"{job}: {doing} ended its process {times} times: {reason}.")
        if times > 1 and state.phase in (READING, PROCESSING):
            if state.phase == PROCESSING:
                bad = {where: reason}
            else:
                unreadable = {where: reason}
            crashes[reason] += 1
            _check_share(job, crashes, state.records, limits.max_crashed)


def _check_share(job: Job[Any, Any], crashes: Counter[str], records: int, max_crashed: float) -> None:
    if crashes.total() >= MIN_CRASHES and crashes.total() > max_crashed * (records + 1):
        listed = ", ".join(f"{reason} {count:,}" for reason, count in crashes.most_common())
        raise DataError(
            f"{job}: {crashes.total():,} of the first {records + 1:,} records ended the process that read them ({listed}); the "
            f"limit is {max_crashed:.0%}.\n  Look at the files, or at the limits of time and memory."
        )


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any


@contextlib.contextmanager
def _started(job: Job[Any, Any], order: Order) -> Iterator[tuple[BaseProcess, Connection, Cursor]]:
    context = context_for(job.process)
    receiver, sender = context.Pipe(duplex=False)
    cursor = Cursor.shared(context, order.start)
    process = context.Process(target=run_child, args=(sender, cursor, job, order), daemon=False)
    process.start()
    sender.close()
    try:
        yield process, receiver, cursor
    finally:
        process.kill()
        process.join()
        receiver.close()


def _outcome(
    process: BaseProcess,
    connection: Connection,
    cursor: Cursor,
    limits: Limits,
    should_stop: Callable[[], bool],
    progress: Callable[[State], None],
) -> _Outcome | str:
    """What the child sends, or the reason why it ended without. One that shows no sign of life for so long is ended."""
    beats, since = cursor.beats, time.monotonic()
    while not connection.poll(POLL_SECONDS):
        if should_stop():
            raise Interrupted("stopped in the middle of a shard; it starts over, and shards that are done are kept.")
        progress(cursor.read())
        if cursor.beats != beats:
            beats, since = cursor.beats, time.monotonic()
        elif time.monotonic() - since > limits.patience_seconds(cursor.read().phase):
            return "timeout"  # it keeps its own deadline from ending it
    try:
        return _Outcome(connection.recv())
    except (EOFError, OSError):  # OSError: it ended in the middle of a message
        process.join()
        return _reason(process.exitcode)


def _reason(exit_code: int | None) -> str:
    if exit_code == OUT_OF_MEMORY_EXIT:
        return "out_of_memory"
    if exit_code is not None and exit_code < 0:
        if -exit_code == signal.SIGALRM:
            return "timeout"
        try:
            return f"killed:{signal.Signals(-exit_code).name}"
        except ValueError:
            return f"killed:{-exit_code}"
    return f"exited:{exit_code}"
