"""Nothing of the task packs is among what a run trains on: not by id, not by text, not as a sum in other words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gristmill.data.document import Document, read_documents
from gristmill.data.packs import Pack, held_out_ids, read_pack
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.artifact import is_committed

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

CHAT = (("synthesize", "sft.jsonl"), ("synthesize", "prompts.jsonl"), ("pairs", "pairs.jsonl"))


def packs_of(recipe: Recipe, folder: Path) -> list[Pack]:
    return [read_pack(folder / pack.path) for pack in recipe.packs.values() if pack.held_out]


def training_documents(run: Path) -> Iterator[Document]:
    for path in sorted((run / "select").glob("*/train-*.parquet")):
        yield from read_documents(path)


def chat_rows(run: Path) -> Iterator[dict[str, Any]]:
    for step, name in CHAT:
        path = run / step / name
        if path.is_file():
            yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def messages(row: dict[str, Any]) -> list[dict[str, str]]:
    """What is to be learnt in a row of conversations, prompts or pairs; not the answers that are rejected."""
    return [*row.get("messages", []), *row.get("prompt", []), *row.get("chosen", [])]


def sums(message: dict[str, str]) -> set[tuple[int, int]]:
    """The sums that a message asks or states. In a question any two numbers side by side: "add 3 and 4" is one too."""
    if message["role"] == "user":
        return set(pairwise(int(number) for number in re.findall(r"\d+", message["content"])))
    return {(int(a), int(b)) for a, b in re.findall(r"(\d+) (?:\+|plus) (\d+)", message["content"])}


def assert_nothing_is_shared(run: Path, packs: list[Pack]) -> None:
    held_out = held_out_ids(packs)
    answered = [f"{item.prompt}{item.gold}" for pack in packs for item in pack.items]
    held_sums = {tuple(map(int, name.removeprefix("sum/").split("+"))) for name in held_out if name.startswith("sum/")}
    num_documents = 0
    for document in training_documents(run):
        num_documents += 1
        assert document.id not in held_out
        assert not [text for text in answered if text in document.text], document.id
    assert num_documents
    rows = list(chat_rows(run))
    for row in rows:
        names = {str(row["id"]), str(row["id"]).split("#")[0].partition("definition/")[2], str(row.get("trained_item"))}
        assert not names & held_out
        assert str(row["id"]).split("#")[0] not in held_out
        for message in messages(row):
            assert not sums(message) & held_sums, row["id"]
            assert not [answer for answer in answered if answer in message["content"]], row["id"]
    assert any(row.get("kind") == "sum" for row in rows)


def test_the_tiny_run_trains_on_nothing_that_its_packs_hold_out(finished_project: Path, finished_run: Path) -> None:
    recipe = load_recipe(finished_project / "recipe.yaml").recipe
    packs = packs_of(recipe, finished_project)
    assert_nothing_is_shared(finished_run, packs)


def test_no_definition_of_a_held_out_entry_is_taught(finished_project: Path, finished_run: Path, tiny: Any) -> None:
    recipe = load_recipe(finished_project / "recipe.yaml").recipe
    held_out = held_out_ids(packs_of(recipe, finished_project))
    entries = tiny.rows(finished_project / "data" / "glosses.jsonl.gz")
    cut = [row for row in entries if row["id"] in held_out]
    assert len(cut) > 100, "the tiny sample holds entries that must leave"
    texts = [document.text for document in training_documents(finished_run)]
    said = [message["content"] for row in chat_rows(finished_run) for message in messages(row)]
    for row in cut:
        assert not [text for text in (*texts, *said) if row["text"] in text], row["id"]
    glosses = {row["gloss"].split(";")[0].lower() for row in cut if len(row["gloss"].split(";")[0].split()) >= 5}
    assert len(glosses) >= 50
    assert not glosses & {text.rstrip(".").lower() for text in said}


def test_the_check_sees_what_slips_through(finished_project: Path, finished_run: Path, tmp_path: Path) -> None:
    packs = packs_of(load_recipe(finished_project / "recipe.yaml").recipe, finished_project)
    item = next(item for pack in packs if pack.name == "sums" for item in pack.items)
    a, b = re.findall(r"\d+", item.prompt)
    (tmp_path / "select").symlink_to(finished_run / "select")
    (tmp_path / "synthesize").mkdir()
    row = {"id": "sum/x", "kind": "sum", "messages": [{"role": "user", "content": f"Can you add {b} and {a}?"}]}
    (tmp_path / "synthesize" / "sft.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        assert_nothing_is_shared(tmp_path, packs)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_runs_of_this_repository_train_on_nothing_that_their_packs_hold_out(path: Path) -> None:
    recipe = load_recipe(path).recipe
    run = REPOSITORY / "runs" / recipe.name
    if not is_committed(run / "synthesize"):
        pytest.skip("the recipe was not run here")
    assert_nothing_is_shared(run, packs_of(recipe, path.parent))
