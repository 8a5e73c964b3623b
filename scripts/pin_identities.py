"""Pin what the identity of every step covers: for the shipped recipes the documents, for the schema the steps of each field.

    python scripts/pin_identities.py                       show what differs from the pins
    python scripts/pin_identities.py --why "a reason"      pin what is there now; the history says which steps are remade and why

A change of a pin makes every user's artefacts of that step drift. It is therefore never taken over without a reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from gristmill.errors import RecipeError
from gristmill.graph.state import identity_document
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import write_json
from gristmill.store.fingerprint import canonical, fingerprint

ROOT = Path(__file__).parents[1]
PINS = ROOT / "tests" / "pins" / "identities.json"
RECIPES = ("quickstart", "domain", "smollm2-135m", "smollm2-360m", "smollm2-1.7b")
EVERY_FIELD = ROOT / "tests" / "pins" / "every-field.yaml"
Key = tuple[str | int, ...]


def documents(recipe: Recipe) -> dict[str, Any]:
    """Step → what its identity covers; the content of files and inputs is named, not hashed."""
    return {
        step.name: identity_document(
            step,
            {label: dict.fromkeys(patterns, "content") for label, patterns in step.given.files.items()},
            {role: str(read) for role, read in step.given.inputs.items()},
        )
        for step in steps_of(recipe)
    }


def without_places(found: dict[str, Any]) -> dict[str, Any]:
    """The same documents without where files lie, which is no part of an identity."""
    return {name: {**document, "files": sorted(document["files"])} for name, document in found.items()}


# ── every field ──────────────────────────────────────────────────────────────────────────────────────────────────────


def fields_of(recipe: Recipe) -> dict[str, list[str]]:
    """ "Class.field" → the steps (by verb) whose own document another value of it changes, wherever the field stands; where it
    holds a section or several, the steps that change without it or without one of them."""
    before = without_places(documents(recipe))
    found: dict[str, set[str]] = {}
    for key, field in sorted(_fields(recipe, ()), key=lambda found: str(found[0])):
        changed = found.setdefault(field, set())
        for other in _mutations(recipe, key):
            after = without_places(documents(other))
            changed |= {
                name.partition("/")[0] for name in before.keys() | after.keys() if before.get(name) != after.get(name)
            }
    return {field: sorted(steps) for field, steps in sorted(found.items())}


def all_fields() -> set[str]:
    """Every "Class.field" of the schema."""
    found: set[str] = set()
    waiting, seen = [Recipe], set[type]()
    while waiting:
        model = waiting.pop()
        if model in seen:
            continue
        seen.add(model)
        for name, field in model.model_fields.items():
            waiting += _models_in(field.annotation)
            found.add(f"{model.__name__}.{name}")
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)


def _fields(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    """(key, "Class.field") of every field of a section and of the sections below it."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield (*key, name), f"{type(value).__name__}.{name}"
            if list(_models_in(field.annotation)):
                yield from _fields(getattr(value, name), (*key, name))
    elif isinstance(value, dict | list):
        for name, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _fields(child, (*key, name))
    elif key[-2:-1] == ("set",):
        yield key, "Change.set"


def _mutations(recipe: Recipe, key: Key) -> list[Recipe]:
    """The recipe with another value at `key`, or without a section there: the first candidate that is valid."""
    old: Any = recipe
    for part in key:
        old = getattr(old, part) if isinstance(part, str) and isinstance(old, BaseModel) else old[part]
    parts = old.values() if isinstance(old, dict) else old if isinstance(old, list) else [old]
    candidates = _without if any(isinstance(part, BaseModel) for part in parts) else _with_others
    for candidate in candidates(recipe, key, old):
        try:
            return [Recipe.model_validate(candidate)]
        except ValueError:
            continue
    return []


def _with_others(recipe: Recipe, key: Key, old: Any) -> Iterator[Any]:
    for value in _others(old):
        copy = _plain(recipe)
        place = _at(copy, key[:-1])
        place[key[-1]] = value
        if key[-1] == "weight":  # the weights of a mixture sum to 1, so two of them change places
            neighbour = _at(copy, (*key[:-2], (int(key[-2]) + 1) % len(_at(copy, key[:-2]))))
            place["weight"], neighbour["weight"] = neighbour["weight"], old
        yield copy


