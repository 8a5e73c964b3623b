"""Interventions: numbered files of a run that are appended, in order, to the recipe's `pretrain.changes`.

    runs/<recipe>/interventions/001.yaml      one change: {after_step, set, why}
    runs/<recipe>/recipe.yaml                 the recipe as it became, written by each run

Their numbers give the order. The recipe file itself is never touched. An intervention is part of the prefix of everything after its step.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe, read_yaml
from gristmill.recipe.resolved import resolved_yaml
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import KeyPath

FOLDER = "interventions"
RUN_RECIPE = "recipe.yaml"


def with_interventions(loaded: LoadedRecipe, run: Path) -> LoadedRecipe:
    """The recipe with the interventions of a run appended to its changes. Raises RecipeError naming the file that does not fit."""
    files = _numbered(run / FOLDER)
    if not files:
        return loaded
    data = loaded.recipe.model_dump(exclude_unset=True)
    changes = data["pretrain"].setdefault("changes", [])
    origins: dict[KeyPath, str] = dict(loaded.origins)
    recipe = loaded.recipe
    for path in files:
        change, _ = read_yaml(path)
        origins["pretrain", "changes", len(changes)] = str(path)
        changes.append(change)
        try:
            recipe = Recipe.model_validate(data)
        except ValidationError as error:
            problems = "; ".join(str(problem["msg"]) for problem in error.errors())
            raise RecipeError(
                f"{path} does not fit the recipe {loaded.path}: {problems}.\n  Correct the file, or remove it if it was not "
                "yet carried out."
            ) from None
    return LoadedRecipe(recipe=recipe, path=loaded.path, origins=origins)


def _numbered(folder: Path) -> list[Path]:
    """The files of the folder by their number; hidden ones are no part of it."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("[!.]*")):
        if re.fullmatch(r"[0-9]+\.yaml", path.name) is None:
            raise RecipeError(
                f"{path} is not named as an intervention.\n  The name is a number that gives the order, such as 001.yaml; "
                "rename the file, or move it elsewhere."
            )
        if (other := found.setdefault(int(path.stem), path)) != path:
            raise RecipeError(
                f"{other} and {path.name} have the same number.\n  The number gives the order; rename one."
            )
    return [found[number] for number in sorted(found)]


def recipe_as_it_became(loaded: LoadedRecipe) -> str:
    """The recipe with its interventions as YAML that loads again beside the recipe's own file."""
    head = f"# {loaded.path.name} as it was carried out; paths are relative to the folder of {loaded.path.name}\n"
    return head + resolved_yaml(loaded)
