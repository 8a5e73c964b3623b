"""`gristmill init --example` copies the quickstart so that it runs away from the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.data.outside import find_step_files
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]


def test_the_example_is_the_quickstart_with_its_data_and_its_licences(tmp_path: Path, gristmill: Any) -> None:
    answer = gristmill("init", tmp_path / "demo", "--example", "quickstart")
    assert answer.code == 0, answer.err
    mine = load_recipe(tmp_path / "demo" / "recipe.yaml", [])
    theirs = load_recipe(ROOT / "recipes" / "quickstart.yaml", [])
    found = [find_step_files(step.given, mine.folder, step.name) for step in steps_of(mine.recipe)]
    assert len(found) == len(steps_of(theirs.recipe))
    assert sum(map(len, found)) > 4
    assert (tmp_path / "demo" / "data" / "LICENSES.md").is_file()
    assert "../" not in (tmp_path / "demo" / "recipe.yaml").read_text(encoding="utf-8")
    again = gristmill("init", tmp_path / "demo", "--example", "quickstart")
    assert (again.code, "nothing was changed" in again.err) == (2, True)


def test_an_unknown_example_is_refused_with_those_that_are_there(tmp_path: Path, gristmill: Any) -> None:
    answer = gristmill("init", tmp_path / "demo", "--example", "quickstrat")
    assert answer.code == 2
    assert "known are quickstart" in answer.err
    assert not (tmp_path / "demo").exists()
