"""The child process of a guarded job: reads, processes, appends each result to the spool, and finishes the job; see `guard.py`."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gristmill.data import deadline
from gristmill.data.cursor import FINISHING, LEAVING, PROCESSING, READING, Cursor, State
from gristmill.data.job import Job, Order, Place
from gristmill.data.processes import exit_with_parent
from gristmill.data.spool import Spool, SpoolError, read_spool
from gristmill.errors import GristmillError

OUT_OF_MEMORY_EXIT = 86


def run_child(connection: Connection, cursor: Cursor, job: Job[Any, Any], order: Order) -> None:
    """Carries out what is left of a job and sends what its end gives, or the error that ends the job."""
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
    except SpoolError as error:
        value = error.__cause__
    except Exception as error:
        value = error
    deadline.disarm()
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        connection.send(value)


class _Worker:
    """One child's way through the job: a cursor and a spool that move together."""

    def __init__(self, cursor: Cursor, job: Job[Any, Any], order: Order) -> None:
        self.cursor, self.job, self.order = cursor, job, order
        self.place = Place(order.start.part, order.start.entry)
        self.passed = 0  # items since `place`
        self.records = order.start.records  # results of records so far
        self.spool = Spool(order.spool, order.start.spool_bytes)

    def run(self) -> Any:
        """Reads and processes what is left, then finishes the job."""
        to_pass = self.order.start.passed
        place: Place | None = self.place if self.order.start.phase != FINISHING else None
        while place is not None:
            place = self._read_from(place, to_pass)
            to_pass = 0
        self._at(FINISHING)
        self.spool.close()
        deadline.arm(self.order.limits.finish_seconds, beat=self.cursor.beat)
        return self.job.finish(self._results(), again=self.order.again)

    def _results(self) -> Iterator[Any]:
        for result in read_spool(self.order.spool):
            deadline.extend()
            yield result

    def _read_from(self, place: Place, to_pass: int) -> Place | None:
        """Processes items from `place` on, the first `to_pass` of which have results. Returns where reading resumes after
        what is unreadable; None at the end."""
        self.place, self.passed = place, 0
        self._at(READING, passed=to_pass)
        try:
            items = self.job.items(place, alone=self.order.alone)
            self._pass_over(items, to_pass)
            while True:
                if why := self.order.unreadable.get((self.place, self.passed)):
                    return self._leave(why, "")
                self._arm()
                self._process(*next(items))
        except StopIteration:
            return None
        except (MemoryError, GristmillError, SpoolError):
            raise
        except Exception as error:  # any error of a reader on hostile input costs its stretch, never the source
            return self._leave(f"error:{type(error).__name__}", str(error)[:300])

    def _pass_over(self, items: Iterator[Any], count: int) -> None:
        """Goes over items that have results. Each has the deadline at least: arming for each would take longer than reading."""
        seconds, armed = self.order.limits.deadline_seconds, -math.inf
        for _ in range(count):
            if time.monotonic() - armed > seconds:
                deadline.arm(2 * seconds, beat=self.cursor.beat)
                self.cursor.beat()
                armed = time.monotonic()
            next(items)
            self.passed += 1

    def _process(self, item: Any, begins: Place | None) -> None:
        if begins is not None and begins != self.place:
            self.place, self.passed = begins, 0
        self._at(PROCESSING)
        result = _result(self.job, item, self.order.bad.get((self.place, self.passed)))
        deadline.disarm()  # a slow disk is no fault of the record
        self._append(result)
        self.passed += 1
        self._at(READING)

    def _leave(self, reason: str, detail: str) -> Place | None:
        self._at(LEAVING)
        self._arm()
        results, resume = self.job.leave(reason, detail)
        deadline.disarm()
        for result in results:
            self._append(result)
        return resume

    def _append(self, result: Any) -> None:
        self.spool.append(result)
        self.records += self.job.is_record(result)

    def _arm(self) -> None:
        deadline.arm(self.order.limits.deadline_seconds, beat=self.cursor.beat)

    def _at(self, phase: int, *, passed: int | None = None) -> None:
        self.cursor.write(
            State(
                part=self.place.part,
                entry=self.place.entry,
                passed=self.passed if passed is None else passed,
                records=self.records,
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


def _limit_memory(max_memory_mb: int) -> None:
    status = Path("/proc/self/statm")
    if status.exists():
        size = int(status.read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = size + max_memory_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))
