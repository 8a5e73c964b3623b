"""The recipe as it became: every value, defaults too, as YAML that loads again, each line with where its value was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.section import KeyPath

COMMENT_COLUMN = 60


def resolved_yaml(loaded: LoadedRecipe) -> str:
    """The whole recipe as YAML. Comments say "file:line", "command line" or "default"."""
    return "\n".join(_lines(loaded.recipe, (), loaded.origins, "", is_default=False)) + "\n"


def _lines(value: Any, key: KeyPath, origins: Mapping[KeyPath, str], indent: str, *, is_default: bool) -> Iterator[str]:
    """The lines of a mapping or a list, without the key that leads to it."""
    for label, part, child, child_is_default in _children(value, is_default):
        child_key = (*key, part)
        if _is_leaf(child):
            text = f"{indent}{label}{_scalar(child)}"
            origin = "default" if child_is_default else _nearest_origin(child_key, origins)
            yield f"{text:<{COMMENT_COLUMN}}  # {origin}"
        elif label == "- ":
            first, *rest = _lines(child, child_key, origins, indent + "  ", is_default=child_is_default)
            yield f"{indent}- {first[len(indent) + 2 :]}"
            yield from rest
        else:
            yield f"{indent}{label.rstrip()}"
            yield from _lines(child, child_key, origins, indent + "  ", is_default=child_is_default)


def _children(value: Any, is_default: bool) -> Iterator[tuple[str, str | int, Any, bool]]:
    """(prefix of the line, key, value, whether it is a default) of each entry."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield f"{name}: ", name, getattr(value, name), is_default or name not in value.model_fields_set
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield f"{_scalar(name)}: ", name, item, is_default
    else:
        for index, item in enumerate(value):
            yield "- ", index, item, is_default


def _is_leaf(value: Any) -> bool:
    """Scalars, empty containers and lists of scalars are written on one line."""
    if isinstance(value, BaseModel):
        return False
    if isinstance(value, Mapping):
        return not value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return not any(isinstance(item, (BaseModel, Mapping)) for item in value)
    return True


def _scalar(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump([plain], default_flow_style=True, width=10**9, allow_unicode=True).strip()[1:-1]


def _nearest_origin(key: KeyPath, origins: Mapping[KeyPath, str]) -> str:
    for length in range(len(key), 0, -1):
        if key[:length] in origins:
            return origins[key[:length]]
    return "default"