def _without(recipe: Recipe, key: Key, old: Any) -> Iterator[Any]:
    """Without one entry, the last first; without a section, then without those that follow it, which may need it."""
    if isinstance(old, BaseModel):
        copy = _plain(recipe)
        _at(copy, key[:-1])[key[-1]] = None
        yield copy
        for all_that_follow in (False, True):
            copy = _plain(recipe)
            place = _at(copy, key[:-1])
            names = list(place)
            first = names.index(key[-1])
            for name in names[first:] if all_that_follow else names[first : first + 1]:
                del place[name]
            yield copy
    else:
        for name in reversed(list(old) if isinstance(old, dict) else range(len(old))):
            copy = _plain(recipe)
            place = _at(copy, key)
            entry = place.pop(name)
            if key[-1] == "mixture" and place:  # its weights sum to 1
                place[0]["weight"] += entry["weight"]
            yield copy


def _plain(recipe: Recipe) -> Any:
    return canonical(recipe.model_dump(exclude_defaults=False))


def _at(value: Any, key: Key) -> Any:
    for part in key:
        value = value[part]
    return value


def _others(value: Any) -> list[Any]:
    """Values of the same kind; which of them fits, the schema says."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2, value // 2, value - 1]
    if isinstance(value, float):
        return [value / 2, value * 2, value / 3]
    if isinstance(value, list):
        return [value[:-1], [*value, "another"], ["another"], [*value, "web"], [*value, "de"], ["facts"], []]
    if isinstance(value, dict):
        return (
            [{}, dict(zip(value, reversed(value.values()))), dict.fromkeys(value, 5.0), dict([*value.items()][:-1])]
            if value
            else [{"too_few_words": 3.0}, {"web": 1.0}]
        )
    if value is None:
        return [7, 7.0, "web", "books", ["another"]]
    return [
        "other",
        f"{value}x",
        "coverage@1",
        "paragraph",
        "content",
        "resiliparse",
        "fasttext",
        "one_minus_sqrt",
        "skip",
        "bfloat16",
        "CC-MAIN-2024-18",
        "https://other.example.org",
        "books",
        "web",
        "facts",
        "|",
        "0" * 64,
    ]


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def every_field_recipe() -> Recipe:
    """A recipe in which every field of the schema stands."""
    return Recipe.model_validate(yaml.safe_load(EVERY_FIELD.read_text(encoding="utf-8")))


def present() -> dict[str, Any]:
    """What would be pinned now."""
    recipes = {name: documents(load_recipe(ROOT / "recipes" / f"{name}.yaml").recipe) for name in RECIPES}
    return dict(canonical({"recipes": recipes, "fields": fields_of(every_field_recipe())}))


def differences_of(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Which steps of which recipes, and which fields, differ."""
    lines = [
        f"{recipe}: {step}"
        for recipe in new["recipes"]
        for step in sorted(old["recipes"].get(recipe, {}).keys() | new["recipes"][recipe].keys())
        if old["recipes"].get(recipe, {}).get(step) != new["recipes"][recipe].get(step)
    ]
    return lines + [
        f"{field}: {old['fields'].get(field)} → {new['fields'].get(field)}"
        for field in sorted(old["fields"].keys() | new["fields"].keys())
        if old["fields"].get(field) != new["fields"].get(field)
    ]


def main() -> None:
    """Show the differences, or pin them with a reason."""
    parser = argparse.ArgumentParser(description="Pin what identities cover.")
    parser.add_argument("--why", help="pin what is there now, for this reason")
    why = parser.parse_args().why
    pinned = (
        json.loads(PINS.read_text(encoding="utf-8")) if PINS.exists() else {"recipes": {}, "fields": {}, "history": []}
    )
    now = present()
    lines = differences_of(pinned, now)
    print("\n".join(lines) or "nothing differs")
    if why is None:
        sys.exit(1 if lines else 0)
    if lines:
        entry = {"remakes": lines, "why": why, "pins": fingerprint(now)}
        write_json(PINS, {**now, "history": [*pinned["history"], entry]})


if __name__ == "__main__":
    try:
        main()
    except RecipeError as error:
        sys.exit(str(error))
