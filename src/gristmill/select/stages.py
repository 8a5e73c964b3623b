"""Stages of a search: functions over numbers (shards, ranges) that each leave one file, and what a stage may leave behind.

A file that exists is finished, so a stage that was killed makes only those that are missing. Files that a later stage no longer
needs are removed after it, to bound the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from gristmill.data.executor import Executor

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
    """Where the search keeps its files, and what to call before each stage: it may raise Interrupted."""

    folder: Path
    begin: Callable[[], None]

    def make(self, executor: Executor, function: Makes, numbers: Iterable[int]) -> None:
        """Makes the files that are missing."""
        self.begin()
        run_all(executor, function, [number for number in numbers if not function.target(number).is_file()])

    def remove(self, *paths: Path) -> None:
        """Removes files that are no longer needed; a killed attempt may have removed some already."""
        for path in paths:
            path.unlink(missing_ok=True)


def run_all(executor: Executor, function: Callable[[int], Result], numbers: Iterable[int]) -> dict[int, Result]:
    """Results by number. Raises the first error."""
    results: dict[int, Result] = {}
    for number, outcome in executor.map(function, numbers):
        if isinstance(outcome, Exception):
            raise outcome
        results[number] = outcome
    return results
