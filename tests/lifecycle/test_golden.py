"""What each step leaves is what its golden rows say, or a version rose."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from whole_runs import step_names

from gristmill.graph.step import Step
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.store.durable import read_json, write_json

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "update_golden.py"))


@pytest.fixture
def steps(finished_run: Path) -> dict[str, Step]:
    return {step.name: step for step in steps_of(load_recipe(finished_run.parents[1] / "recipe.yaml").recipe)}


def test_every_step_leaves_what_its_golden_rows_say(finished_run: Path, steps: dict[str, Step]) -> None:
    problems = [SCRIPT["problem"](step, finished_run / name) for name, step in steps.items()]
    assert not any(problems), "\n".join(filter(None, problems))


def test_every_step_has_golden_rows_and_each_is_small(tiny_project: Path) -> None:
    files = {path for path in SCRIPT["GOLDEN"].glob("*.json") if path != SCRIPT["HISTORY"]}
    assert files == {SCRIPT["golden_file"](name) for name in step_names(tiny_project)}
    assert max(path.stat().st_size for path in files) < 12_000


def test_golden_rows_were_not_edited_without_a_reason() -> None:
    last = read_json(SCRIPT["HISTORY"])[-1]
    assert last["golden"] == SCRIPT["golden_fingerprint"]()
    assert len(last["why"]) > 20


def test_a_changed_output_is_told_by_its_place_and_asks_for_a_version_or_for_an_update(
    finished_run: Path, steps: dict[str, Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = steps["tokenize"]
    golden = read_json(SCRIPT["golden_file"](step.name))
    golden["rows"]["novel/train"]["tokens"] += 1
    monkeypatch.setitem(SCRIPT["problem"].__globals__, "GOLDEN", tmp_path)
    write_json(SCRIPT["golden_file"](step.name), golden)
    told = SCRIPT["problem"](step, finished_run / step.name)
    assert "tokenize: the output changed and no version rose" in told
    assert "novel/train.tokens: " in told
    assert "Raise VERSION in gristmill.tokens.tokenize" in told
    golden["versions"][step.module] -= 1
    write_json(SCRIPT["golden_file"](step.name), golden)
    told = SCRIPT["problem"](step, finished_run / step.name)
    assert "its golden rows are of the version before" in told
    assert "update_golden.py --why" in told


@pytest.mark.parametrize(
    ("was", "now", "differ"),
    [
        (1.0, 1.00009, False),
        (1.0, 1.0002, True),
        (1000.0, 1000.05, False),
        (3, 3.0, False),
        (3, 4, True),
        ("a", "b", True),
        ([1], [1, 2], True),
        ({"a": 1}, {}, True),
        ({}, {"a": 1}, True),
        (None, 0.0, True),
        (True, 1.0, True),
    ],
)
def test_floats_may_differ_a_little_and_nothing_else(was: object, now: object, differ: bool) -> None:
    assert bool(list(SCRIPT["differences"](was, now))) == differ
