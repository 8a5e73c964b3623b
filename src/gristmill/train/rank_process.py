"""What a rank other than the first runs, as a process of its own: the same step, told by standard input.

    python -m gristmill.train.rank_process < Task, pickled by launch.py

Standard input stays open as long as the process that started this one lives; when it closes, this one leaves. The task comes from
the parent by a pipe and from nowhere else.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from gristmill.errors import GristmillError
from gristmill.graph.machine import Machine
from gristmill.graph.progress import Moment, Position
from gristmill.graph.ranks import Ranks
from gristmill.graph.step import OutsideFiles, StepContext, Watching
from gristmill.store.store import RunLinks, Store
from gristmill.train.ranks import Meeting, is_of_exchange, joined
from gristmill.train.runtime import choose_device

LEFT_ALONE = 74  # the exit code of a rank that ended because another one did
BEAT_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a rank runs. module: of the step. port: where the first rank waits, on this machine. The rest is of the step's context."""

    module: str
    rank: int
    port: int
    name: str
    identity: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    files: Mapping[str, OutsideFiles]
    watching: Watching
    out: Path
    machine: Machine
    runs_dir: Path
    run_name: str


def run_task(task: Task) -> None:
    """Runs the step as one of the ranks."""
    meeting = Meeting.at(task.port)
    doing = [Position.doing("starting")]
    Thread(target=_beat, args=(meeting.for_another_thread(), task, doing), daemon=True).start()
    machine = task.machine
    with joined(
        meeting,
        rank=task.rank,
        size=machine.ranks,
        device=choose_device(machine.device),
        replicas=machine.replicas,
    ) as ranks:
        importlib.import_module(task.module).run(_context(task, ranks, doing))


def _context(task: Task, ranks: Ranks, doing: list[Position]) -> StepContext:
    """What the step is given; its position goes to `doing`, its words nowhere."""

    def progress(position: Position) -> None:
        doing[0] = position

    return StepContext(
        name=task.name,
        identity=task.identity,
        config=task.config,
        inputs=task.inputs,
        files=task.files,
        watching=task.watching,
        out=task.out,
        machine=task.machine,
        run=RunLinks(Store(task.runs_dir), task.run_name),
        say=lambda line: None,
        progress=progress,
        should_stop=lambda: False,  # the first rank is asked, and all agree
        ranks=ranks,
    )


def _beat(meeting: Meeting, task: Task, doing: list[Position]) -> None:
    while True:
        meeting.tell(task.rank, Moment(step=task.name, spent_seconds=0.0, position=doing[0]).where)
        time.sleep(BEAT_SECONDS)


def main() -> None:
    """Reads the task and runs it. Exit codes are those of the command line, and LEFT_ALONE."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task: Task = pickle.load(sys.stdin.buffer)
    Thread(target=_leave_with_parent, daemon=True).start()
    try:
        run_task(task)
    except GristmillError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    except RuntimeError as error:
        if not is_of_exchange(error):
            raise
        print(error, file=sys.stderr, flush=True)
        os._exit(LEFT_ALONE)


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(LEFT_ALONE)


if __name__ == "__main__":
    main()
