"""COMMAND recipe: the recipe of a run as it became, interventions included, and as the next run will carry it out."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from gristmill.errors import ArtifactError, RecipeError
from gristmill.recipe.interventions import FOLDER, RUN_RECIPE, with_those_to_come
from gristmill.recipe.load import load_recipe


def recipe(target: Path, *, console: Console) -> None:
    """Print what the last `gristmill run` of that folder was carried out with; with the interventions that were written since, where
    there are any, and which they are.

    Raises RecipeError when there is no such folder, or an intervention does not fit, ArtifactError when it is not a run's.
    """
    if not target.exists():
        raise RecipeError(f"{target} does not exist. Give a run's folder, such as runs/quickstart.")
    path = target / RUN_RECIPE
    if not path.is_file():
        raise ArtifactError(
            f"{target} holds no {RUN_RECIPE}: it is no run's folder. Give one, such as runs/quickstart."
        )
    text = path.read_text(encoding="utf-8")
    if (target / FOLDER).is_dir():
        text = with_those_to_come(text, load_recipe(path), target)
    console.out(text, highlight=False, end="")
