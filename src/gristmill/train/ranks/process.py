"""What a rank other than the first runs, as a process of its own: the same step, told by standard input.

    python -m gristmill.train.ranks.process < Task, pickled by launch.py

Standard input stays open as long as the process that started this one lives; when it closes, this one leaves. The task comes from
the parent by a pipe and from nowhere else.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from gristmill.errors import GristmillError
from gristmill.graph.machine import Machine
from gristmill.graph.progress import Moment, Position
from gristmill.graph.ranks import Ranks
from gristmill.graph.step import OutsideFiles, StepContext, Watching
from gristmill.store.store import RunLinks, Store
from gristmill.train.ranks.torch_ranks import Meeting, is_of_exchange, joined
from gristmill.train.runtime import choose_device

LEFT_ALONE = 74  # the exit code of a rank that ended because another one did
BEAT_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A step for the ranks but the first: the module that it is in, and what it is given."""

    module: str
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

    @classmethod
    def of(cls, module: str, ctx: StepContext) -> Task:
        """The same step that the first rank was given."""
        given = ("name", "identity", "config", "inputs", "files", "watching", "out", "machine")
        return cls(
            module=module,
            runs_dir=ctx.run.store.runs_dir,
            run_name=ctx.run.name,
            **{name: getattr(ctx, name) for name in given},
        )


def run_task(
    task: Task, meeting: Meeting, *, rank: int, local_rank: int, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Runs the step as one of the ranks. should_stop: all ranks stop when one is asked to."""
    doing = [Position.doing("starting")]
    is_over = Event()
    beats = Thread(target=_beat, args=(meeting, task.name, rank, doing, is_over), daemon=True)
    beats.start()
    machine = task.machine
    try:
        with joined(
            meeting,
            rank=rank,
            size=machine.ranks,
            local_rank=local_rank,
            device=choose_device(machine.device),
            replicas=machine.replicas,
        ) as ranks:
            importlib.import_module(task.module).run(_context(task, ranks, doing, should_stop))
    finally:
        is_over.set()


def _context(task: Task, ranks: Ranks, doing: list[Position], should_stop: Callable[[], bool]) -> StepContext:
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
        should_stop=should_stop,
        ranks=ranks,
    )


def _beat(meeting: Meeting, step: str, rank: int, doing: list[Position], is_over: Event) -> None:
    own = meeting.for_another_thread()
    while not is_over.is_set():
        where = Moment(step=step, spent_seconds=0.0, position=doing[0]).where
        own.tell(rank, f"{where} on {socket.gethostname()}")
        is_over.wait(BEAT_SECONDS)


def main() -> None:
    """Reads (task, rank, port) and runs it. Exit codes are those of the command line, and LEFT_ALONE."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task, rank, port = pickle.load(sys.stdin.buffer)
    Thread(target=_leave_with_parent, daemon=True).start()
    try:
        run_task(task, Meeting.at(port), rank=rank, local_rank=rank)
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
