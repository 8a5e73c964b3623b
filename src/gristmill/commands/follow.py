"""What a run is doing, by its heartbeat: told once, or shown until the run ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape

from gristmill.display import screen_for, waiting
from gristmill.errors import ArtifactError
from gristmill.graph.progress import Moment
from gristmill.remake import PRETRAIN
from gristmill.store.heartbeat import HEARTBEAT, Beat, read_beat
from gristmill.store.store import RunLinks
from gristmill.train.standing.under_way import UnderWay
from gristmill.units import seconds

LOOK_SECONDS = 1.0
LOADING_SECONDS = 6.0  # a process loads its modules before its first beat
MOST_LOADING_SECONDS = 60.0
OLD_SECONDS = 10.0
BETWEEN = "between two steps"
KILLED = 1  # the exit code of following a run that could leave none


def moment_of(beat: Beat) -> Moment | None:
    """The running step, as it was when the beat was written; None between two steps."""
    if not beat.doing:
        return None
    try:
        return Moment.from_json(dict(beat.doing), where=HEARTBEAT)
    except ArtifactError:
        return None  # written by another version of gristmill


def training_moment(beat: Beat | None) -> Moment | None:
    """The moment of a run that takes steps of pretraining now."""
    moment = None if beat is None or not beat.is_alive else moment_of(beat)
    if moment is None or moment.step != PRETRAIN or moment.position is None or moment.position.unit != "step":
        return None
    return moment


def step_seconds(training: UnderWay, moment: Moment | None) -> float | None:
    """What a step of pretraining takes: by the pace of the run, which knows of measurements and checkpoints too; else by the speed of the
    last steps in the log."""
    left = training.num_steps - training.step
    return moment.left_seconds / left if moment and moment.left_seconds and left > 0 else training.step_seconds


def told(beat: Beat) -> str:
    """What the run is doing, or how it ended, in a line."""
    moment = moment_of(beat)
    if beat.state == "ended":
        return f"the last run ended with exit code {beat.exit_code}"
    if beat.state == "killed":
        at = BETWEEN if moment is None else f"at {moment.place}"
        return f"the last run was killed, {at}; run the same command to resume"
    doing = BETWEEN if moment is None else str(moment.after(beat.age_seconds))
    old = f", last heartbeat {seconds(beat.age_seconds)} ago" if beat.age_seconds > OLD_SECONDS else ""
    return f"running: {doing} ({beat.where}{old})"


def loading_seconds() -> float:
    """How long a run may take to its first beat: twice what this process took until now, for a busy machine slows both down."""
    age: float = time.time() - psutil.Process().create_time()
    return min(MOST_LOADING_SECONDS, max(LOADING_SECONDS, 2 * age))


class Made:
    """Tells which steps of a run were made since the last look."""

    def __init__(self, links: RunLinks, steps: Sequence[str]) -> None:
        self._links, self._steps = links, steps
        self._known = {step: self._made_at(step) for step in steps}

    def lines(self) -> Iterator[str]:
        """A line for each step that was made since, in the words of the run itself."""
        for step in self._steps:
            found = self._made_at(step)
            if found is not None and found != self._known[step]:
                self._known[step] = found
                yield f"[green]made[/]     {step:<22} [dim]{found[1]:.1f} s[/]"

    def _made_at(self, step: str) -> tuple[str, float] | None:
        """(when it was made, seconds); None while it is being made."""
        try:
            identity = self._links.target(step)
            record = None if identity is None else self._links.record_of(step, identity)
        except (ArtifactError, OSError):
            return None  # it is being linked at this moment
        return None if record is None else (record["made_at"], record["wall_seconds"])


def follow(
    folder: Path,
    *,
    console: Console,
    made: Callable[[], Iterable[str]] = tuple,
    loading_seconds: float = LOADING_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Shows what the run in `folder` is doing until it ends; returns its exit code. Where none is at work, one that was only just
    started is waited for, as long as loading its modules may take. made: a line for each step that was made since it was last called."""
    screen = screen_for(console)
    beat, step = _first_beat(folder, console, loading_seconds, sleep), None
    try:
        while beat is not None and beat.is_alive:
            moment = moment_of(beat)
            if moment is None or moment.step != step:
                screen.hide()
            for line in made():
                console.print(line, highlight=False)
            if moment is not None and moment.step != step:
                screen.show(partial(_now, folder, moment))
            step = None if moment is None else moment.step
            screen.report()
            sleep(LOOK_SECONDS)
            beat = read_beat(folder)
    finally:
        screen.hide()
    for line in made():
        console.print(line, highlight=False)
    if beat is None:
        console.print(f"{escape(str(folder))} has no heartbeat: no run was started there", highlight=False)
        return 0
    console.print(escape(told(beat)), highlight=False)
    return KILLED if beat.exit_code is None else beat.exit_code


def _first_beat(folder: Path, console: Console, loading_seconds: float, sleep: Callable[[float], None]) -> Beat | None:
    """That of a run at work, if one begins within that time; else what the last run left."""
    beat = read_beat(folder)
    if beat is not None and beat.is_alive:
        return beat
    with waiting(console, f"no run is at work; waiting {seconds(loading_seconds)} for one to start"):
        for _ in range(math.ceil(loading_seconds / LOOK_SECONDS)):
            sleep(LOOK_SECONDS)
            beat = read_beat(folder)
            if beat is not None and beat.is_alive:
                break
    return beat


def _now(folder: Path, before: Moment) -> Moment:
    """What the heartbeat says now, of the same step."""
    beat = read_beat(folder)
    moment = None if beat is None else moment_of(beat)
    return before if beat is None or moment is None or moment.step != before.step else moment.after(beat.age_seconds)
