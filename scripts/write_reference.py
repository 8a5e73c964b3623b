"""Write docs/recipe.md, the reference of a recipe: every key with its type, unit, default, meaning and an example.

python scripts/write_reference.py

All of it is read from the schema; the examples are the values of tests/pins/every-field.yaml, a recipe in which every key stands.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gristmill.recipe.schema.changes import Change
from gristmill.recipe.schema.languages import LanguageCode
from gristmill.recipe.schema.mixture import Draw
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import Section, range_words

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "recipe.md"
EXAMPLES = ROOT / "tests" / "pins" / "every-field.yaml"
HEAD = """# The recipe, key by key

Written by `python scripts/write_reference.py` from `src/gristmill/recipe/schema/`. A recipe is a YAML file with these keys and no others.
For a misspelt key the error names the right one; for a number out of range it gives the reason for the range. No key may be blank: leave it
out to get its default, or write `null` where the default is none. Paths are relative to the recipe. On the command line
`pretrain.optimizer.peak_lr=1e-3` sets the same key as in the file. `extends: base.yaml` builds on another recipe
([variants](steps/README.md#variants-of-a-recipe)). [formats.md](formats.md) describes the files that a recipe names.
"""
WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number"}


def sections() -> dict[str, type[BaseModel]]:
    """Where each section stands, in the order of the recipe; a section that stands in several places comes once."""
    found: dict[str, type[BaseModel]] = {}
    _collect(Recipe, "", found)
    return found


def _collect(model: type[BaseModel], where: str, found: dict[str, type[BaseModel]]) -> None:
    if model in found.values():
        return
    found[where] = model
    for name, field in model.model_fields.items():
        for step, inner in _models(field.annotation):
            _collect(inner, f"{where}.{name}{step}".lstrip("."), found)


def _models(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """(what follows the key, model) of each section below an annotation."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        is_reader = "format" in annotation.model_fields
        yield (
            f" ({typing.get_args(annotation.model_fields['format'].annotation)[0]})" if is_reader else "",
            annotation,
        )
    elif origin is list:
        yield from ((f"[]{step}", model) for step, model in _models(parts[0]))
    elif origin is dict:
        yield from ((f".<name>{step}", model) for step, model in _models(parts[1]))
    else:
        for part in parts:
            yield from _models(part)


def type_words(annotation: Any) -> str:
    """A type as a person would say it."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == LanguageCode:
        return "language code"
    if origin is typing.Annotated:
        return type_words(parts[0])
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        known = [type_words(part) for part in parts if part is not type(None)]
        return " or ".join(dict.fromkeys(known))
    if origin is list:
        return f"list of {type_words(parts[0])}"
    if origin is dict:
        return f"name: {type_words(parts[1])}"
    return "section" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else WORDS[annotation]


def range_of(field: FieldInfo) -> str:
    """The range and unit of a field's numbers, in words; empty where it has none."""
    return range_words([*field.metadata, *_marks(field.annotation)])


def _marks(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return
    if typing.get_origin(annotation) is typing.Annotated:
        for mark in typing.get_args(annotation)[1:]:
            yield from mark.metadata if isinstance(mark, FieldInfo) else [mark]
    for part in typing.get_args(annotation):
        yield from _marks(part)


def meaning(field: FieldInfo) -> str:
    """Its description; of a section the first sentence of its docstring."""
    if field.description:
        return field.description
    models = [model for _, model in _models(field.annotation)]
    return first_sentence(models[0]) if models else ""


def first_sentence(model: type[BaseModel]) -> str:
    """Of a section's docstring."""
    return " ".join((model.__doc__ or "").split("\n\n")[0].split()).rstrip(".")


def default_words(field: FieldInfo) -> str:
    """What holds when the key is left out."""
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "none"
    if isinstance(default, Section):
        return "its defaults"
    return f"`{_yaml(default)}`"


def _yaml(value: Any) -> str:
    text = yaml.safe_dump([value], default_flow_style=True, width=10**9, allow_unicode=True).strip()[1:-1]
    return text.replace("|", "\\|")


def examples() -> dict[tuple[str, str], Any]:
    """(name of a section's class, key) → the value that stands in the recipe of every field."""
    found: dict[tuple[str, str], Any] = {}
    data = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))
    _values(Recipe.model_validate(data), found)
    return found


def _values(value: Any, found: dict[tuple[str, str], Any]) -> None:
    if isinstance(value, BaseModel):
        for name in (name for name in type(value).model_fields if name in value.model_fields_set):
            item = getattr(value, name)
            found.setdefault((type(value).__name__, name), item)
            _values(item, found)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            _values(item, found)


def rows(model: type[BaseModel], shown: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    """A row of the table for each key of a section."""
    for name, field in model.model_fields.items():
        kind = ", ".join(part for part in (type_words(field.annotation), range_of(field)) if part)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        example = shown.get((model.__name__, name), default)
        is_plain = example is not None and not any(True for _ in _models(field.annotation))
        text = f"`{name}: {_yaml(example)}`" if is_plain else ""
        said = meaning(field).replace("|", "\\|")
        yield f"| `{name}` | {kind} | {default_words(field)} | {said} | {text} |"


def reference_text() -> str:
    """The whole page."""
    parts, shown = [HEAD], examples()
    for where, model in sections().items():
        title = f"`{where}`" if where else "The top"
        parts.append(f"\n## {title}\n\n{first_sentence(model)}.\n")
        parts.append("| key | type and range | default | meaning | example |\n|---|---|---|---|---|")
        parts += rows(model, shown)
    for model, words in ((Draw, "A mixture may also be written short, `{web: 0.75, books: 0.25}`."),
                         (Change, "Which keys can change in the middle of a training: see `set`.")):  # fmt: skip
        title = next(where for where, other in sections().items() if other is model)
        parts = [f"{part}\n{words}\n" if part.startswith(f"\n## `{title}`") else part for part in parts]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference_text(), encoding="utf-8")
    print(f"wrote {PAGE}")
