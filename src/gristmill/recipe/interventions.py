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
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe, read_yaml
from gristmill.recipe.resolved import resolved_yaml
from gristmill.recipe.schema.changes import SKIP_STEPS, Change
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import KeyPath, Misfit, expected_words
from gristmill.store.durable import atomic_path

FOLDER = "interventions"
NOTED = "noted"  # a key of the file, not of the change
RUN_RECIPE = "recipe.yaml"
CHANGES: KeyPath = ("pretrain", "changes")


def with_interventions(loaded: LoadedRecipe, run: Path) -> LoadedRecipe:
    """The recipe with the interventions of a run appended to its changes. Raises RecipeError naming the file that does not fit."""
    for path in _numbered(run / FOLDER):
        loaded = _with_file(loaded, path)
    return loaded


def with_those_to_come(text: str, loaded: LoadedRecipe, run: Path) -> str:
    """The text of a run's recipe as it was carried out, with the interventions that were written since; the text itself where there are
    none. loaded: the recipe of that text. Raises RecipeError naming the file that does not fit."""
    taken = list(loaded.recipe.pretrain.changes)
    to_come = list[Path]()
    for path in _numbered(run / FOLDER):
        change = _as_change(path)
        if change in taken:
            taken.remove(change)
        else:
            to_come.append(path)
    if not to_come:
        return text
    lines = text.splitlines()
    became = replace(loaded, origins=_origins_said(lines, loaded.origins))
    for path in to_come:
        became = _with_file(became, path)
    said = [f"# {path} is not carried out yet; the next `gristmill run` does" for path in to_come]
    return "\n".join([*said, *(line for line in lines[:1] if line.startswith("#")), resolved_yaml(became)])


def _with_file(loaded: LoadedRecipe, path: Path) -> LoadedRecipe:
    try:
        return with_change(loaded, _read_change(path), origin=str(path))
    except RecipeError as error:
        raise RecipeError(
            f"{path} does not fit the recipe {loaded.path}: {error}.\n  Correct the file, or remove it if it was not "
            "yet carried out."
        ) from None


def _read_change(path: Path) -> dict[str, Any]:
    change, _ = read_yaml(path)
    change.pop(NOTED, None)
    return change


def _as_change(path: Path) -> Change | None:
    """The change of a file; None for one that is none, of which `_with_file` says why."""
    try:
        return Change.model_validate(_read_change(path))
    except ValidationError:
        return None


def _origins_said(lines: Sequence[str], origins: Mapping[KeyPath, str]) -> dict[KeyPath, str]:
    """Where the values of a run's recipe were written, by the comments at the ends of its lines. origins: "file:line" of that recipe."""
    found: dict[KeyPath, str] = {}
    for key, place in origins.items():
        value, mark, said = lines[int(place.rpartition(":")[2]) - 1].rpartition("  # ")
        if mark and value.strip():
            found[key] = said
    return found


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
