"""A step's record tells what it was made from, or there is no step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from gristmill.errors import ArtifactError, RecipeError
from gristmill.extract import extract
from gristmill.extract.outputs import Extracted
from gristmill.graph.machine import Machine
from gristmill.graph.state import steps_named
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.runner import run
from gristmill.store.artifact import is_committed

SMALL = Path(__file__).parent / "recipe" / "small.yaml"
STEP = "extract/books"


def write_recipe(folder: Path, **read: Any) -> None:
    """A recipe of three sources; read: another section `read` of the books."""
    recipe = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    for section in ("packs", "classifiers", "select", "chat", "sft", "pairs", "dpo", "evaluate"):
        recipe.pop(section)
    recipe["sources"]["web"].pop("rules")  # one of them is none of its pack
    recipe["pretrain"]["watch"]["packs"] = []
    recipe["sources"]["books"]["read"].update(read)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def test_files_that_change_while_a_step_reads_them_leave_no_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path)
    for name in ("web/a.html", "facts.jsonl", "books/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before", encoding="utf-8")
    arrives = [True, False]

    def read(ctx: Any) -> dict[str, Any]:
        (ctx.out / "text").write_text((tmp_path / "books" / "a.txt").read_text(encoding="utf-8"), encoding="utf-8")
        if arrives.pop(0):
            (tmp_path / "books" / "a.txt").write_text("another", encoding="utf-8")
        return {}

    monkeypatch.setattr(extract, "run", read)
    loaded, machine = load_recipe(tmp_path / "recipe.yaml"), Machine(runs_dir=tmp_path / "runs")
    with pytest.raises(ArtifactError, match=r"extract/books reads \(source\) changed while it ran"):
        run(loaded, machine, console=Console(quiet=True), until=STEP)
    assert not is_committed(tmp_path / "runs" / "small" / STEP)
    assert not list((tmp_path / "runs").rglob("text")), "what was made of other files is still there"
    run(loaded, machine, console=Console(quiet=True), until=STEP)
    assert (tmp_path / "runs" / "small" / STEP / "text").read_text(encoding="utf-8") == "another"


def test_runs_inside_the_folder_of_a_source_are_no_part_of_it(tmp_path: Path) -> None:
    write_recipe(tmp_path, paths=["."])
    (tmp_path / "a.txt").write_text("The miller walked down to the river.\n" * 50, encoding="utf-8")
    loaded, machine = load_recipe(tmp_path / "recipe.yaml"), Machine(runs_dir=tmp_path / "runs", processes=1)
    for _ in range(2):
        folder = run(loaded, machine, console=Console(quiet=True), until=STEP)
    assert Extracted(folder / STEP).ledger.source("books").came_in.documents == 1


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("extract", ["extract/books", "extract/facts-table", "extract/web"]),
        ("extract/web", ["extract/web"]),
        ("tokenize", ["tokenize"]),
    ],
)
def test_a_step_may_be_asked_for_by_its_kind_as_plan_shows_it(asked: str, found: list[str]) -> None:
    names = [step.name for step in steps_of(load_recipe(SMALL).recipe)]
    assert sorted(steps_named(names, asked, option="--until")) == found


def test_every_step_that_plan_and_status_show_can_be_asked_for() -> None:
    names = [step.name for step in steps_of(load_recipe(SMALL).recipe)]
    assert {found for name in names for found in steps_named(names, name.partition("/")[0], option="--until")} == set(
        names
    )
    with pytest.raises(RecipeError, match=r"'extrac/web' is not a step of this recipe; did you mean 'extract/web'\?"):
        steps_named(names, "extrac/web", option="--until")


def test_a_step_that_is_not_there_is_refused_in_a_few_words_before_anything_is_made(tmp_path: Path) -> None:
    write_recipe(tmp_path, paths=["."])
    loaded, machine = load_recipe(tmp_path / "recipe.yaml"), Machine(runs_dir=tmp_path / "runs", processes=1)
    for asked in ({"until": "foo"}, {"remake": ["foo"]}):
        with pytest.raises(
            RecipeError, match=r"expected a kind of step \(extract, .*or one step, such as extract/books"
        ) as told:
            run(loaded, machine, console=Console(quiet=True), **asked)  # type: ignore[arg-type]
        assert str(told.value).count("/") == 1, "one step of a source is enough"
    assert not machine.runs_dir.exists()
