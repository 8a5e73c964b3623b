"""The public Python API: what the command line does, as functions. Importing it is cheap; steps import what they need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gristmill import array, forecast, runner
from gristmill.errors import GristmillError
from gristmill.forecast import Forecast
from gristmill.graph.machine import Machine
from gristmill.planning.devices import read_fleet
from gristmill.recipe.load import LoadedRecipe, load_recipe

__all__ = ["Forecast", "GristmillError", "LoadedRecipe", "Machine", "load_recipe", "plan", "run"]

RecipeLike = LoadedRecipe | str | os.PathLike[str]


def plan(
    recipe: RecipeLike,
    machine: Machine | None = None,
    *,
    price_per_hour: float | None = None,
    devices: str | None = None,
    mfu: float | None = None,
    price: float | None = None,
) -> Forecast:
    """What the recipe will take: tokens and epochs, time of each step, memory, disk, money. Starts nothing.

    recipe: loaded, or its path. machine: this one, with runs in `runs`, if None. devices: such as "64xH100", which training is
    planned for instead; mfu: the share of their peak that it reaches; price: of one of them per hour. Sources beyond their cap are
    in the forecast, with that verdict; `gristmill plan` and `run` refuse them.
    """
    fleet = None if devices is None else read_fleet(devices, mfu=mfu, price=price)
    return forecast.make_forecast(_loaded(recipe), machine or Machine(), price_per_hour=price_per_hour, fleet=fleet)


def run(
    recipe: RecipeLike,
    machine: Machine | None = None,
    *,
    console: Console | None = None,
    until: str | None = None,
    remake: Sequence[str] = (),
) -> Path:
    """Make every step of the recipe (or up to `until`) that is missing or drifted. Returns the run's folder.

    recipe: loaded, or its path. machine: this one, with runs in `runs`, if None. console: where progress is printed; standard
    output, or the notebook's cell, if None. remake: costly steps that may be remade; "all" for all.
    """
    machine = machine or Machine()
    make = runner.run if machine.share is None else array.run_rank
    return make(_loaded(recipe), machine, console=console or Console(), until=until, remake=remake)


def _loaded(recipe: RecipeLike) -> LoadedRecipe:
    return recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe)
