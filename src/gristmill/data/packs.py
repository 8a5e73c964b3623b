"""Task packs: the file format of evaluation items, read by evaluation, decontamination and the in-loop scorer alike.

A pack is a folder:

    pack.yaml     name, version, kind, metric, chance, items_sha256 [, group, description, license]
    items.jsonl   one item per line: {"id", "prompt", "choices", "answer", "target", "ids", "question", "passage"}

`kind` is `multiple_choice` (the model ranks `choices`; `answer` is the index of the right one), `generate` (the
model writes; `target` is what it should write) or `unscored` (a set that others score; its text is only kept out of the
training data). `group` is what the pack is about, such as knowledge, maths, code: packs of one group are shown together; without
one a pack is its own group. `question` is what of the prompt belongs to this item alone, and `passage` the text that it asks about, where
the prompt holds other words besides: decontamination looks for the question. `ids` are the ids of the documents that an item was cut from: they
leave every source before anything is learnt from it, since n-gram decontamination cannot see short items.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gristmill.data.passages import record_id
from gristmill.errors import DataError
from gristmill.graph.step import OutsideFiles
from gristmill.recipe.load import yaml_words
from gristmill.store.durable import atomic_path
from gristmill.store.jsonl import numbered_objects

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

SCORED_KINDS = ("multiple_choice", "generate")
KINDS = (*SCORED_KINDS, "unscored")
PACK_LABEL = "pack "
PACK_KEYS = {"name", "version", "kind", "metric", "chance", "items_sha256"}
OPTIONAL_PACK_KEYS = {"description", "group", "license"}
LETTERS = frozenset(string.ascii_uppercase)
ITEM_KEYS = {"id", "prompt", "choices", "answer", "target", "ids", "question", "passage"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question. `choices` and `answer` are set for multiple_choice, `target` for generate; `question` and `passage` may be
    empty."""

    id: str
    prompt: str
    choices: tuple[str, ...] = ()
    answer: int | None = None
    target: str | None = None
    ids: tuple[str, ...] = ()
    question: str = ""
    passage: str = ""

    @property
    def gold(self) -> str:
        """The right continuation of `prompt`, whatever the kind; empty where an unscored item has none."""
        return self.choices[self.answer] if self.answer is not None else self.target or ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """A checked pack. `chance` is the score of blind guessing in 0-1; `sha256` is that of items.jsonl."""

    name: str
    version: int
    kind: str
    metric: str
    chance: float
    items: tuple[Item, ...]
    sha256: str
    path: Path
    group: str = ""
    description: str = ""
    license: str = ""

    @property
    def is_of_letters(self) -> bool:
        """Whether the model answers with a letter, the choices being in the prompt: the form that small models learn late."""
        return self.kind == "multiple_choice" and all(
            choice.strip() in LETTERS for item in self.items for choice in item.choices
        )


def group_of(folder: Path, name: str) -> str:
    """The group of the pack in a folder, by its pack.yaml; `name` where it has none. Its items are not opened."""
    return str(_read_head(folder / "pack.yaml").get("group") or name)


def read_pack(path: Path) -> Pack:
    """Reads and checks a pack folder.

    Raises DataError, naming file and line, when a file or key is missing, a key is unknown, items.jsonl does not
    have the hash that pack.yaml names, two items share an id, or an item does not fit the kind of the pack.
    """
    head_path, items_path = path / "pack.yaml", path / "items.jsonl"
    for needed in (head_path, items_path):
        if not needed.is_file():
            raise DataError(
                f"{path} is no task pack: {needed.name} is missing. A pack is a folder with pack.yaml and items.jsonl."
            )
    head = _read_head(head_path)
    data = items_path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != head["items_sha256"]:
        raise DataError(
            f"{items_path} has sha256 {sha256}, but {head_path} names {head['items_sha256']}: the items were changed. "
            f"Restore the file, or publish the change as a new version with the new hash."
        )
    items = _read_items(items_path, head["kind"])
    fields = {key: value for key, value in head.items() if key != "items_sha256"}
    return Pack(items=items, sha256=sha256, path=path, **fields)


