"""Stages of a search: functions over numbers (shards, ranges) that each leave one file, and what a stage may leave behind.

A file that exists is finished, so a stage that was killed makes only those that are missing. Files that a later stage no longer
needs are removed after it, to bound the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from numpy.typing import DTypeLike

from gristmill.data.executor import Executor
from gristmill.errors import Interrupted
from gristmill.graph.progress import Report, unreported
from gristmill.select.files import Array, scratch

Result = TypeVar("Result", covariant=True)


class Makes(Protocol):
    """A function over numbers that leaves a file for each, atomically. Safe to repeat."""

    def target(self, number: int, /) -> Path:
        """The file."""
        ...

    def __call__(self, number: int, /) -> None:
        """Makes it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where and how stages run.

    texts: the executor of functions that read texts. columns: of those that read columns, which take milliseconds for a small
    corpus, so that a process for each would cost more. array_bytes: the largest array that this process holds in memory.
    """

    folder: Path
    texts: Executor
    columns: Executor
    array_bytes: int
    should_stop: Callable[[], bool]
    say: Callable[[str], None]
    progress: Report = unreported

    def make(self, function: Makes, numbers: Iterable[int], *, executor: Executor | None = None) -> None:
        """Makes the files that are missing; over columns where no other executor is given. Raises the first error."""
        self.leave_if_asked()
        missing = [number for number in numbers if not function.target(number).is_file()]
        run_all(self.columns if executor is None else executor, function, missing)

    def array(self, name: str, count: int, dtype: DTypeLike) -> Array:
        """A writable array of zeros, a mapped file of the folder where it is large."""
        return scratch(self.folder / name, count, dtype, max_bytes=self.array_bytes)

    def remove(self, *paths: Path) -> None:
        """Removes files that are no longer needed; a killed attempt may have removed some already."""
        for path in paths:
            path.unlink(missing_ok=True)

    def leave_if_asked(self) -> None:
        """Raises Interrupted when the search should stop."""
        if self.should_stop():
            raise Interrupted("stopped while searching for duplicates; what is finished is kept.")


def run_all(executor: Executor, function: Callable[[int], Result], numbers: Iterable[int]) -> dict[int, Result]:
    """Results by number. Raises the first error."""
    results: dict[int, Result] = {}
    for number, outcome in executor.map(function, numbers):
        if isinstance(outcome, Exception):
            raise outcome
        results[number] = outcome
    return results
