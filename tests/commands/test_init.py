"""The recipe that init writes is one, whatever the folder is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from gristmill.commands.init import init
from gristmill.pipeline import make_plan
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
    assert make_plan(loaded, tmp_path / "runs")[0].identity["files"]["source"].keys() == {"data/it's [one].txt"}
