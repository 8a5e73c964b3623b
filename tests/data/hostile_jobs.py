"""Jobs and functions that child processes of the guard tests load by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gristmill.errors import DataError


def _hang() -> str:
    while True:
        pass


def _hang_in_c() -> str:
    # Catastrophic backtracking holds the interpreter lock: no Python signal handler would run.
    import re

    re.match(r"(a+)+$", "a" * 64 + "b")
    return "never"


def _eat_memory() -> str:
    blocks = []
    while True:
        blocks.append(bytearray(16_000_000))


def _raise() -> str:
    raise ValueError("this document is bad")


def _segfault() -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "never"


ACTIONS = {
    "hang": _hang,
    "hang_in_c": _hang_in_c,
    "eat_memory": _eat_memory,
    "raise": _raise,
    "segfault": _segfault,
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
    """Documents are their positions; the named ones misbehave while they are processed."""

    num_documents: int
    actions: dict[int, str] = field(default_factory=dict)
    fail_reading_at: int = -1
    seconds_per_document: float = 0.0

    def documents(self) -> Iterator[int]:
        for position in range(self.num_documents):
            if position == self.fail_reading_at:
                raise DataError(f"record {position} is no record")
            yield position

    def process(self, document: int) -> tuple[int, str]:
        time.sleep(self.seconds_per_document)
        action = self.actions.get(document)
        if action is not None and action.startswith(ONCE):
            action = _only_once(Path(action.removeprefix(ONCE)))
        return document, "ok" if action is None else ACTIONS[action]()

    def failed(self, document: int, reason: str, detail: str) -> tuple[int, str]:
        return document, reason

    def summary(self) -> str:
        return "the end"


def square(number: int) -> int:
    if number == 3:
        raise ValueError("three is refused")
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number
