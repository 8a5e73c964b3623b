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
lock, and a child whose parent is gone. The memory limit is on address space, counted from the child's size at start
(Linux; elsewhere there is none). A crash, a lack of memory or of time is believed only when it happens again in a fresh
child: what went before in the same process may be to blame, or a machine that was busy or asleep.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from gristmill.data import deadline
from gristmill.data.cursor import FINISHING, LEAVING, PROCESSING, READING, Cursor, State
from gristmill.errors import DataError, GristmillError, Interrupted, ResourceError

GRACE_SECONDS = 30.0
MIN_CRASHES = 200  # before their share of a job's records counts
POLL_SECONDS = 0.5
OUT_OF_MEMORY_EXIT = 86

Item = TypeVar("Item")
Result = TypeVar("Result")


class Place(NamedTuple):
    """Where reading can begin: an entry (such as a byte offset) of the part of the job with this number."""

    part: int = 0
    entry: int = 0


class Job(Protocol[Item, Result]):
    """What the child does. A job is pickled; from one place, `items` must give the same items each time."""

    def items(self, place: Place, *, alone: bool) -> Iterator[tuple[Item, Place | None]]:
        """The items from `place` on, each with the place at which reading could begin with it, where there is one.

        alone: read as little at once as can be, for reading more ended the process. A GristmillError here ends the job; any
        other error costs the stretch in which it was raised. Called before `leave`, which may come before the first item.
        """
        ...

    def process(self, item: Item) -> Result:
        """The result of one item; an exception becomes the reason `error:<its name>`."""
        ...

    def failed(self, item: Item, reason: str, detail: str) -> Result:
        """The result of an item that has none of its own. Must be cheap and safe."""
        ...

    def leave(self, reason: str, detail: str) -> tuple[list[Result], Place | None]:
        """Results for the stretch that cannot be read, which begins after the last item that `items` yielded in this process,
        and the place at which reading resumes; None at the end of the job."""
        ...

    def finish(self, results: Iterator[Result], *, again: bool) -> Any:
        """Called once all is read, with all results in order. Writes what is to stay; the value is handed to the parent.

        again: it was called before and ended its process.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Order:
    """What a child is told: where to start, which items are known to be bad, and its limits."""

    start: State
    spool: Path
    bad: dict[tuple[Place, int], str]
    unreadable: dict[tuple[Place, int], str]
    alone: bool
    again: bool
    limits: _Limits


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limits:
    """See run_guarded."""

    deadline_seconds: float
    max_memory_mb: int
    max_crashed: float

    @property
    def patience_seconds(self) -> float:
        """How long a child may show no sign of life."""
        return 2 * self.deadline_seconds + GRACE_SECONDS


def run_guarded(
    job: Job[Any, Any],
    *,
    spool: Path,
    deadline_seconds: float,
    max_memory_mb: int,
    max_crashed: float = 1.0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Any:
    """What `job.finish` returns. `spool` is the path of a temporary file, which is removed.

    `deadline_seconds` is wall time per record, reading included; reading in pieces extends it (`data/deadline.py`).
    Raises what `job.finish` raises and the GristmillErrors of `job.items`, Interrupted once `should_stop()`, ResourceError
    when the end of the job, or leaving an unreadable stretch behind, ends its process time and again, and DataError when a larger
    share of the records than `max_crashed` end theirs.
    """
    limits = _Limits(deadline_seconds=deadline_seconds, max_memory_mb=max_memory_mb, max_crashed=max_crashed)
    spool.write_bytes(b"")
    try:
        return _run(job, spool, limits, should_stop)
    finally:
        spool.unlink(missing_ok=True)


def _run(job: Job[Any, Any], spool: Path, limits: _Limits, should_stop: Callable[[], bool]) -> Any:
    state = State(part=0, entry=0, passed=0, results=0, spool_bytes=0, phase=READING)
    bad: dict[tuple[Place, int], str] = {}
    unreadable: dict[tuple[Place, int], str] = {}
    suspects: dict[tuple[State, str], int] = {}
    alone = again = False
    while True:
        order = _Order(
            start=state, spool=spool, bad=bad, unreadable=unreadable, alone=alone, again=again, limits=limits
        )
        with _started(job, order) as (process, connection, cursor):
            ended = _outcome(process, connection, cursor, limits.patience_seconds, should_stop)
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
        if times > 1:
            if state.phase == PROCESSING:
                bad[where] = reason
            elif state.phase == READING:
                unreadable[where] = reason
            _check_share(job, Counter([*bad.values(), *unreadable.values()]), state.results, limits.max_crashed)


def _check_share(job: Job[Any, Any], crashes: Counter[str], results: int, max_crashed: float) -> None:
    if crashes.total() >= MIN_CRASHES and crashes.total() > max_crashed * (results + 1):
        listed = ", ".join(f"{reason} {count:,}" for reason, count in crashes.most_common())
        raise DataError(
            f"{job}: {crashes.total():,} of the first {results + 1:,} records ended the process that read them ({listed}); the "
            f"limit is {max_crashed:.0%}.\n  Look at the files, or at the limits of time and memory."
        )


def exit_with_parent() -> None:
    """Ends this child process as soon as the process that started it is gone, however that came about.

    An orphan would keep writing to files that the next attempt writes too.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def context_for(job: Any) -> ForkServerContext:
    """The forkserver context, its server running; one that starts now has the module of `job` loaded, and the command line's,
    which each child would else import when it prepares its main module.

    The server begins with SIGINT blocked, as do its children: Ctrl-C goes to the whole group and is the parent's to handle.
    """
    context = multiprocessing.get_context("forkserver")
    function = job.func if isinstance(job, partial) else job
    module = getattr(function, "__module__", None)
    wanted = (module, "gristmill.cli")
    context.set_forkserver_preload([name for name in wanted if name in sys.modules and name != "__main__"])
    resource_tracker.ensure_running()  # which the server would start too, and which unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


