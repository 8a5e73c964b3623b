"""The reference of the recipe is what the schema says, and the examples of the pages are read by what reads such files."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest

from gristmill.align.dpo import encode_pair_row
from gristmill.data.packs import read_pack
from gristmill.recipe.load import load_recipe
from gristmill.score.annotations import read_annotations
from gristmill.synthesize.rows import read_conversations
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "write_reference.py"))
ONE_SCREEN = 50  # lines


def blocks(page: str, kind: str, heading: str = "") -> list[str]:
    """The fenced blocks of a kind on a page, or below one heading of it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_reference_is_fresh() -> None:
    assert (DOCS / "recipe.md").read_text(encoding="utf-8") == SCRIPT["reference_text"](), (
        "run: python scripts/write_reference.py"
    )


def test_every_key_has_a_meaning() -> None:
    without = [
        f"{model.__name__}.{name}"
        for model in SCRIPT["sections"]().values()
        for name, field in model.model_fields.items()
        if name != "format" and not SCRIPT["meaning"](field)
    ]
    assert without == []


def test_the_conversations_of_the_page_are_read(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(*blocks("formats.md", "jsonl", "Conversations"), encoding="utf-8")
    assert [len(messages) for _, messages in read_conversations(path)] == [2, 3]


def test_the_annotations_of_the_page_are_read(tmp_path: Path) -> None:
    path = tmp_path / "edu.jsonl"
    path.write_text(*blocks("formats.md", "jsonl", "Annotations"), encoding="utf-8")
    assert [annotation.label for annotation in read_annotations(path)] == [4, 0]


def test_the_pack_of_the_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "pack.yaml").write_text(*blocks("formats.md", "yaml", "Task packs"), encoding="utf-8")
    (tmp_path / "items.jsonl").write_text(*blocks("formats.md", "jsonl", "Task packs"), encoding="utf-8")
    assert [item.gold for item in read_pack(tmp_path).items] == [" Paris", " Oslo"]


def test_the_preference_pair_of_the_page_is_read() -> None:
    (block,) = blocks("formats.md", "jsonl", "Preference pairs")
    tokenizer = Tokenizer(train_tokenizer([block] * 3, 300))
    name, chosen, rejected = encode_pair_row(tokenizer, json.loads(block))
    assert name == "sum/3+4#0>2"
    assert chosen.mask.any()
    assert rejected.mask.any()


@pytest.mark.parametrize("page", ["your-own-text.md", "your-own-chat.md", "your-own-benchmark.md"])
def test_the_recipes_of_the_pages_are_recipes_and_each_page_is_one_screen(page: str, tmp_path: Path) -> None:
    assert len((DOCS / page).read_text(encoding="utf-8").splitlines()) <= ONE_SCREEN
    shutil.copy(ROOT / "tests" / "recipe" / "small.yaml", tmp_path / "small.yaml")
    (block,) = blocks(page, "yaml")
    (tmp_path / "variant.yaml").write_text(f"extends: small.yaml\n{block}", encoding="utf-8")
    assert load_recipe(tmp_path / "variant.yaml")
