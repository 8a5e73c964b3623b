"""Read a recipe: YAML with line numbers → `extends:` → dotted overrides → the strict schema.

Every value keeps its origin ("recipes/base.yaml:12", "command line", "default"). Every error says file and line, and a
misspelt key is answered with the key that was probably meant. Overrides are written as in YAML: `pretrain.peak_lr=1e-3`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gristmill.errors import RecipeError
from gristmill.recipe.keys import known_keys, metadata_at, near_keys
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import KeyPath, Misfit, Unit, did_you_mean, expected_words, range_words
from gristmill.store.store import STORE
from gristmill.units import counted

COMMAND_LINE = "command line"
IN_FOLDER = "recipe.yaml"
RECIPE_SUFFIXES = (".yaml", ".yml")
SCHEMA_FILE, CONVERSATIONS_FILE = "schema.json", "conversations.jsonl"  # that init writes beside it
MAX_VALUES = 100_000  # of a recipe; a few hundred are usual
PYDANTIC_KEY = "[key]"  # ends the location of a key that is wrong itself
OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")


@dataclass(frozen=True, kw_only=True)
class LoadedRecipe:
    """A recipe, the file it came from, and where each value was written."""

    recipe: Recipe
    path: Path
    origins: Mapping[KeyPath, str]

    @property
    def folder(self) -> Path:
        """The folder that the recipe's paths are relative to."""
        return self.path.absolute().parent

    def origin(self, key: KeyPath) -> str:
        """Where the value at `key` was written: the file and line, the command line, or "default"."""
        return self.origins.get(key, "default")

    def origin_near(self, key: KeyPath) -> str:
        """Where the value at `key` was written, or else the section around it."""
        return _nearest_origin(key, self.origins, self.path)


class Blank:
    """The value of a key that is left blank. No field takes it: nothing is switched off by a value that somebody forgot."""

    def __repr__(self) -> str:
        return "blank"


BLANK = Blank()


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number, as everyone expects."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read, merge, override and check a recipe: a YAML file, or a folder with a `recipe.yaml`.

    Raises RecipeError with file, line and what to do.
    """
    path = _recipe_file(Path(path))
    data, origins = _read_with_bases(path, seen=())
    for override in overrides:
        _apply_override(data, origins, override)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_explain(error, data, origins, path)) from None
    return LoadedRecipe(recipe=recipe, path=path, origins=origins)


# ── YAML with origins ────────────────────────────────────────────────────────────────────────────────────────────────


def _recipe_file(path: Path) -> Path:
    """The recipe in a folder; any other path as it is."""
    if not path.exists():
        near = named_nearly(path, lambda found: found.suffix == ".yaml" or (found / IN_FOLDER).is_file())
        raise RecipeError(f"{path} does not exist. {near}Name a recipe, or the folder of one.")
    if not path.is_dir():
        return path
    if (path.absolute().parent / STORE).is_dir():
        raise RecipeError(
            f"{path} is a run's folder, not a recipe's: the paths in its {IN_FOLDER} start elsewhere.\n"
            "  Name the recipe that the run was made with."
        )
    if not (path / IN_FOLDER).is_file():
        others = ", ".join(sorted(found.name for found in path.glob("*.yaml")))
        raise RecipeError(
            f"{path} is a folder without a {IN_FOLDER}.\n  "
            + (f"Name one of its files: {others}." if others else "`gristmill init` makes one over your text.")
        )
    return path / IN_FOLDER


def named_nearly(path: Path, fits: Callable[[Path], bool] = Path.exists) -> str:
    """What lies where `path` should, and was probably meant, in words. fits: whether it is of the kind that is looked for."""
    with suppress(OSError):
        beside = [
            found.name for found in path.absolute().parent.iterdir() if not found.name.startswith(".") and fits(found)
        ]
        return did_you_mean(path.name, beside).replace("did", "Did", 1)
    return ""


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The merged mapping of a file and the files it extends, with the origin of every key."""
    if path.resolve() in seen:
        chain = " → ".join(str(step) for step in (*seen, path.resolve()))
        raise RecipeError(f"{path} extends itself: {chain}.")
    data, origins = read_yaml(path)
    base = data.pop("extends", None)
    if base is None:
        return data, origins
    if not isinstance(base, str):
        raise RecipeError(f"{origins[('extends',)]}: extends is {base!r}; it must be the path of another recipe.")
    base_path = path.parent / base
    if not base_path.is_file():
        raise RecipeError(f"{origins[('extends',)]}: extends {base!r}, but {base_path} does not exist.")
    base_data, base_origins = _read_with_bases(base_path, (*seen, path.resolve()))
    if base_path.absolute().parent != path.absolute().parent:
        raise RecipeError(
            f"{origins[('extends',)]}: extends {base!r}, which lies in another folder; the paths in it would point elsewhere.\n"
            f"  Put {path.name} beside {base_path.name}."
        )
    return _merge(base_data, data), _merge_origins(base_origins, origins, data)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The mapping of a YAML file, and where each of its keys was written."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text: {error}.") from error
    data, origins = _parsed(text, str(path), file=str(path))
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds no recipe: expected keys such as name, sources, model, pretrain.")
    return data, origins


