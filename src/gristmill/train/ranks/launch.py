"""Runs a training step on several ranks. This process is the first; the others are its children, unless something else started them.

    this process ── Task, by a pipe ─→ process 1 … n-1        all run the step; this one writes, measures and talks
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

from gristmill.errors import GristmillError, RecipeError, ResourceError
from gristmill.graph.step import StepContext
from gristmill.train.ranks.process import LEFT_ALONE, Task
from gristmill.train.ranks.service import announced
from gristmill.train.ranks.torch_ranks import Meeting, is_of_exchange, joined
from gristmill.train.runtime import choose_device, num_gpus
from gristmill.units import counted, seconds

SILENT_SECONDS = 60.0  # without a sign of life: worth a line
LAST_WORDS = 2000  # characters of a rank's output
GONE_SECONDS = 10.0  # without a sign of life when the exchange broke: it is this rank
END_SECONDS = 20.0  # that a rank is given to end by itself, once the step has


class RankFailed(GristmillError):
    """A rank came to an error that the first rank did not meet; its message says which."""


def run_on_ranks(module: str, ctx: StepContext) -> dict[str, Any]:
    """The counts of the step in `module`, run by `ctx.machine.ranks` processes.

    Raises what the step raises on this rank; ResourceError that names the rank when another was killed, RankFailed with its
    message when it failed by itself; RecipeError for more ranks than GPUs.
    """
    task, machine, place = Task.of(module, ctx), ctx.machine, ctx.machine.place
    device = choose_device(machine.device)
    if device == "cuda" and place is None and machine.ranks > num_gpus():
        raise RecipeError(
            f"--ranks is {machine.ranks}, and this machine has {counted(num_gpus(), 'GPU')}, one for each rank.\n"
            "  Use as many ranks as GPUs, or --device cpu."
        )
    with ExitStack() as stack:
        if place is None:
            meeting = Meeting.opened()
            started = [_started(task, rank, meeting.port) for rank in range(1, machine.ranks)]
            others = Others(ranks=[stack.enter_context(one) for one in started])
            others.wait_for_signs_of_life(meeting)
        else:
            meeting = stack.enter_context(announced(task, place, ctx.run.folder))
            others = Others(ranks=[Other(rank=rank, size=machine.ranks) for rank in range(1, machine.ranks)])
        stack.enter_context(_watched(others, meeting.for_another_thread(), ctx.say))
        try:
            with joined(
                meeting,
                rank=0,
                size=machine.ranks,
                local_rank=0,
                device=device,
                replicas=machine.replicas,
            ) as ranks:
                counts: dict[str, Any] = importlib.import_module(module).run(replace(ctx, ranks=ranks))
        except RuntimeError as error:
            if not is_of_exchange(error):
                raise
            raise others.why() from error
    return counts


@dataclass(kw_only=True)
class Other:
    """A rank but the first. process, output: of one that this process started. told: its last sign of life; heard_at: when that
    came, on this process's clock."""

    rank: int
    size: int
    process: subprocess.Popen[bytes] | None = None
    output: IO[bytes] | None = None
    told: tuple[float, str] | None = None
    heard_at: float = field(default_factory=time.monotonic)
    is_named: bool = False

    def __str__(self) -> str:
        """Such as "rank 3 of 8 (last heard of: step 5 of 9 on node-2)"."""
        return f"rank {self.rank} of {self.size} (last heard of: {'starting' if self.told is None else self.told[1]})"

    @property
    def is_gone(self) -> bool:
        """True when it ended by itself, not because another one did; of a rank elsewhere, when it has been silent for long."""
        if self.process is None:
            return time.monotonic() - self.heard_at > GONE_SECONDS
        return self.process.poll() not in (None, LEFT_ALONE)

    def end(self) -> GristmillError:
        """What to say of one that is gone."""
        resume = "Run the same command to resume from the last checkpoint."
        code = None if self.process is None else self.process.returncode
        if code is None:
            return ResourceError(f"{self} is gone, and the training with it.\n  {resume}")
        if code < 0:
            return ResourceError(
                f"{self} was ended by {signal.Signals(-code).name}, and the training with it.\n"
                f"  If nobody ended it, the system was probably out of memory. {resume}"
            )
        assert self.output is not None
        self.output.seek(0)
        words = self.output.read().decode(errors="replace").strip()[-LAST_WORDS:]
        return RankFailed(f"{self} failed (exit code {code}):\n{words}")


@dataclass(frozen=True, kw_only=True)
class Others:
    """The ranks but the first."""

    ranks: Sequence[Other]

    def wait_for_signs_of_life(self, meeting: Meeting) -> None:
        """Until each has given one. Raises when one ends before."""
        while not all(meeting.told(other.rank) for other in self.ranks):
            if gone := self._gone():
                raise gone[0].end()
            time.sleep(0.05)

    def why(self) -> GristmillError:
        """Why the ranks lost each other: the one that is gone."""
        deadline = time.monotonic() + END_SECONDS
        while not (gone := self._gone()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if gone:
            return gone[0].end()
        return ResourceError(
            "the connection between the ranks broke, and all of them still run. Run the same command to resume."
        )

    def _gone(self) -> list[Other]:
        return [other for other in self.ranks if other.is_gone]

    def listen(self, meeting: Meeting, say: Callable[[str], None], *, silent_seconds: float) -> None:
        """Takes the signs of life, and names a rank that gives none any more."""
        now = time.monotonic()
        for other in self.ranks:
            told = meeting.told(other.rank)
            if told != other.told:
                other.told, other.heard_at, other.is_named = told, now, False
            elif now - other.heard_at >= silent_seconds and not other.is_named:
                other.is_named = True
                say(f"No sign of life for {seconds(now - other.heard_at)} from {other}. All ranks wait for it.")


@contextmanager
def _started(task: Task, rank: int, port: int) -> Iterator[Other]:
    """Another rank, until the end of the block: one that still runs then is ended."""
    command = [sys.executable, "-m", "gristmill.train.ranks.process"]
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # its end is noticed where it is missed
            pickle.dump((task, rank, port), process.stdin)
            process.stdin.flush()
        try:
            yield Other(rank=rank, size=task.machine.ranks, process=process, output=output)
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
