"""COMMAND recipe: the recipe of a run as it became, interventions included."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from gristmill.errors import ArtifactError, RecipeError
from gristmill.recipe.interventions import RUN_RECIPE


def recipe(target: Path, *, console: Console) -> None:
    """Print what the last `gristmill run` of that folder was carried out with.

    Raises RecipeError when there is no such folder, ArtifactError when it is not a run's.
    """
    if not target.exists():
        raise RecipeError(f"{target} does not exist. Give a run's folder, such as runs/quickstart.")
    path = target / RUN_RECIPE
    if not path.is_file():
        raise ArtifactError(
            f"{target} holds no {RUN_RECIPE}: it is no run's folder. Give one, such as runs/quickstart."
        )
    console.out(path.read_text(encoding="utf-8"), highlight=False, end="")
