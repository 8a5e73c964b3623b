"""Executors: the whole interface is `map(fn, items)`, which yields (item, result or error) as they are done.

A step maps a pure function over shards and does not care where it runs. The function is safe to repeat, its result is
small, and its output lies in files. Order is not promised. An error of one item is yielded, and the others continue.
"""

from __future__ import annotations

import multiprocessing.connection
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from gristmill.data.processes import context_for, exit_with_parent
from gristmill.errors import Interrupted, ResourceError
from gristmill.graph.machine import Machine

STOP_POLL_SECONDS = 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Where shard functions run."""

    def map(self, fn: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """Yields (item, what fn returned or the exception it raised), each item once, in any order."""
        ...


def _never() -> bool:
    return False


def executor_for(machine: Machine, *, num_items: int, should_stop: Callable[[], bool] = _never) -> Executor:
    """The executor of a step with so many items on this machine: `machine.processes` of them at a time."""
    if machine.processes == 1 or num_items == 1:
        return InProcess(should_stop=should_stop)
    return LocalProcesses(processes=machine.processes, should_stop=should_stop)


@dataclass(frozen=True, kw_only=True)
class InProcess:
    """Runs items one after the other in this process: for tests, debugging and tiny inputs."""

    should_stop: Callable[[], bool] = _never

    def map(self, fn: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """As Executor.map, in the order of the items; raises Interrupted between items once `should_stop()`."""
        for item in items:
            if self.should_stop():
                raise Interrupted("stopped between two shards; what is done is kept.")
            try:
                outcome: Result | Exception = fn(item)
            except Exception as error:
                outcome = error
            yield item, outcome


@dataclass(frozen=True, kw_only=True)
class LocalProcesses:
    """Runs up to `processes` items at a time, each in a process of its own (forkserver), driven from here.

    `fn` and items are pickled. A process that dies gives ResourceError for its item; the others are not touched.
    Closing the iterator ends the processes that run; so does `should_stop()`, which then raises Interrupted.
    """

    processes: int
    should_stop: Callable[[], bool] = _never

    def map(self, fn: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """As Executor.map, in the order in which items are done."""
        waiting = iter(items)
        running: dict[Connection, tuple[Item, BaseProcess]] = {}
        try:
            while True:
                while len(running) < max(1, self.processes):
                    try:
                        item = next(waiting)
                    except StopIteration:
                        break
                    connection, process = _start(fn, item)
                    running[connection] = (item, process)
                if not running:
                    return
                if self.should_stop():
                    raise Interrupted("stopped; shards that are done are kept, those under way start over.")
                for ready in multiprocessing.connection.wait(list(running), timeout=STOP_POLL_SECONDS):
                    assert isinstance(ready, Connection)
                    item, process = running.pop(ready)
                    yield item, _outcome(ready, process, item)
        finally:
            for connection, (_, process) in running.items():
                process.kill()
                process.join()
                connection.close()


@dataclass(frozen=True, kw_only=True)
class LocalThreads:
    """Runs up to `threads` items at a time in threads of this process: for functions that hand their work to a child.

    That is what a guarded function does (`guard.py`): its thread waits for the child and writes files. Nothing is
    pickled. A thread cannot be ended from outside, so `fn` has to look at the same `should_stop` and raise
    Interrupted; this executor then waits for the threads under way and raises Interrupted itself.
    """

    threads: int
    should_stop: Callable[[], bool] = _never

    def map(self, fn: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """As Executor.map, in the order in which items are done."""
        waiting = iter(items)
        done: queue.SimpleQueue[tuple[Item, Result | Exception]] = queue.SimpleQueue()
        running, stopped = 0, False
        while True:
            stopped = stopped or self.should_stop()
            while running < max(1, self.threads) and not stopped:
                try:
                    item = next(waiting)
                except StopIteration:
                    break
                threading.Thread(target=_run_in_thread, args=(done, fn, item), daemon=True).start()
                running += 1
            if not running:
                if stopped:
                    raise Interrupted("stopped; shards that are done are kept.")
                return
            item, outcome = done.get()
            running -= 1
            if isinstance(outcome, Interrupted):
                stopped = True
            else:
                yield item, outcome


def results_of(
    executor: Executor, fn: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """(item, result) as they are done; the first error of an item is raised, which ends the others."""
    for item, outcome in executor.map(fn, items):
        if isinstance(outcome, Exception):
            raise outcome
        yield item, outcome


def _run_in_thread(done: queue.SimpleQueue[Any], fn: Callable[[Any], Any], item: Any) -> None:
    try:
        outcome: Any = fn(item)
    except Exception as error:
        outcome = error
    done.put((item, outcome))


def _start(fn: Callable[[Any], Any], item: Any) -> tuple[Connection, BaseProcess]:
    context = context_for(fn)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, fn, item), daemon=False)
    process.start()
    sender.close()
    return receiver, process


def _run(connection: Connection, fn: Callable[[Any], Any], item: Any) -> None:
    exit_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        outcome: Any = fn(item)
    except Exception as error:
        outcome = error
    connection.send(outcome)
    connection.close()


def _outcome(connection: Connection, process: BaseProcess, item: Any) -> Any:
    try:
        outcome = connection.recv()
    except (EOFError, OSError):
        process.join()
        outcome = ResourceError(
            f"the process that worked on {item} ended with exit code {process.exitcode} and no result.\n"
            "  Often the system ran out of memory: use fewer processes, then run the same command again."
        )
    process.join()
    connection.close()
    return outcome
