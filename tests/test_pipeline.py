"""Identity: every outside file and every decision counts; where files lie does not."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill import pipeline
from gristmill.errors import RecipeError
from gristmill.pipeline import make_plan, step_version
from gristmill.recipe.load import load_recipe

SMALL = yaml.safe_load((Path(__file__).parent / "recipe" / "small.yaml").read_text(encoding="utf-8"))
FILES = (
    "web/a.html", "books/b.txt", "facts.jsonl", "edu.jsonl", "edu-2.jsonl", "chat.jsonl",
    "packs/facts/pack.yaml", "packs/facts/items.jsonl",
)  # fmt: skip
NO_IDENTITY = ("unique_tokens", "schema_version")
NOT_ALONE = ("format", "mixture", "classifier", "kinds", "packs")  # go with other values, or can have no other
Key = tuple[str | int, ...]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with every file that the small recipe names; nothing reads them."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    return tmp_path


def fingerprints(folder: Path, recipe: dict[str, Any]) -> dict[str, str]:
    """Of every step of the recipe, whose paths are relative to `folder`."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    plan = make_plan(load_recipe(folder / "recipe.yaml"), folder / "runs" / recipe["name"])
    return {planned.step.name: planned.fingerprint for planned in plan}


def reading(*paths: str, format: str = "jsonl") -> dict[str, Any]:
    """The small recipe with these files in place of one source's."""
    source = {"read": {"format": format, "paths": list(paths)}, "license": "CC0"}
    return {**SMALL, "sources": {**SMALL["sources"], "facts-table": source}}


@pytest.mark.parametrize("name", FILES)
def test_every_outside_file_is_part_of_what_is_made_of_it(project: Path, name: str) -> None:
    before = fingerprints(project, SMALL)
    (project / name).write_text("changed", encoding="utf-8")
    after = fingerprints(project, SMALL)
    assert before["report"] != after["report"]


def test_files_of_one_name_in_folders_outside_the_recipe_count_each(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    crawl = tmp_path_factory.mktemp("crawl")
    for day in ("monday", "tuesday"):
        (crawl / day).mkdir()
        (crawl / day / "part-0.jsonl").write_text(day, encoding="utf-8")
    for paths in ([str(crawl)], [str(crawl / "*" / "*.jsonl")], [str(crawl / "monday"), str(crawl / "tuesday")]):
        before = fingerprints(project, reading(*paths))["extract/facts-table"]
        for day in ("monday", "tuesday"):
            (crawl / day / "part-0.jsonl").write_text(f"another {day}", encoding="utf-8")
            assert fingerprints(project, reading(*paths))["extract/facts-table"] != before
            (crawl / day / "part-0.jsonl").write_text(day, encoding="utf-8")
        assert fingerprints(project, reading(*paths))["extract/facts-table"] == before


def test_a_rise_of_a_step_s_version_is_a_change_of_it_and_of_what_follows(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprints(project, SMALL)
    raised = {"gristmill.select.select": 99}
    monkeypatch.setattr(pipeline, "step_version", lambda module: raised.get(module) or step_version(module))
    after = fingerprints(project, SMALL)
    same = {name for name in before if before[name] == after[name]}
    assert same == {"extract/web", "extract/books", "extract/facts-table", "classifier/edu", "score/web"}


def test_hidden_files_of_a_folder_are_no_part_of_it(project: Path) -> None:
    (project / "tree" / ".git").mkdir(parents=True)
    (project / "tree" / "a.py").write_text("pass", encoding="utf-8")
    before = fingerprints(project, reading("tree", format="code"))
    (project / "tree" / ".git" / "index").write_text("state of a tool", encoding="utf-8")
    assert fingerprints(project, reading("tree", format="code")) == before
    (project / "tree" / "b.py").write_text("pass", encoding="utf-8")
    assert fingerprints(project, reading("tree", format="code")) != before


def test_a_file_whose_name_looks_like_a_pattern_is_found(project: Path) -> None:
    (project / "facts[1].jsonl").write_text("one", encoding="utf-8")
    assert fingerprints(project, reading("facts[1].jsonl"))


def test_a_project_that_is_moved_is_the_same(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = tmp_path_factory.mktemp("moved") / "project"
    before = fingerprints(project, SMALL)
    shutil.copytree(project, moved)
    assert fingerprints(moved, SMALL) == before


def test_chat_without_conversations_has_no_files(project: Path) -> None:
    assert "synthesize" in fingerprints(project, {**SMALL, "chat": {"sums_up_to": 9}})


# ── every decision ───────────────────────────────────────────────────────────────────────────────────────────────────


def leaves(value: Any, key: Key = ()) -> Iterator[Key]:
    """The keys of all values that hold no others."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield key
    for name, child in children or ():
        yield from leaves(child, (*key, name))


def changed(recipe: dict[str, Any], key: Key) -> list[dict[str, Any]]:
    """Copies of the recipe with another value at `key`, some of which may be no recipe."""
    copies, old = [], _at(recipe, key)
    for value in (other for other in _others(old) if other != old):
        copy = json.loads(json.dumps(recipe))
        _at(copy, key[:-1])[key[-1]] = value
        copies.append(copy)
    return copies


def _at(value: Any, key: Key) -> Any:
    for part in key:
        value = value[part]
    return value


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2, value // 2]
    if isinstance(value, float):
        return [value / 2, value * 2]
    return [f"{value}x", "resiliparse", "fasttext", "one_minus_sqrt", "bfloat16", "books", "facts-table", "*.jsonl"]


def is_decision(key: Key) -> bool:
    """Whether a value alone may be changed, and changes what is made."""
    return key[-1] not in NO_IDENTITY and not set(key) & set(NOT_ALONE)


@pytest.mark.parametrize("key", [*filter(is_decision, leaves(SMALL))], ids=lambda key: ".".join(map(str, key)))
def test_every_decision_is_part_of_an_identity(project: Path, key: Key) -> None:
    before = fingerprints(project, SMALL)["report"]
    tried = 0
    for copy in changed(SMALL, key):
        with contextlib.suppress(RecipeError):  # not every value is one for this key
            assert fingerprints(project, copy)["report"] != before, f"{key} → {_at(copy, key)!r} changes nothing"
            tried += 1
    assert tried