# ── parent ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any


@contextlib.contextmanager
def _started(job: Job[Any, Any], order: _Order) -> Iterator[tuple[BaseProcess, Connection, Cursor]]:
    context = context_for(job.process)
    receiver, sender = context.Pipe(duplex=False)
    cursor = Cursor.shared(context, order.start)
    process = context.Process(target=_child, args=(sender, cursor, job, order), daemon=False)
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
    patience_seconds: float,
    should_stop: Callable[[], bool],
) -> _Outcome | str:
    """What the child sends, or the reason why it ended without. One that shows no sign of life for so long is ended."""
    beats, since = cursor.beats, time.monotonic()
    while not connection.poll(POLL_SECONDS):
        if should_stop():
            raise Interrupted("stopped in the middle of a shard; it starts over, and shards that are done are kept.")
        if cursor.beats != beats or cursor.read().phase == FINISHING:
            beats, since = cursor.beats, time.monotonic()
        elif time.monotonic() - since > patience_seconds:
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


# ── child ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _child(connection: Connection, cursor: Cursor, job: Job[Any, Any], order: _Order) -> None:
    exit_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    _limit_memory(order.limits.max_memory_mb)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # hostile records do not fill the disk with dumps
    try:
        value: Any = _Worker(cursor, job, order).run()
    except MemoryError:
        deadline.disarm()
        raise SystemExit(OUT_OF_MEMORY_EXIT) from None
    except _Writing as error:
        value = error.__cause__
    except Exception as error:
        value = error
    deadline.disarm()
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        connection.send(value)


