"""Programs that draw metrics while a training runs: each gets the numbers of metrics.jsonl, under the same names.

    tensorboard    files in runs/<run>/tensorboard/<step>, for `tensorboard --logdir`
    trackio        its own folder on this machine; `trackio show`
    wandb          as its settings say: WANDB_MODE=offline sends nothing

metrics.jsonl is the record; a program only shows it. So one that fails is told once and left out, and training continues. After a
resume the steps since the checkpoint come a second time, with the same numbers: TensorBoard is told to forget the first, the others keep
what they have.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gristmill.errors import MissingExtra, RecipeError
from gristmill.recipe.schema.section import did_you_mean

PROGRAMS = ("tensorboard", "trackio", "wandb")


class Sink(Protocol):
    """One program."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the numbers of a step."""

    def close(self) -> None:
        """The training is over or interrupted."""


class Sinks:
    """All programs that were asked for."""

    def __init__(self, sinks: Mapping[str, Sink], say: Callable[[str], None] = lambda line: None) -> None:
        self._sinks, self._say = dict(sinks), say

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Shows the finite numbers of a line of the log."""
        numbers = {
            key: float(value)
            for key, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        self._each(lambda sink: sink.log(step, numbers))

    def close(self) -> None:
        """Writes out what is left."""
        self._each(lambda sink: sink.close())
        self._sinks.clear()

    def _each(self, ask: Callable[[Sink], None]) -> None:
        for name, sink in [*self._sinks.items()]:
            try:
                ask(sink)
            except Exception as error:  # whatever a program raises: it only shows what metrics.jsonl has
                del self._sinks[name]
                self._say(f"{name} failed and is left out: {error!r}. metrics.jsonl has all numbers.")


def check_programs(names: Sequence[str]) -> None:
    """Raises RecipeError for a program that is not known, MissingExtra for one that is not installed."""
    for name in names:
        if name not in PROGRAMS:
            raise RecipeError(
                f"metrics cannot be shown by {name!r}; {did_you_mean(name, PROGRAMS)}the programs are {', '.join(PROGRAMS)}."
            )
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(f"{name} is not installed.\n  pip install 'gristmill[{name}]'")


def open_sinks(
    names: Sequence[str],
    *,
    run: str,
    step: str,
    folder: Path,
    first_step: int,
    config: Mapping[str, Any],
    say: Callable[[str], None],
) -> Sinks:
    """run: the run's name, a project there. step: the training step of the run. folder: the run's. first_step: after which training
    begins or resumes. Raises as `check_programs`."""
    check_programs(names)
    opened: dict[str, Sink] = {}
    for name in names:
        try:
            if name == "tensorboard":
                opened[name] = TensorBoard(folder / name / step, first_step)
            else:
                opened[name] = Tracker(name, run=run, step=step, folder=folder, config=config)
        except Exception as error:  # as above
            say(f"{name} did not start and is left out: {error!r}. metrics.jsonl has all numbers.")
    return Sinks(opened, say)


class TensorBoard:
    """Event files."""

    def __init__(self, folder: Path, first_step: int) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(folder), purge_step=first_step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A scalar a number."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class Tracker:
    """trackio or wandb, which share their functions. A run there goes on when training resumes."""

    def __init__(self, name: str, *, run: str, step: str, folder: Path, config: Mapping[str, Any]) -> None:
        module = importlib.import_module(name)
        own: dict[str, Any]
        if name == "wandb":
            own = {"id": f"{run}-{step}".replace("/", "-"), "dir": str(folder)}
        else:
            own = {"auto_log_gpu": False, "auto_log_cpu": False, "embed": False}
        self._run = module.init(project=run, name=step, config=dict(config), resume="allow", **own)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """All numbers of a step at once."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Sends or writes what is left."""
        self._run.finish()
