"""The public Python API: what the command line does, as functions. Importing it is cheap; steps import what they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gristmill import runner
from gristmill.forecast import make_forecast as plan
from gristmill.graph.machine import Machine
from gristmill.recipe.load import LoadedRecipe, load_recipe

__all__ = ["Machine", "load_recipe", "plan", "run"]


def run(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    console: Console | None = None,
    until: str | None = None,
    remake: Sequence[str] = (),
) -> Path:
    """Make every step of the recipe (or up to `until`) that is missing or drifted. Returns the run's folder.

    console: where progress is printed; standard output if None. remake: costly steps that may be remade; "all" for all.
    """
    return runner.run(loaded, machine, console=console or Console(), until=until, remake=remake)