def write_pack(
    path: Path,
    *,
    name: str,
    version: int,
    kind: str,
    metric: str,
    chance: float,
    items: Iterable[Item],
    group: str = "",
    description: str = "",
    license: str = "",
) -> Pack:
    """Writes a pack folder (pack.yaml last) and reads it back, so that what was written is known to be valid."""
    path.mkdir(parents=True, exist_ok=True)
    data = "".join(_item_line(item) for item in items).encode("utf-8")
    with atomic_path(path / "items.jsonl") as temporary:
        temporary.write_bytes(data)
    head = {
        "name": name,
        "version": version,
        "kind": kind,
        "metric": metric,
        "chance": chance,
        **({"group": group} if group else {}),
        "description": description,
        "license": license,
        "items_sha256": hashlib.sha256(data).hexdigest(),
    }
    with atomic_path(path / "pack.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(head, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return read_pack(path)


def packs_of(files: Mapping[str, OutsideFiles]) -> list[Pack]:
    """The packs among a step's outside files, those with the label "pack <name>", in the order of their names."""
    labels = sorted(label for label in files if label.startswith(PACK_LABEL))
    return [read_pack(pack_folder(files[label])) for label in labels]


def packs_by_name(files: Mapping[str, OutsideFiles], names: Iterable[str]) -> dict[str, Pack]:
    """The packs with these names in the recipe."""
    return {name: read_pack(pack_folder(files[f"{PACK_LABEL}{name}"])) for name in names}


def pack_folder(files: OutsideFiles) -> Path:
    """The folder in which a pack's files lie."""
    (folder,) = {path.parent for path in files.paths}
    return folder


def passages_of(items: Iterable[Item]) -> list[int] | None:
    """The number of the passage that each item asks about, items without one having their own; None where no two share one."""
    numbers: dict[tuple[str, str], int] = {}
    found = [numbers.setdefault(("", item.passage) if item.passage else (item.id, ""), len(numbers)) for item in items]
    return found if len(numbers) < len(found) else None


def held_out_ids(packs: Iterable[Pack]) -> frozenset[str]:
    """The ids of all documents that any item of any pack was cut from."""
    return frozenset(id for pack in packs for item in pack.items for id in item.ids)


def is_held_out(id: str, held_out: frozenset[str]) -> bool:
    """Whether a document is among them, itself or as a passage of a record, or a piece of a file, that is."""
    while id and id not in held_out:
        id = record_id(id)
    return id in held_out


def _read_head(path: Path) -> dict[str, Any]:
    try:
        head = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}. Convert it.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path}{yaml_words(error)}") from error
    if not isinstance(head, dict):
        raise DataError(f"{path} holds {type(head).__name__}, expected keys {', '.join(sorted(PACK_KEYS))}.")
    if missing := PACK_KEYS - head.keys():
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}.")
    if unknown := head.keys() - PACK_KEYS - OPTIONAL_PACK_KEYS:
        raise DataError(f"{path} has unknown keys {', '.join(sorted(map(repr, unknown)))}.")
    checks = {
        "name": isinstance(head["name"], str) and head["name"] != "",
        "version": type(head["version"]) is int and head["version"] >= 1,
        "kind": head["kind"] in KINDS,
        "metric": isinstance(head["metric"], str) and head["metric"] != "",
        "chance": type(head["chance"]) in (int, float) and 0 <= head["chance"] <= 1,
        "items_sha256": isinstance(head["items_sha256"], str) and len(head["items_sha256"]) == 64,
        **({"group": isinstance(head["group"], str) and head["group"] != ""} if "group" in head else {}),
    }
    expected = {"kind": " or ".join(KINDS), "chance": "a number from 0 to 1", "version": "a whole number from 1"}
    for key, holds in checks.items():
        if not holds:
            raise DataError(f"{path}: {key} is {head[key]!r}, expected {expected.get(key, 'a text')}.")
    return {**head, "chance": float(head["chance"])}


def _read_items(path: Path, kind: str) -> tuple[Item, ...]:
    items: dict[str, Item] = {}
    for number, value in numbered_objects(path):
        problem = _item_problem(value, kind)
        if problem is None and value["id"] in items:
            problem = f"the id {value['id']!r} is used twice"
        if problem is not None:
            raise DataError(f"{path}:{number}: {problem}.")
        items[value["id"]] = Item(
            id=value["id"],
            prompt=value["prompt"],
            choices=tuple(value.get("choices") or ()),
            answer=value.get("answer"),
            target=value.get("target"),
            ids=tuple(value.get("ids") or ()),
            question=value.get("question") or "",
            passage=value.get("passage") or "",
        )
    if not items:
        raise DataError(f"{path} holds no items.")
    return tuple(items.values())


def _item_problem(value: dict[str, Any], kind: str) -> str | None:
    """What is wrong with one item, or None."""
    if unknown := value.keys() - ITEM_KEYS:
        return f"unknown keys {', '.join(sorted(map(repr, unknown)))}"
    for key in ("id", "prompt"):
        if not isinstance(value.get(key), str) or not value[key]:
            return f"{key!r} is {value.get(key)!r}, expected a non-empty text"
    for key in ("choices", "ids"):
        texts = value.get(key) or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return f"{key!r} is {texts!r}, expected a list of texts"
    for key in ("question", "passage"):
        if not isinstance(value.get(key) or "", str):
            return f"{key!r} is {value[key]!r}, expected a text"
    choices, answer, target = value.get("choices") or [], value.get("answer"), value.get("target")
    if kind == "multiple_choice":
        if len(choices) < 2:
            return f"multiple_choice needs two or more choices, found {len(choices)}"
        if type(answer) is not int or not 0 <= answer < len(choices):
            return f"'answer' is {answer!r}, expected an index from 0 to {len(choices) - 1}"
    elif kind == "generate" and (not isinstance(target, str) or not target):
        return f"'target' is {target!r}, expected a non-empty text"
    elif target is not None and not isinstance(target, str):
        return f"'target' is {target!r}, expected a text"
    return None


def _item_line(item: Item) -> str:
    value = {
        "id": item.id,
        "prompt": item.prompt,
        "choices": list(item.choices),
        "answer": item.answer,
        "target": item.target,
        "ids": list(item.ids),
        "question": item.question,
        "passage": item.passage,
    }
    return json.dumps(value, ensure_ascii=False) + "\n"