class _Worker:
    """One child's way through the job: a cursor and a spool that move together."""

    def __init__(self, cursor: Cursor, job: Job[Any, Any], order: _Order) -> None:
        self.cursor, self.job, self.order = cursor, job, order
        self.place = Place(order.start.part, order.start.entry)
        self.passed = 0  # items since `place`
        self.spool = _Spool(order.spool, order.start.results, order.start.spool_bytes)

    def run(self) -> Any:
        """Reads and processes what is left, then finishes the job."""
        to_pass = self.order.start.passed
        place: Place | None = self.place if self.order.start.phase != FINISHING else None
        while place is not None:
            place = self._read_from(place, to_pass)
            to_pass = 0
        self._at(FINISHING)
        deadline.disarm()
        self.spool.close()
        return self.job.finish(read_spool(self.order.spool), again=self.order.again)

    def _read_from(self, place: Place, to_pass: int) -> Place | None:
        """Processes items from `place` on, the first `to_pass` of which have results. Returns where reading resumes after
        what is unreadable; None at the end."""
        self.place, self.passed = place, 0
        self._at(READING, passed=to_pass)
        try:
            items = self.job.items(place, alone=self.order.alone)
            for _ in range(to_pass):
                self._arm()
                next(items)
                self.passed += 1
            while True:
                if why := self.order.unreadable.get((self.place, self.passed)):
                    return self._leave(why, "")
                self._arm()
                self._process(*next(items))
        except StopIteration:
            return None
        except (MemoryError, GristmillError, _Writing):
            raise
        except Exception as error:  # any error of a reader on hostile input costs its stretch, never the source
            return self._leave(f"error:{type(error).__name__}", str(error)[:300])

    def _process(self, item: Any, begins: Place | None) -> None:
        if begins is not None and begins != self.place:
            self.place, self.passed = begins, 0
        self._at(PROCESSING)
        result = _result(self.job, item, self.order.bad.get((self.place, self.passed)))
        deadline.disarm()  # a slow disk is no fault of the record
        self.spool.append(result)
        self.passed += 1
        self._at(READING)

    def _leave(self, reason: str, detail: str) -> Place | None:
        self._at(LEAVING)
        self._arm()
        results, resume = self.job.leave(reason, detail)
        deadline.disarm()
        for result in results:
            self.spool.append(result)
        return resume

    def _arm(self) -> None:
        deadline.arm(self.order.limits.deadline_seconds, beat=self.cursor.beat)

    def _at(self, phase: int, *, passed: int | None = None) -> None:
        self.cursor.write(
            State(
                part=self.place.part,
                entry=self.place.entry,
                passed=self.passed if passed is None else passed,
                results=self.spool.num_results,
                spool_bytes=self.spool.num_bytes,
                phase=phase,
            )
        )


def _result(job: Job[Any, Any], item: Any, known_reason: str | None) -> Any:
    if known_reason is not None:
        return job.failed(item, known_reason, "")
    try:
        return job.process(item)
    except MemoryError:
        raise
    except Exception as error:  # any error of a step on hostile input becomes a reason, never a lost shard
        return job.failed(item, f"error:{type(error).__name__}", str(error)[:300])


class _Writing(Exception):
    """The spool cannot be written: no fault of the record."""


class _Spool:
    """Results appended to a file, each in one write: a child that ends leaves whole results, and a torn one behind them."""

    def __init__(self, path: Path, num_results: int, num_bytes: int) -> None:
        self.num_results, self.num_bytes = num_results, num_bytes
        self._file = os.open(path, os.O_WRONLY)
        os.ftruncate(self._file, num_bytes)
        os.lseek(self._file, num_bytes, os.SEEK_SET)

    def append(self, result: Any) -> None:
        data = pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
        view = memoryview(len(data).to_bytes(8, "little") + data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise _Writing(str(error)) from error
        self.num_results += 1
        self.num_bytes += 8 + len(data)

    def close(self) -> None:
        os.close(self._file)


def read_spool(path: Path) -> Iterator[Any]:
    """The results in a spool, in order."""
    with path.open("rb") as file:
        while head := file.read(8):
            yield pickle.loads(file.read(int.from_bytes(head, "little")))


def _limit_memory(max_memory_mb: int) -> None:
    status = Path("/proc/self/statm")
    if status.exists():
        size = int(status.read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = size + max_memory_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))
