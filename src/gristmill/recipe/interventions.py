"""Interventions: numbered files of a run that are added, in order, to the recipe's `pretrain.changes`.

    runs/<recipe>/interventions/001.yaml      one change: {after_step, set, why}; `noted`: when it was decided, and what was known then
    runs/<recipe>/recipe.yaml                 the recipe as it became, written by each run

Their numbers give the order: each comes last, but for one that only passes over data, which comes where its step belongs, since no other
change depends on it. The recipe file itself is never touched. An intervention is part of the prefix of everything after its step.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe, read_yaml
from gristmill.recipe.resolved import resolved_yaml
from gristmill.recipe.schema.changes import SKIP_STEPS
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import KeyPath, Misfit, expected_words
from gristmill.store.durable import atomic_path

FOLDER = "interventions"
NOTED = "noted"  # a key of the file, not of the change
RUN_RECIPE = "recipe.yaml"
CHANGES: KeyPath = ("pretrain", "changes")


def with_interventions(loaded: LoadedRecipe, run: Path) -> LoadedRecipe:
    """The recipe with the interventions of a run appended to its changes. Raises RecipeError naming the file that does not fit."""
    files = _numbered(run / FOLDER)
    if not files:
        return loaded
    for path in files:
        change, _ = read_yaml(path)
        change.pop(NOTED, None)
        try:
            loaded = with_change(loaded, change, origin=str(path))
        except RecipeError as error:
            raise RecipeError(
                f"{path} does not fit the recipe {loaded.path}: {error}.\n  Correct the file, or remove it if it was not "
                "yet carried out."
            ) from None
    return loaded


def with_change(loaded: LoadedRecipe, change: Mapping[str, Any], *, origin: str) -> LoadedRecipe:
    """The recipe with one more change. Raises RecipeError with what does not fit."""
    data = loaded.recipe.model_dump(exclude_unset=True)
    changes = data["pretrain"].setdefault("changes", [])
    place = _place(change, [one.after_step for one in loaded.recipe.pretrain.changes])
    changes.insert(place, dict(change))
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError("; ".join(words for problem in error.errors() for words in _words(problem))) from None
    origins: dict[KeyPath, str] = {_after_insert(key, place): said for key, said in loaded.origins.items()}
    return LoadedRecipe(recipe=recipe, path=loaded.path, origins={**origins, (*CHANGES, place): origin})


def _words(problem: Mapping[str, Any]) -> Iterator[str]:
    """What pydantic found, as a person reads it who did not write the key."""
    found = problem.get("ctx", {}).get("error")
    if isinstance(found, Misfit):
        yield from (words for _, words in found.problems)
    elif isinstance(found, ValueError):
        yield str(found)
    else:
        yield f"{problem['loc'][-1]} is {problem['input']!r}; {expected_words(problem)}"


def _place(change: Mapping[str, Any], after_steps: Sequence[int]) -> int:
    """Where a change comes among others, of which it knows the steps."""
    settings, after_step = change.get("set"), change.get("after_step")
    if isinstance(settings, Mapping) and isinstance(after_step, int) and settings.keys() == {SKIP_STEPS}:
        return bisect_right(after_steps, after_step)
    return len(after_steps)


def _after_insert(key: KeyPath, place: int) -> KeyPath:
    """The key of what had this key before a change was put in at `place`."""
    if key[:2] == CHANGES and len(key) > 2 and isinstance(key[2], int) and key[2] >= place:
        return (*CHANGES, key[2] + 1, *key[3:])
    return key


def keep_intervention(run: Path, change: Mapping[str, Any], noted: Mapping[str, Any]) -> Path:
    """Writes a change as the next numbered file of a run, with what was known when it was decided. Returns the file."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.stem) for path in _numbered(folder)), default=0)
    path = folder / f"{number:03d}.yaml"
    with atomic_path(path) as temporary:
        text = yaml.safe_dump({**change, NOTED: dict(noted)}, sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")
    return path


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
