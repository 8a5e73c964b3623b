"""Task packs are read whole and checked, or refused with the file and the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.data.packs import Item, held_out_ids, read_pack, write_pack
from gristmill.errors import DataError

CHOICE = Item(id="q1", prompt="The sky is", choices=(" blue", " green"), answer=0, ids=("doc-1", "doc-2"))


def make(path: Path, *items: Item, kind: str = "multiple_choice") -> Path:
    write_pack(path, name="demo", version=1, kind=kind, metric="acc", chance=0.5, items=items)
    return path


def rewrite(path: Path, *lines: Any) -> None:
    """Replaces the items and makes the hash right, so that the items themselves are what is looked at."""
    import hashlib

    data = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
    (path / "items.jsonl").write_bytes(data)
    head = (path / "pack.yaml").read_text().splitlines()
    head = [f"items_sha256: {hashlib.sha256(data).hexdigest()}" if "items_sha256" in line else line for line in head]
    (path / "pack.yaml").write_text("\n".join(head))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pack = read_pack(make(tmp_path / "p", CHOICE))
    assert (pack.name, pack.kind, pack.chance, pack.items) == ("demo", "multiple_choice", 0.5, (CHOICE,))
    assert pack.items[0].gold == " blue"
    assert held_out_ids([pack]) == {"doc-1", "doc-2"}


def test_changed_items_are_refused_by_their_hash(tmp_path: Path) -> None:
    path = make(tmp_path / "p", CHOICE)
    with (path / "items.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"items.jsonl has sha256 .* the items were changed"):
        read_pack(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pack\.yaml is missing"):
        read_pack(tmp_path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", r"items.jsonl:2 is not JSON"),
        ([1], r"items.jsonl:2: expected an object, found list"),
        ({"id": "q2", "prompt": ""}, r"items.jsonl:2: 'prompt' is ''"),
        (
            {"id": "q2", "prompt": "a", "choices": ["x", "y"], "answer": 2},
            r"'answer' is 2, expected an index from 0 to 1",
        ),
        ({"id": "q2", "prompt": "a", "choices": ["x", "y"], "answer": True}, r"'answer' is True"),
        ({"id": "q2", "prompt": "a", "choices": ["x"], "answer": 0}, r"two or more choices, found 1"),
        ({"id": "q2", "prompt": "a", "choices": "xy", "answer": 0}, r"'choices' is 'xy'"),
        ({"id": "q1", "prompt": "a", "choices": ["x", "y"], "answer": 0}, r"the id 'q1' is used twice"),
        ({"id": "q2", "prompt": "a", "anwser": 0}, r"unknown keys 'anwser'"),
    ],
)
def test_a_bad_item_is_refused_with_its_line(tmp_path: Path, line: Any, problem: str) -> None:
    path = make(tmp_path / "p", CHOICE)
    rewrite(path, {"id": "q1", "prompt": "a", "choices": ["x", "y"], "answer": 0}, line)
    with pytest.raises(DataError, match=problem):
        read_pack(path)


def test_a_generate_item_needs_a_target(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'target' is None"):
        make(tmp_path / "p", CHOICE, kind="generate")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("chance: 0.5", "chance: 1.5"), "chance is 1.5, expected a number from 0 to 1"),
        (("kind: multiple_choice", "kind: quiz"), "kind is 'quiz', expected multiple_choice or generate"),
        (("metric: acc\n", ""), "lacks metric"),
        (("metric: acc", "metric: acc\nseed: 1"), "unknown keys 'seed'"),
        (("name: demo", "name: [demo"), "not valid YAML"),
    ],
)
def test_a_bad_head_is_refused(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    path = make(tmp_path / "p", CHOICE)
    head = path / "pack.yaml"
    head.write_text(head.read_text().replace(*change))
    with pytest.raises(DataError, match=problem):
        read_pack(path)
