"""The keys that a recipe may have, read off the annotations of its sections: what is allowed at a place, and what a wrong key was
probably meant to be."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import KeyPath

MOST_NEAR_KEYS = 3
SIMILAR = 0.5  # by difflib's ratio, of keys beside each other; of keys elsewhere VERY_SIMILAR
VERY_SIMILAR = 0.8


def near_keys(key: KeyPath, loc: Sequence[str | int], data: Any) -> list[str]:
    """Dotted keys that an unknown key was probably meant to be: the same name in a section below, else a name like it beside it,
    else the same name, or one much like it, anywhere in the recipe. loc: pydantic's location of the key."""
    above, name = key[:-1], str(key[-1])
    paths = [path for path in dict.fromkeys(_all_keys(Recipe, data, ())) if path != key]
    named = [path for path in paths if path[-1] == name]
    below = [path for path in named if path[: len(above)] == above]
    beside = difflib.get_close_matches(name, known_keys(loc), n=1, cutoff=SIMILAR)
    if below or not beside:
        similar = difflib.get_close_matches(name, {str(path[-1]) for path in paths}, n=1, cutoff=VERY_SIMILAR)
        found = below or named or [path for path in paths if path[-1] in similar]
    else:
        found = [(*above, beside[0])]
    return [".".join(map(str, path)) for path in found[:MOST_NEAR_KEYS]]


def _all_keys(annotation: Any, data: Any, key: KeyPath) -> Iterator[KeyPath]:
    """The keys that the schema knows, in the sections and entries that the recipe has."""
    if _is_model(annotation):
        for name, field in annotation.model_fields.items():
            yield (*key, name)
            if isinstance(data, dict) and isinstance(data.get(name), (dict, list)):
                for inner in _unwrap(field.annotation):
                    yield from _all_keys(inner, data[name], (*key, name))
        return
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for entry, value in entries:
        for inner in _unwrap(typing.get_args(annotation)[-1]) if typing.get_args(annotation) else ():
            yield from _all_keys(inner, value, (*key, entry))


def _holders(loc: Sequence[str | int]) -> list[Any]:
    """The annotations of what holds the last key: models and containers."""
    current: list[Any] = [Recipe]
    for part in loc[:-1]:
        following: list[Any] = []
        for annotation in current:
            following += _step_into(annotation, part)
        current = following or current
    return current


def known_keys(loc: Sequence[str | int]) -> list[str]:
    """Field names allowed at the place where an unknown key was found."""
    return [name for model in _holders(loc) if _is_model(model) for name in model.model_fields]


def metadata_at(loc: Sequence[str | int]) -> list[Any]:
    """Ranges and units of the number at a place."""
    found: list[Any] = []
    for holder in _holders(loc):
        field = holder.model_fields.get(loc[-1]) if _is_model(holder) else None
        if field is not None:
            found += field.metadata
        found += _marks(field.annotation if field is not None else holder)
    return found


def _marks(annotation: Any) -> Iterator[Any]:
    """What the parts of an annotation carry, ranges given by a field of pydantic's unfolded."""
    if typing.get_origin(annotation) is typing.Annotated:
        for mark in typing.get_args(annotation)[1:]:
            yield from mark.metadata if isinstance(mark, FieldInfo) else [mark]
    for part in typing.get_args(annotation):
        yield from _marks(part)


def _step_into(annotation: Any, part: str | int) -> list[Any]:
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        if field is not None:
            return _unwrap(field.annotation)
        tag = getattr(annotation.model_fields.get("format"), "annotation", None)
        return [annotation] if tag is not None and part in typing.get_args(tag) else []
    arguments = typing.get_args(annotation)
    return _unwrap(arguments[-1]) if arguments else []


def _unwrap(annotation: Any) -> list[Any]:
    """The classes behind Annotated and unions; containers stay as they are."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _unwrap(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [leaf for item in typing.get_args(annotation) if item is not type(None) for leaf in _unwrap(item)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
