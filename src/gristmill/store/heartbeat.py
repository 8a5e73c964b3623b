"""The heartbeat of a run: a small file in its folder that says what the running process is doing, or how it ended.

Each rank of an array has one of its own, `.heartbeat-0-of-64.json`; they are removed when a run without ranks begins.

Each beat replaces the file by a rename without a flush to disk: a reader never sees a partial beat, and after a power cut the last
beat is of no use anyway. The process is identified by host, process number and start time, because numbers are reused. Nothing
depends on this file except what is displayed.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

HEARTBEAT = ".heartbeat.json"
OF_RANKS = ".heartbeat-*-of-*.json"
SAME_START_SECONDS = 1.0  # the clock that a start is computed from may be set

State = Literal["running", "ended", "killed", "elsewhere"]


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The content of a heartbeat file. exit_code: of a run that ended; age_seconds: since it was written.

    state: "killed" for a process of this machine that is gone without an exit code; "elsewhere" for a process of another
    machine, which only the age tells about.
    """

    state: State
    host: str
    pid: int
    age_seconds: float
    exit_code: int | None
    doing: Mapping[str, Any]

    @property
    def is_alive(self) -> bool:
        """True if the process is running, or may be."""
        return self.state in ("running", "elsewhere")

    @property
    def where(self) -> str:
        """ "process 1234", with its machine where that is another one."""
        return f"process {self.pid}" + (f" on {self.host}" if self.state == "elsewhere" else "")


class Heart:
    """Writes the heartbeat of this process for the run in `folder`. A beat that cannot be written is skipped without an error."""

    def __init__(self, folder: Path, *, rank: str | None = None) -> None:
        """rank: such as "0/64"."""
        self._path = folder / (HEARTBEAT if rank is None else f".heartbeat-{rank.replace('/', '-of-')}.json")
        self._who = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        self._doing: Mapping[str, Any] = {}

    def beat(self, doing: Mapping[str, Any], *, exit_code: int | None = None) -> None:
        """Writes what the process is doing."""
        self._doing = doing
        beat = {**self._who, "at": time.time(), "exit_code": exit_code, "doing": dict(doing)}
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        with suppress(OSError):
            temporary.write_text(json.dumps(beat), encoding="utf-8")
            os.replace(temporary, self._path)

    def stop(self, exit_code: int) -> None:
        """The last beat: how the run ended."""
        self.beat(self._doing, exit_code=exit_code)


def remove_beats_of_ranks(folder: Path) -> None:
    """Only while no rank is at work in the folder."""
    for path in folder.glob(OF_RANKS):
        path.unlink(missing_ok=True)


def read_beats_of_ranks(folder: Path) -> dict[str, Beat]:
    """Rank, such as "0/64", → its last beat, in order."""
    found: dict[tuple[int, int], Beat] = {}
    for path in folder.glob(OF_RANKS):
        numbers = [int(word) for word in path.stem.split("-") if word.isdecimal()]
        if len(numbers) == 2 and (beat := _read(path)) is not None:
            found[numbers[1], numbers[0]] = beat
    return {f"{rank}/{size}": beat for (size, rank), beat in sorted(found.items(), key=lambda entry: entry[0])}


def read_beat(folder: Path) -> Beat | None:
    """The last beat of the run in `folder`; None where there is none that can be read."""
    return _read(folder / HEARTBEAT)


def _read(path: Path) -> Beat | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Beat(
            state=_state(found),
            host=found["host"],
            pid=int(found["pid"]),
            age_seconds=max(0.0, time.time() - found["at"]),
            exit_code=found["exit_code"],
            doing=found["doing"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(found: Mapping[str, Any]) -> State:
    if found["exit_code"] is not None:
        return "ended"
    if found["host"] != socket.gethostname():
        return "elsewhere"
    try:
        began = psutil.Process(int(found["pid"])).create_time()
    except psutil.Error:
        return "killed"
    return "running" if abs(began - found["started"]) <= SAME_START_SECONDS else "killed"
