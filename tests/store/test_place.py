"""The words on where a run is: they name another store only where it has this run, and never where this one has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.store.place import run_elsewhere, where_words
from gristmill.store.store import STORE, RunLinks, Store


def made(runs_dir: Path, name: str) -> None:
    (runs_dir / STORE).mkdir(parents=True)
    (runs_dir / name).mkdir()


@pytest.mark.parametrize("at", ["runs", "mine/runs", "mine/deep/runs"])
def test_a_run_one_folder_up_or_beside_the_recipe_is_named_with_the_option_that_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    here = tmp_path / "mine" / "deep" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    links, recipe_dir = RunLinks(Store(Path("runs")), "a"), tmp_path / "mine"
    made(tmp_path / at, "b")
    assert where_words(links, recipe_dir) == "runs/a is not there yet"
    (tmp_path / at / "a").mkdir()
    other = run_elsewhere(links, recipe_dir)
    assert other is not None
    assert other.resolve() == tmp_path / at
    assert where_words(links, recipe_dir) == f"runs/a is not there yet; {other}/a is: --runs-dir {other} uses it"
    assert RunLinks(Store(other), "a").folder.is_dir()
    made(here / "runs", "a")
    assert where_words(links, recipe_dir) == "runs/a"
