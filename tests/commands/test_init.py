"""The recipe that init writes is one, whatever the folder is called and the keys of its rows are; it reads what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.commands.init import EPOCHS, init
from gristmill.errors import DataError, RecipeError
from gristmill.forecast import make_forecast
from gristmill.graph.machine import Machine
from gristmill.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("folder", "name"),
    [("my model.v2", "my-model-v2"), ("Texte (neu)", "texte-neu"), ("日本", "mymodel"), ("a[1]", "a-1")],
)
def test_any_folder_gets_a_recipe_that_can_be_planned(tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / folder / "data").mkdir(parents=True)
    (tmp_path / folder / "data" / "it's [one].txt").write_text("A few words. " * 20_000, encoding="utf-8")
    path = init(tmp_path / folder, data=None, console=Console(quiet=True))
    loaded = load_recipe(path)
    assert loaded.recipe.name == name
    made = make_forecast(loaded, Machine(runs_dir=tmp_path / "runs", threads=1))
    assert made.sources[next(iter(made.sources))].files == 1


def test_the_key_that_holds_the_text_is_found(tmp_path: Path) -> None:
    rows = [{"id": f"row {n}", "a body": "A few words. " * 200} for n in range(200)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    recipe = load_recipe(init(tmp_path / "new", data=tmp_path / "rows.jsonl", console=Console(quiet=True))).recipe
    assert recipe.sources["jsonl"].read.text_field == "a body"


def test_conversations_are_no_source(tmp_path: Path) -> None:
    row = json.dumps({"messages": [{"role": "user", "content": "A few words. " * 200}]})
    (tmp_path / "chats.jsonl").write_text("\n".join([row] * 200), encoding="utf-8")
    with pytest.raises(DataError, match="about 0 bytes"):
        init(tmp_path / "new", data=tmp_path / "chats.jsonl", console=Console(quiet=True))


@pytest.mark.parametrize("name", ["a.txt", "a.html", "a.jsonl"])
def test_epochs_are_those_that_plan_counts(tmp_path: Path, name: str) -> None:
    line = json.dumps({"text": "A few words. " * 400}) + "\n"
    (tmp_path / name).write_text(line * 1_000, encoding="utf-8")
    loaded = load_recipe(init(tmp_path / "new", data=tmp_path, console=Console(quiet=True)))
    made = make_forecast(loaded, Machine(runs_dir=tmp_path / "runs", threads=1))
    assert [row.epochs[-1] for row in made.budget] == [pytest.approx(EPOCHS, rel=0.1)]
    assert not made.warnings


def test_text_beside_source_code_is_not_counted_as_code(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.py").write_text("value = 1\n" * 10_000, encoding="utf-8")
    (tmp_path / "a.txt").write_text("A few words. " * 30_000, encoding="utf-8")
    loaded = load_recipe(init(tmp_path / "new", data=tmp_path, console=Console(quiet=True)))
    sources = make_forecast(loaded, Machine(runs_dir=tmp_path / "runs", threads=1)).sources
    assert {name: (found.files, found.text_bytes) for name, found in sources.items()} == {
        "text": (1, 390_000),
        "code": (1, 100_000),
    }


def test_a_file_in_the_place_of_the_folder_and_a_wrong_data_folder_are_said_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    with pytest.raises(RecipeError, match="is a file"):
        init(tmp_path / "taken", data=tmp_path, console=Console(quiet=True))
    with pytest.raises(RecipeError, match="nowhere does not exist"):
        init(tmp_path / "new", data=tmp_path / "nowhere", console=Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
