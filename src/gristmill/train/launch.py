"""Runs a training step on several ranks of this machine: this process is the first, the others are its children.

    this process ── Task, by a pipe ─→ rank_process 1 … n-1        all run the step; this one writes, measures and talks
         └─ watches: who ended first, who has not been heard of

A rank that ends early ends the step on all of them, with its name and its last words; the last checkpoint is what the same command
resumes from.
"""

from __future__ import annotations

import importlib
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from typing import IO, Any

from gristmill.errors import GristmillError, ResourceError
from gristmill.graph.step import StepContext
from gristmill.train.rank_process import LEFT_ALONE, Task
from gristmill.train.ranks import Meeting, is_of_exchange, joined
from gristmill.train.runtime import choose_device
from gristmill.units import seconds

SILENT_SECONDS = 60.0  # without a sign of life: worth a line
LAST_WORDS = 2000  # characters of a rank's output
END_SECONDS = 20.0  # that a rank is given to end by itself, once the step has


class RankFailed(GristmillError):
    """A rank came to an error that the first rank did not meet; its message says which."""


def run_on_ranks(module: str, ctx: StepContext) -> dict[str, Any]:
    """The counts of the step in `module`, run by `ctx.machine.ranks` processes.

    Raises what the step raises on this rank; ResourceError that names the rank when another was killed, RankFailed with its
    message when it failed by itself.
    """
    meeting, size = Meeting.opened(), ctx.machine.ranks
    tasks = [_task(module, ctx, rank=rank, port=meeting.port) for rank in range(1, size)]
    with ExitStack() as stack:
        others = Others(ranks=[stack.enter_context(_started(task)) for task in tasks])
        stack.enter_context(_watched(others, meeting.for_another_thread(), ctx.say))
        others.wait_for_signs_of_life(meeting)
        device, replicas = choose_device(ctx.machine.device), ctx.machine.replicas
        try:
            with joined(meeting, rank=0, size=size, device=device, replicas=replicas) as ranks:
                counts: dict[str, Any] = importlib.import_module(module).run(replace(ctx, ranks=ranks))
        except RuntimeError as error:
            if not is_of_exchange(error):
                raise
            raise others.why() from error
    return counts


def _task(module: str, ctx: StepContext, *, rank: int, port: int) -> Task:
    given = {name: getattr(ctx, name) for name in ("name", "identity", "config", "inputs", "files", "watching", "out")}
    return Task(
        module=module,
        rank=rank,
        port=port,
        machine=ctx.machine,
        runs_dir=ctx.run.store.runs_dir,
        run_name=ctx.run.name,
        **given,
    )


@dataclass(kw_only=True)
class Other:
    """A rank that this process started. told: its last sign of life; heard_at: when that came, on this process's clock."""

    task: Task
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    told: tuple[float, str] | None = None
    heard_at: float = field(default_factory=time.monotonic)
    is_named: bool = False

    def last_words(self) -> str:
        """The end of what it wrote."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace").strip()[-LAST_WORDS:]

    @property
    def doing(self) -> str:
        """What it was doing when it was last heard of."""
        return "starting" if self.told is None else self.told[1]


@dataclass(frozen=True, kw_only=True)
class Others:
    """The ranks but the first."""

    ranks: Sequence[Other]

    def wait_for_signs_of_life(self, meeting: Meeting) -> None:
        """Until each has given one. Raises when one ends before."""
        while not all(meeting.told(other.task.rank) for other in self.ranks):
            if any(other.process.poll() is not None for other in self.ranks):
                raise self.why()
            time.sleep(0.05)

    def why(self) -> GristmillError:
        """Why a rank is gone: the one that ended by itself, not those that it left alone."""
        deadline = time.monotonic() + END_SECONDS
        while not (gone := self._gone()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not gone:
            return ResourceError(
                "the connection between the ranks broke, and all of them still run. Run the same command to resume."
            )
        other = gone[0]
        code, who = other.process.returncode, f"rank {other.task.rank} of {other.task.machine.ranks}"
        if code < 0:
            return ResourceError(
                f"{who} was ended by {signal.Signals(-code).name} (last heard of: {other.doing}), and the training with it.\n"
                "  If nobody ended it, the system was probably out of memory. Run the same command to resume from the last checkpoint."
            )
        return RankFailed(f"{who} failed (exit code {code}):\n{other.last_words()}")

    def _gone(self) -> list[Other]:
        ended = [other for other in self.ranks if other.process.poll() is not None]
        return [other for other in ended if other.process.returncode != LEFT_ALONE]

    def listen(self, meeting: Meeting, say: Callable[[str], None], *, silent_seconds: float) -> None:
        """Takes the signs of life, and names a rank that gives none any more."""
        now = time.monotonic()
        for other in self.ranks:
            told = meeting.told(other.task.rank)
            if told != other.told:
                other.told, other.heard_at, other.is_named = told, now, False
            elif now - other.heard_at >= silent_seconds and not other.is_named:
                other.is_named = True
                say(
                    f"Rank {other.task.rank} has given no sign of life for {seconds(now - other.heard_at)} (process "
                    f"{other.process.pid}, last heard of: {other.doing}). All ranks wait for it."
                )


@contextmanager
def _started(task: Task) -> Iterator[Other]:
    """Another rank, until the end of the block: one that still runs then is ended."""
    command = [sys.executable, "-m", "gristmill.train.rank_process"]
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # its end is noticed where it is missed
            pickle.dump(task, process.stdin)
            process.stdin.flush()
        try:
            yield Other(task=task, process=process, output=output)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()  # at which it leaves
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _watched(others: Others, meeting: Meeting, say: Callable[[str], None]) -> Iterator[None]:
    """Listens to the other ranks inside."""
    is_over = Event()

    def watch() -> None:
        while not is_over.wait(1.0):
            others.listen(meeting, say, silent_seconds=SILENT_SECONDS)

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