def _parsed(text: str, what: str, *, file: str) -> tuple[Any, dict[KeyPath, str]]:
    """The value of a YAML text, blank where it holds none, and where each of its keys was written."""
    origins: dict[KeyPath, str] = {}
    try:
        root = yaml.compose(text, Loader=_Loader)
        return BLANK if root is None else _construct(root, (), file, origins), origins
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{what}{yaml_words(error)}") from error


def yaml_words(error: yaml.YAMLError | RecursionError) -> str:
    """What is wrong with a YAML text, to follow the file's name: ":12: not valid YAML: ..."."""
    if isinstance(error, RecursionError):
        return ": its values are nested too deeply, or within themselves."
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        context = f" ({error.context})" if error.context else ""
        is_key = error.context == "while scanning a simple key"  # then the problem is known only at a later line
        mark = (error.context_mark if is_key else None) or error.problem_mark
        return f":{mark.line + 1}: not valid YAML: {error.problem}{context}."
    if isinstance(error, yaml.reader.ReaderError):
        return f": not valid YAML: the character U+{ord(str(error.character)):04X} has no place in it; remove it."
    return f": not valid YAML: {error}."


def _construct(node: yaml.Node, key: KeyPath, file: str, origins: dict[KeyPath, str]) -> Any:
    """Plain values of a YAML node; records the origin of each key; refuses a duplicate key, and aliases that make a text endless."""
    origins[key] = f"{file}:{node.start_mark.line + 1}"
    if len(origins) > MAX_VALUES:
        raise RecipeError(
            f"{origins[key]}: more than {MAX_VALUES:,} values; write out what the aliases (*name) repeat."
        )
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            name = str(key_node.value)
            line = key_node.start_mark.line + 1
            if name in result:
                raise RecipeError(f"{file}:{line}: duplicate key {name!r}; first defined at {origins[(*key, name)]}.")
            result[name] = _construct(value_node, (*key, name), file, origins)
            origins[(*key, name)] = f"{file}:{line}"
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*key, index), file, origins) for index, item in enumerate(node.value)]
    return _scalar(node, file)


def _scalar(node: yaml.Node, file: str) -> Any:
    if node.tag == "tag:yaml.org,2002:null" and node.value == "":
        return BLANK
    loader = _Loader("")
    try:
        value = loader.construct_object(node, deep=True)
        os.fsencode(
            value if isinstance(value, str) else ""
        )  # a name of a file may hold other bytes, but no halves of characters
        return value
    except (yaml.YAMLError, ValueError) as error:
        words = getattr(error, "problem", None) or error
        raise RecipeError(
            f"{file}:{node.start_mark.line + 1}: {node.value!r} is not a plain value: {words}."
        ) from error
    finally:
        loader.dispose()


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; anything else replaces."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _merge_origins(base: dict[KeyPath, str], over: dict[KeyPath, str], data: Any) -> dict[KeyPath, str]:
    replaced = {key for key in over if not isinstance(_value_at(data, key), dict)}
    kept = {key: origin for key, origin in base.items() if not any(key[: len(path)] == path for path in replaced)}
    return {**kept, **over}


def _value_at(data: Any, key: KeyPath) -> Any:
    for part in key:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


