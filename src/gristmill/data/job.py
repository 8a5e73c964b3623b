"""What a guarded job is, and what a child process is told of it; see `guard.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from gristmill.data.cursor import FINISHING, State

GRACE_SECONDS = 30.0
FINISH_SECONDS = 600.0  # for one step of writing: disks over a network stall for minutes

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

    def is_record(self, result: Result) -> bool:
        """Whether it is the result of a record, of which only a share may end their process; False for what lies between them."""
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
class Limits:
    """Per record: wall time, memory above that of the child at its start; per job: the share of records that may end their child.

    finish_seconds: wall time between two signs of life while the job is finished.
    """

    deadline_seconds: float
    max_memory_mb: int
    max_crashed: float
    finish_seconds: float

    def patience_seconds(self, phase: int) -> float:
        """How long a child may show no sign of life: longer than it takes its own deadline to end it."""
        return 2 * (self.finish_seconds if phase == FINISHING else self.deadline_seconds) + GRACE_SECONDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a child is told: where to start, which item or stretch there is known to be bad, and its limits."""

    start: State
    spool: Path
    bad: dict[tuple[Place, int], str]
    unreadable: dict[tuple[Place, int], str]
    alone: bool
    again: bool
    limits: Limits
