"""Jobs and functions that child processes of the guard tests load by name."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.data.deadline import extend
from gristmill.data.guard import run_guarded
from gristmill.data.job import Place
from gristmill.errors import DataError


def _hang() -> str:
    while True:
        pass


def _hang_in_c() -> str:
    # Catastrophic backtracking holds the interpreter lock: no Python signal handler would run.
    import re

    re.match(r"(a+)+$", "a" * 64 + "b")
    return "never"


def _hang_and_ignore_the_signal() -> str:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    return _hang()


def _eat_memory() -> str:
    blocks = []
    while True:
        blocks.append(bytearray(16_000_000))


def _raise() -> str:
    raise ValueError("this document is bad")


def _segfault() -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "never"


def _work_in_pieces() -> str:
    for _ in range(12):
        time.sleep(0.1)
        extend()
    return "ok"


def _work_slowly() -> str:
    time.sleep(0.12)
    return "ok"


def _fill_the_disk() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    return "ok"


ACTIONS = {
    "fill the disk": _fill_the_disk,
    "hang": _hang,
    "hang_in_c": _hang_in_c,
    "hang and ignore the signal": _hang_and_ignore_the_signal,
    "eat_memory": _eat_memory,
    "raise": _raise,
    "segfault": _segfault,
    "work in pieces": _work_in_pieces,
    "work slowly": _work_slowly,
}


ONCE = "hang once, by "


def _only_once(mark: Path) -> str | None:
    """To hang where the file is not there yet."""
    if mark.exists():
        return None
    mark.touch()
    return "hang"


@dataclass(frozen=True)
class HostileJob:
    """Items are their positions, in parts of `part_size`; the named ones misbehave while they are read or processed.

    every: an item can be read from where its number is a multiple of this. started: a file that gets a line per child.
    crowd: the reading of these ends unless they are read alone. finishing: what happens at the end, "at first" only or always.
    between: of so many items one is a record.
    """

    num_items: int
    processing: dict[int, str] = field(default_factory=dict)
    reading: dict[int, str] = field(default_factory=dict)
    refuse_at: int = -1
    seconds_per_item: float = 0.0
    every: int = 1
    part_size: int = 1_000_000_000
    started: Path | None = None
    crowd: frozenset[int] = frozenset()
    finishing: str = ""
    between: int = 1

    def items(self, place: Place, *, alone: bool) -> Iterator[tuple[int, Place | None]]:
        if self.started is not None:
            with self.started.open("a") as file:
                file.write(f"{place.part} {place.entry}\n")
        object.__setattr__(self, "yielded", place.part * self.part_size + place.entry - 1)
        return self._items(place, alone)

    def _items(self, place: Place, alone: bool) -> Iterator[tuple[int, Place | None]]:
        for position in range(place.part * self.part_size + place.entry, self.num_items):
            if position == self.refuse_at:
                raise DataError(f"record {position} is no record")
            if position in self.crowd and not alone:
                _eat_memory()
            _act(self.reading.get(position))
            part, entry = divmod(position, self.part_size)
            object.__setattr__(self, "yielded", position)
            yield position, Place(part, entry) if entry % self.every == 0 else None

    def leave(self, reason: str, detail: str) -> tuple[list[tuple[int, str]], Place | None]:
        lost = self.yielded + 1  # type: ignore[attr-defined]
        resume = lost + 1
        while resume % self.part_size % self.every:
            resume += 1
        rows = [(position, reason) for position in range(lost, min(resume, self.num_items))]
        return rows, Place(*divmod(resume, self.part_size)) if resume < self.num_items else None

    def process(self, item: int) -> tuple[int, str]:
        time.sleep(self.seconds_per_item)
        return item, _act(self.processing.get(item))

    def is_record(self, result: tuple[int, str]) -> bool:
        return result[0] % self.between == 0

    def failed(self, item: int, reason: str, detail: str) -> tuple[int, str]:
        return item, reason

    def finish(self, results: Iterator[Any], *, again: bool) -> list[Any]:
        if self.finishing.startswith("slowly"):
            taken = []
            for result in results:
                time.sleep(0.1)
                taken.append(result)
            return taken
        if self.finishing.startswith("hangs"):
            return ACTIONS[self.finishing.removeprefix("hangs: ")]()
        if self.finishing and not (again and self.finishing == "at first"):
            _segfault()
        return list(results)


def _act(action: str | None) -> str:
    if action is not None and action.startswith(ONCE):
        action = _only_once(Path(action.removeprefix(ONCE)))
    return "ok" if action is None else ACTIONS[action]()


def square(number: int) -> int:
    if number == 3:
        raise ValueError("three is refused")
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


# ── functions of items, as Ray tasks carry them ──────────────────────────────────────────────────────────────────────


def square_on(folder: Path, number: int) -> int:
    """Counts its attempts in a file."""
    path = folder / str(number)
    path.write_text(str(int(path.read_text()) + 1 if path.exists() else 1))
    return square(number)


def square_slowly(folder: Path, number: int) -> int:
    """Says that it has begun, then takes its time."""
    (folder / str(number)).touch()
    time.sleep(1.0)
    return number * number


def guarded(
    folder: Path,
    bad: dict[int, str],
    number: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda results: None,
) -> Any:
    """Sixty records, some of them bad."""
    return run_guarded(
        HostileJob(60, processing=bad, seconds_per_item=0.05),
        spool=folder / f"spool-{number}.tmp",
        deadline_seconds=1.0,
        max_memory_mb=300,
        should_stop=should_stop,
        progress=lambda state: progress(state.records),
    )


class Hanging(HostileJob):
    """Leaves the number of its process and hangs."""

    def process(self, item: int) -> tuple[int, str]:
        assert self.started is not None
        (self.started.parent / f"pid-{os.getpid()}").write_text(str(os.getpid()))
        time.sleep(600)
        return item, "never"


def guarded_hanging(folder: Path, number: int, *, progress: Callable[[int], None]) -> Any:
    """Hangs until its process is ended."""
    return run_guarded(
        Hanging(3, started=folder / "started"),
        spool=folder / f"spool-{number}.tmp",
        deadline_seconds=600.0,
        max_memory_mb=300,
        progress=lambda state: progress(state.records),
    )