# ── overrides ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _apply_override(data: dict[str, Any], origins: dict[KeyPath, str], override: str) -> None:
    """`a.b.0.c=value` in place; list entries by index, or stages by their name; `a.b[0].c` is the same."""
    dotted, equals, text = override.partition("=")
    dotted = re.sub(r"\[([^][.]+)\]", r".\1", dotted)
    if not equals or not dotted:
        raise RecipeError(f"the override {override!r} is not of the form key.sub=value.")
    value, _ = _parsed(text, f"the override {override!r}", file=COMMAND_LINE)
    target: Any = data
    key: list[str | int] = []
    *path, last = dotted.split(".")
    for part in path:
        step = _list_index(target, part, override) if isinstance(target, list) else part
        if isinstance(target, dict) and not isinstance(target.get(part), (dict, list)):
            target[part] = {}
            origins[(*key, part)] = COMMAND_LINE
        target = target[step]
        key.append(step)
    step = _list_index(target, last, override) if isinstance(target, list) else last
    target[step] = value
    for old in [old for old in origins if old[: len(key) + 1] == (*key, step)]:
        del origins[old]
    origins[(*key, step)] = COMMAND_LINE


def _list_index(items: list[Any], part: str, override: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    places = [str(place) for place in range(len(items))]
    if part in places:
        return places.index(part)
    known = ", ".join(str(name) for name in names if name) or f"0 to {len(items) - 1}"
    raise RecipeError(f"the override {override!r} names the list entry {part!r}; there are {known}.")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _explain(error: ValidationError, data: Any, origins: Mapping[KeyPath, str], path: Path) -> str:
    problems = [line for problem in error.errors() for line in _explain_one(dict(problem), data, origins, path)]
    return f"{path} has {counted(len(problems), 'problem')}:\n" + "\n".join(f"  {problem}" for problem in problems)


def _explain_one(problem: dict[str, Any], data: Any, origins: Mapping[KeyPath, str], path: Path) -> Iterator[str]:
    """The lines for one problem of pydantic's: several where parts of a section do not fit together."""
    if problem["type"] == "value_error" and isinstance(misfit := problem["ctx"]["error"], Misfit):
        for inner, words in misfit.problems:
            yield f"{_nearest_origin(_data_path((*problem['loc'], *inner), data), origins, path)}: {words}"
    else:
        key = _data_path(problem["loc"], data)
        yield f"{_nearest_origin(key, origins, path)}: {_words(problem, key, data)}"


def _words(problem: dict[str, Any], key: KeyPath, data: Any) -> str:
    dotted = ".".join(str(part) for part in key if part != PYDANTIC_KEY) or "recipe"
    kind, found = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        near, known = near_keys(key, problem["loc"], data), known_keys(problem["loc"])
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key {dotted!r}; {hint}"
    if kind == "missing":
        return f"the key {dotted!r} is missing"
    if isinstance(found, Blank):
        return f"the key {dotted!r} is left blank; give it a value, remove it, or write null where none is meant"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind == "union_tag_invalid":
        return f"{dotted}.format is {problem['ctx']['tag']!r}; expected one of {problem['ctx']['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"{dotted}.format is missing; it says how the files are read"
    metadata = metadata_at(problem["loc"])
    if kind in OUT_OF_RANGE and (unit := next((mark for mark in metadata if isinstance(mark, Unit)), None)):
        return f"{dotted} is {found!r}; expected {range_words(metadata)}: {unit.why}"
    return f"{dotted} is {found!r}; {expected_words(problem)}"


def _data_path(loc: Sequence[str | int], data: Any) -> KeyPath:
    """The error's location without the tags that pydantic adds for unions: only steps that lead through the data."""
    key: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(data, (dict, list)) and _has(data, part):
            data = data[part]  # type: ignore[index]
            key.append(part)
        elif last:
            key.append(part)
    return tuple(key)


def _has(data: dict[str, Any] | list[Any], part: str | int) -> bool:
    return part in data if isinstance(data, dict) else isinstance(part, int) and part < len(data)


def _nearest_origin(key: KeyPath, origins: Mapping[KeyPath, str], path: Path) -> str:
    for length in range(len(key), 0, -1):
        if key[:length] in origins:
            return origins[key[:length]]
    return str(path)
