"""The circumstances of a training: where it runs and in which pieces. They never change what is trained, but for rounding."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shutil import which

import torch

from gristmill.errors import RecipeError
from gristmill.graph.cores import CoreWatch, busy_cores, idle_threads, load_words
from gristmill.graph.machine import Machine, Threads, usable_cpus
from gristmill.graph.progress import Report, unreported
from gristmill.graph.ranks import ONE_RANK, Ranks
from gristmill.graph.step import StepContext
from gristmill.train.threads import ThreadChoice
from gristmill.units import counted

COMPILERS = ("g++", "clang++", "c++")
LOOK_EVERY_SECONDS = 1.5  # a look goes through all processes


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """`device` is a torch device, never "auto". `should_stop` turns true once a signal arrived: save, then raise Interrupted.

    metrics_to: programs that draw metrics, see sinks.py. recompute: activations are computed twice, to save memory. compiled: parts of
    the model are compiled.
    """

    device: str
    threads: Threads
    micro_batch_tokens: int
    say: Callable[[str], None] = lambda line: None
    progress: Report = unreported
    should_stop: Callable[[], bool] = lambda: False
    ranks: Ranks = ONE_RANK
    metrics_to: Sequence[str] = ()
    recompute: bool = False
    compiled: bool = False

    @classmethod
    def of(cls, ctx: StepContext) -> Runtime:
        """The runtime of a step."""
        if ctx.machine.compiled:
            check_compiler()
        return cls(
            device=choose_device(ctx.machine.device),
            threads=ctx.machine.threads_of_a_rank,
            micro_batch_tokens=ctx.machine.micro_batch_tokens,
            say=ctx.say,
            progress=ctx.progress,
            should_stop=ctx.should_stop,
            ranks=ctx.ranks,
            metrics_to=ctx.machine.metrics_to,
            recompute=ctx.machine.recompute,
            compiled=ctx.machine.compiled,
        )

    def thread_choice(self, *, expected: float | None = None) -> ThreadChoice:
        """How the number of threads is chosen from step to step. expected: tokens per second on idle cores, if known."""
        most = usable_cpus() if self.threads == "auto" else self.threads
        may_change = self.threads == "auto" and self.device == "cpu"
        first = idle_threads(most, busy_cores()) if may_change and most > 1 else most
        return ThreadChoice(most=most, first=first, expected=expected, may_change=may_change)


class TrainingThreads:
    """Torch's threads of a training, as `choice` says after each step; says when their number changes, with the load of that moment.

    While more threads could be used, it looks at the cores every few seconds.
    """

    def __init__(self, choice: ThreadChoice, say: Callable[[str], None]) -> None:
        self.choice, self._say = choice, say
        self._told = choice.most
        self._watch_from_now()

    def after_step(self, tokens: int, seconds: float, cpu_seconds: float) -> bool:
        """Takes the cost of a step; returns whether the next one has another number of threads."""
        self._look()
        before = self.choice.threads
        self.choice.after_step(tokens, seconds, cpu_seconds)
        if self.choice.settled != self._told:
            self._told = self.choice.settled
            self._tell()
        if self.choice.threads == before:
            return False
        torch.set_num_threads(self.choice.threads)
        self._watch_from_now()
        return True

    def _watch_from_now(self) -> None:
        self._watch = CoreWatch() if self.choice.may_rise else None
        self._looked_at = time.monotonic()

    def _look(self) -> None:
        past = time.monotonic() - self._looked_at
        if self._watch is not None and past >= LOOK_EVERY_SECONDS and (busy := self._watch.busy_cores()) is not None:
            self.choice.see_cores(usable_cpus() - busy, past)
            self._looked_at += past

    def _tell(self) -> None:
        if self._told == self.choice.most:
            self._say(f"Training with {counted(self._told, 'thread')} again.")
            return
        why = load_words(busy_cores()) or "more threads are slower now"
        self._say(
            f"{why[0].upper()}{why[1:]}: training with {self._told} of {counted(self.choice.most, 'thread')}. More are tried when the "
            "cores are idle, and now and then; --threads N sets a fixed number."
        )


class ThreadsByLoad:
    """For work whose pieces cannot be compared by their speed, as steps of a training can: before each piece as many threads as
    find an idle core. A number that was asked for is kept."""

    def __init__(self, machine: Machine) -> None:
        self._most, self._follows = machine.most_threads, machine.threads == "auto" and machine.most_threads > 1
        torch.set_num_threads(idle_threads(self._most, busy_cores()) if self._follows else self._most)
        self._watch = CoreWatch()

    def next_piece(self) -> None:
        """By the load since the piece before began."""
        if self._follows and (busy := self._watch.busy_cores()) is not None:
            torch.set_num_threads(idle_threads(self._most, busy))


def check_compiler() -> None:
    """Raises RecipeError where torch.compile would find no C++ compiler: it writes programs, those for a GPU too are started by C."""
    if not any(which(name) for name in (os.environ.get("CXX", ""), *COMPILERS)):
        raise RecipeError(
            f"--compile needs a C++ compiler, and none of {', '.join(COMPILERS)} is on the PATH. Install one, or run without --compile."
        )


def num_gpus() -> int:
    """GPUs of this machine that torch can use."""
    return torch.cuda.device_count()


def choose_device(device: str) -> str:
    """ "auto" becomes "cuda" where there is one, else "cpu". Raises RecipeError for a device that is not here."""
    has_cuda = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_cuda else "cpu"
    if device == "cuda" and not has_cuda:
        raise RecipeError(
            f"the device is cuda, and torch {torch.__version__} finds none here. Use cpu or auto, or install torch for CUDA."
        )
    return device
