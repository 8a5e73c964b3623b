"""The guard: runs a job over documents in a child process that may hang, crash or eat memory without losing the rest.

    parent                                            child (forkserver)
    ──────                                            ──────────────────
    reads results from a pipe, in order        ◄──    for each document: cursor = position, arm the deadline, process
    the child ends early: the cursor says where
    a new child resumes there, the document    ──►    gives it a reason code instead of processing it
    marked as bad

Reason codes: `error:<exception>`, `timeout`, `out_of_memory`, `killed:<signal>`. Results that had reached the parent
are kept; the order and content of results do not depend on how often a child was started.

The deadline is the kernel's interval timer with its default action, so it also ends C code that holds the interpreter
lock, and a child whose parent is gone. The memory limit is on address space, counted from the child's size at start
(Linux; elsewhere there is none). A crash, a lack of memory or of time is believed only when it happens again in a fresh
child: what went before in the same process may be to blame, or a machine that was busy or asleep.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gristmill.errors import DataError

SEND_EVERY_SECONDS = 0.2
SEND_EVERY_RESULTS = 64
GRACE_SECONDS = 30.0
MAX_CRASHES = 1000
OUT_OF_MEMORY_EXIT = 86
READING, PROCESSING = 0, 1

Document = TypeVar("Document")
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)


class Job(Protocol[Document, ResultOut]):
    """What the child does. A job is pickled; `documents` must give the same documents in the same order each time."""

    def documents(self) -> Iterator[Document]:
        """The documents of this job, read anew by each child. An exception here ends the job."""
        ...

    def process(self, document: Document) -> ResultOut:
        """The result of one document; an exception becomes the reason `error:<its name>`."""
        ...

    def failed(self, document: Document, reason: str, detail: str) -> ResultOut:
        """The result of a document that has none of its own. Must be cheap and safe."""
        ...

    def summary(self) -> Any:
        """What the child that came to the end has counted while reading; handed on in Finished."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The last thing `run_guarded` yields: how many documents the job read, counted in the child, and its summary."""

    num_documents: int
    summary: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class _Order:
    """What a child is told: where to start, which documents are known to be bad, and its limits."""

    start: int
    bad: dict[int, str]
    deadline_seconds: float
    max_memory_mb: int


def run_guarded(
    job: Job[Document, Result], *, deadline_seconds: float, max_memory_mb: int
) -> Generator[Result | Finished, None, None]:
    """Yields one result per document, in order, then Finished.

    `deadline_seconds` is wall time per document, reading included. Close the generator to stop the child.
    Raises what `job.documents` raises, and DataError when reading itself crashes twice at the same place or when the
    children of this job crash more than MAX_CRASHES times.
    """
    bad: dict[int, str] = {}
    suspects: dict[tuple[int, str], int] = {}
    done = 0
    for _ in range(MAX_CRASHES):
        order = _Order(start=done, bad=bad, deadline_seconds=deadline_seconds, max_memory_mb=max_memory_mb)
        with _started(job, order) as (process, connection, cursor):
            for message in _messages(process, connection, deadline_seconds):
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, Finished):
                    yield message
                    return
                for result in message:
                    done += 1
                    yield result
            process.join()
            position, phase = cursor[0], cursor[1]
            reason = _reason(process.exitcode)
        times = suspects[position, reason] = suspects.get((position, reason), 0) + 1
        if phase == READING and times > 1:
            raise DataError(f"reading record {position} (counted from 0) of {job} ended its process: {reason}.")
        if times > 1:
            bad[position] = reason
    raise DataError(f"{job} crashed {MAX_CRASHES} times; the last document was {position}, the reason {reason}.")


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
    """The forkserver context, its server running; one that starts now has the module of `job` loaded.

    The server begins with SIGINT blocked, as do its children: Ctrl-C goes to the whole group and is the parent's to handle.
    """
    context = multiprocessing.get_context("forkserver")
    function = job.func if isinstance(job, partial) else job
    module = getattr(function, "__module__", None)
    if isinstance(module, str) and module != "__main__":
        context.set_forkserver_preload([module])
    resource_tracker.ensure_running()  # which the server would start too, and which unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


# ── parent ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _started(job: Any, order: _Order) -> Iterator[tuple[BaseProcess, Connection, Any]]:
    context = context_for(job.process)
    receiver, sender = context.Pipe(duplex=False)
    cursor = context.RawArray("q", [order.start, READING])
    process = context.Process(target=_child, args=(sender, cursor, job, order), daemon=False)
    process.start()
    sender.close()
    try:
        yield process, receiver, cursor
    finally:
        process.kill()
        process.join()
        receiver.close()


def _messages(process: BaseProcess, connection: Connection, deadline_seconds: float) -> Iterator[Any]:
    """What the child sends until it ends; a child that is silent beyond its own deadline is killed as timed out."""
    patience = GRACE_SECONDS + 2 * deadline_seconds
    while True:
        if not connection.poll(patience):
            _end_as_timeout(process)
        try:
            yield connection.recv()
        except (EOFError, OSError):  # OSError: it ended in the middle of a message
            return


def _end_as_timeout(process: BaseProcess) -> None:
    """Ends a process the way its own deadline would; if that signal is blocked, with SIGKILL."""
    if process.pid is not None and process.exitcode is None:
        os.kill(process.pid, signal.SIGALRM)
    process.join(5.0)
    process.kill()


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


def _child(connection: Connection, cursor: Any, job: Job[Any, Any], order: _Order) -> None:
    exit_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    _limit_memory(order.max_memory_mb)
    try:
        _work(connection, cursor, job, order)
    except MemoryError:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise SystemExit(OUT_OF_MEMORY_EXIT) from None
    except BrokenPipeError:
        raise SystemExit(1) from None  # the parent is gone


def _work(connection: Connection, cursor: Any, job: Job[Any, Any], order: _Order) -> None:
    results: list[Any] = []
    sent_at = time.monotonic()
    documents: Iterator[Any] | None = None
    for position in itertools.count():
        signal.setitimer(signal.ITIMER_REAL, order.deadline_seconds)
        cursor[0], cursor[1] = position, READING
        try:
            documents = documents if documents is not None else iter(job.documents())
            document = next(documents)
        except StopIteration:
            _send(connection, [results, Finished(num_documents=position, summary=job.summary())])
            return
        except MemoryError:
            raise
        except Exception as error:
            _send(connection, [results, error])
            return
        if position < order.start:
            continue
        cursor[1] = PROCESSING
        results.append(_result(job, document, order.bad.get(position)))
        if len(results) >= SEND_EVERY_RESULTS or time.monotonic() - sent_at > SEND_EVERY_SECONDS:
            _send(connection, [results])
            results, sent_at = [], time.monotonic()


def _result(job: Job[Any, Any], document: Any, known_reason: str | None) -> Any:
    if known_reason is not None:
        return job.failed(document, known_reason, "")
    try:
        return job.process(document)
    except MemoryError:
        raise
    except Exception as error:  # any error of a step on hostile input becomes a reason, never a lost shard
        return job.failed(document, f"error:{type(error).__name__}", str(error)[:300])


def _send(connection: Connection, messages: Sequence[Any]) -> None:
    """Sends with the deadline off: a slow parent is no fault of the document."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for message in messages:
        connection.send(message)


def _limit_memory(max_memory_mb: int) -> None:
    status = Path("/proc/self/statm")
    if status.exists():
        size = int(status.read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = size + max_memory_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))
