"""Ranks that something else started, on one machine or many: each waits for the training steps of the first, which carries the
recipe out.

    first rank      run ─→ … ─→ a training step: a file of the run's folder, its name told to all ─→ … ─→ told that all is over
    other ranks          wait ─────────────────→ run the step ──────────────────────────────── wait ─→ leave

All see the same run's folder. A task is a pickle there, which only its owner can write; what is told by the network is a word
that names it.
"""

from __future__ import annotations

import os
import pickle
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from gristmill.errors import GristmillError, ResourceError
from gristmill.graph.rank_place import RankPlace
from gristmill.graph.signals import Signals
from gristmill.graph.step import PassOver
from gristmill.train.ranks.process import Task, run_task
from gristmill.train.ranks.torch_ranks import Meeting, is_of_exchange

LOOK_SECONDS = 0.5
LEAVE_SECONDS = 5.0
OVER = "over"


@cache
def meeting_of(place: RankPlace) -> Meeting:
    """Where the ranks of a place meet, for as long as this process lives."""
    if place.rank == 0 and not place.is_hosted:
        return Meeting.opened(place.host, place.port)
    return Meeting.at(place.port, place.host)


@contextmanager
def leading(place: RankPlace) -> Iterator[None]:
    """The first rank's run; at its end the others are told to leave, and given the time to hear it."""
    meeting = meeting_of(place)
    try:
        yield
    finally:
        meeting.write(OVER, OVER)
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline and not all(meeting.read(f"left {rank}") for rank in range(1, place.size)):
            time.sleep(0.05)


@contextmanager
def announced(task: Task, place: RankPlace, folder: Path) -> Iterator[Meeting]:
    """The first rank's side of a step: the others are told of it. Gives where they meet for it."""
    meeting = meeting_of(place)
    number = _count(meeting)
    name = f".task-{number}-{secrets.token_hex(8)}"
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        pickle.dump(task, file)
    try:
        meeting.write(f"task {number}", name)
        yield meeting.within(name)
    finally:
        (folder / name).unlink()


def serve(place: RankPlace, folder: Path, *, say: Callable[[str], None]) -> None:
    """What a rank but the first does: the first one's training steps, one after the other, until it is over.

    folder: of the run. Raises ResourceError when the first rank is gone, or another.
    """
    try:
        meeting = meeting_of(place)
        with Signals() as signals:
            number = 0
            while (name := _next(meeting, number, place.rank)) is not None:
                task = _read(folder / Path(name).name)
                say(f"rank {place.rank} of {place.size}: {task.name}")
                number += 1
                try:
                    run_task(
                        task,
                        meeting.within(name),
                        rank=place.rank,
                        local_rank=place.local_rank,
                        should_stop=lambda: signals.received is not None,
                    )
                except (
                    GristmillError,
                    PassOver,
                ) as error:  # of all ranks, or this one is missed: the first decides what follows
                    say(f"rank {place.rank} of {place.size}: {error}")
    except RuntimeError as error:
        if not is_of_exchange(error):
            raise
        raise ResourceError(
            f"rank {place.rank} lost the connection to the others: {error}\n  The first rank says why."
        ) from error


def _next(meeting: Meeting, number: int, rank: int) -> str | None:
    """The name of a task; None when all is over."""
    while (name := meeting.read(f"task {number}")) is None:
        if meeting.read(OVER) is not None:
            meeting.write(f"left {rank}", OVER)
            return None
        time.sleep(LOOK_SECONDS)
    return name


def _count(meeting: Meeting) -> int:
    """How many tasks were announced before."""
    number = 0
    while meeting.read(f"task {number}") is not None:
        number += 1
    return number


def _read(path: Path) -> Task:
    """The task in a file of this user. Raises ResourceError for a file of another."""
    if path.stat().st_uid != os.getuid():
        raise ResourceError(
            f"{path} is no task of this run: another user wrote it. Start the job again with another port."
        )
    with path.open("rb") as file:
        task = pickle.load(file)
    assert isinstance(task, Task), path
    return task
