"""What a second run does: nothing when nothing changed, exactly what depends on a change otherwise, and asks before it costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.store.artifact import MANIFEST, RECORD
from gristmill.store.durable import read_json, write_json

SCRIPT = Path(sys.executable).with_name("gristmill")
OPTIONS = ("--threads", "1", "--processes", "2")
Command = Callable[..., Any]
pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it


def lines(printed: str, word: str) -> list[str]:
    """The steps that stand behind "running", "done" or "made"."""
    return re.findall(rf"^{word} +(\S+)", printed, re.MULTILINE)


def step_names(project: Path) -> list[str]:
    return [step.name for step in steps_of(load_recipe(project / "recipe.yaml").recipe)]


def after(project: Path, *changed: str) -> list[str]:
    """The steps that read, directly or not, what the changed ones make; the changed ones included; in the order of the plan."""
    found: set[str] = set(changed)
    steps = steps_of(load_recipe(project / "recipe.yaml").recipe)
    for step in steps:
        if found.intersection(step.inputs):
            found.add(step.name)
    return [step.name for step in steps if step.name in found]


def edit(project: Path, key: str, value: Any) -> None:
    """Changes one value in recipe.yaml itself."""
    path = project / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    *parents, last = key.split(".")
    place = recipe
    for part in parents:
        place = place[part]
    place[last] = value
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def status_of(gristmill: Command, *overrides: str) -> dict[str, Mapping[str, Any]]:
    answer = gristmill("status", "recipe.yaml", *overrides, "--json")
    assert answer.code == 0, answer.err
    return {row["step"]: row for row in json.loads(answer.out)}


# ── nothing changed ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_second_run_makes_nothing_and_says_so_of_each_step(done_project: Path, gristmill: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done_project / "runs").rglob(RECORD)}
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert answer.code == 0
    assert lines(answer.out, "running") == []
    assert lines(answer.out, "done") == step_names(done_project)
    assert len(re.findall(r"^done +\S+ +unchanged since 20\d\d-", answer.out, re.MULTILINE)) == len(before)
    assert {path: path.stat().st_mtime_ns for path in (done_project / "runs").rglob(RECORD)} == before


def test_another_machine_remakes_nothing(done_project: Path, gristmill: Command) -> None:
    answer = gristmill("run", "recipe.yaml", "--threads", "2", "--processes", "1", "--micro-batch-tokens", "512")
    assert (answer.code, lines(answer.out, "running")) == (0, [])


def test_project_that_moved_elsewhere_is_still_done(done_project: Path, gristmill: Command, monkeypatch: Any) -> None:
    moved = done_project.rename(done_project.with_name("elsewhere"))
    monkeypatch.chdir(moved.parent)
    answer = gristmill("run", moved / "recipe.yaml", "--runs-dir", moved / "runs", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, [])


def test_recipe_edited_without_a_change_of_meaning_remakes_nothing(done_project: Path, gristmill: Command) -> None:
    path = done_project / "recipe.yaml"
    text = path.read_text(encoding="utf-8").replace("peak_lr: 0.01", "peak_lr:    1.0e-2   # the same number")
    path.write_text(f"# a comment\n{text}", encoding="utf-8")
    assert {row["state"] for row in status_of(gristmill).values()} == {"done"}


# ── one number changed ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("override", "changed", "words"),
    [
        ("select.min_scores.manuals.above=1.25", "select", "select.min_scores.manuals.above: 1 → 1.25"),
        ("tokenizer.vocab_size=641", "tokenizer", "tokenizer.vocab_size: 640 → 641"),
        ("pretrain.optimizer.peak_lr=0.02", "pretrain", "pretrain.optimizer.peak_lr: 0.01 → 0.02"),
        ("pretrain.stages.decay.tokens=9216", "pretrain", "pretrain.stages[1].tokens: 8192 → 9216"),
        ("chat.num_definitions=9", "synthesize", "chat.num_definitions: 10 → 9"),
        ("dpo.beta=0.3", "dpo", "dpo.beta: 0.5 → 0.3"),
        ("evaluate.xz_yardstick=false", "evaluate", "evaluate.xz_yardstick: true → false"),
        ("sources.code.license=MIT", "extract/code", 'source.license: "PSF-2.0, MIT, BSD-3-Clause" → "MIT"'),
        ("classifiers.edu.num_folds=4", "classifier/edu", "classifier.num_folds: 5 → 4"),
    ],
)
def test_status_names_the_steps_that_a_change_remakes_and_why(
    done_project: Path, gristmill: Command, override: str, changed: str, words: str
) -> None:
    rows = status_of(gristmill, override)
    assert [name for name, row in rows.items() if row["state"] == "drifted"] == after(done_project, changed)
    assert rows[changed]["reasons"] == [words]
    inputs = {step.name: step.inputs for step in steps_of(load_recipe(done_project / "recipe.yaml").recipe)}
    for name in after(done_project, changed)[1:]:
        drifted = [other for other in inputs[name] if other in after(done_project, changed)]
        assert rows[name]["reasons"] == [f"{other} is remade" for other in drifted]


@pytest.mark.parametrize(
    ("changed", "untouched"),
    [("select", "extract/manuals"), ("select", "score/manuals"), ("pretrain", "tokenize"), ("dpo", "pairs")],
)
def test_costly_steps_do_not_depend_on_what_comes_after_them(
    finished_project: Path, changed: str, untouched: str
) -> None:
    assert untouched not in after(finished_project, changed)


def test_changed_beta_remakes_dpo_and_what_follows_and_keeps_what_was(
    done_project: Path, gristmill: Command, finished_run: Path
) -> None:
    edit(done_project, "dpo.beta", 0.3)
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert answer.code == 0, answer.err
    remade = after(done_project, "dpo")
    assert set(remade) == {"dpo", "evaluate", "export", "report"}
    assert lines(answer.out, "running") == lines(answer.out, "made") == remade
    assert re.search(r"^running +dpo +dpo.beta: 0.5 → 0.3$", answer.out, re.MULTILINE)
    run = done_project / "runs" / "tiny"
    assert read_json(run / "dpo" / RECORD)["counts"]["beta"] == 0.3
    for name in remade:
        assert read_json(run / ".old" / name / "1" / MANIFEST) == read_json(finished_run / name / MANIFEST)
    assert {row["state"] for row in status_of(gristmill).values()} == {"done"}


def test_status_after_a_part_was_remade_says_what_is_left(done_project: Path, gristmill: Command) -> None:
    edit(done_project, "dpo.beta", 0.3)
    answer = gristmill("run", "recipe.yaml", "--until", "dpo", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, ["dpo"])
    rows = status_of(gristmill)
    assert [name for name, row in rows.items() if row["state"] != "done"] == after(done_project, "dpo")[1:]
    assert rows["evaluate"]["reasons"] == ["dpo was remade"]


def test_changed_data_file_remakes_the_steps_that_read_it(done_project: Path, gristmill: Command) -> None:
    with (done_project / "data" / "novel.txt").open("a", encoding="utf-8") as file:
        file.write("\nIt is a truth.\n")
    rows = status_of(gristmill)
    assert rows["extract/novel"]["reasons"] == ["source: files changed"]
    assert [name for name, row in rows.items() if row["state"] == "drifted"] == after(done_project, "extract/novel")


def test_pack_that_changed_touches_all_that_it_is_held_out_of(done_project: Path, gristmill: Command) -> None:
    path = done_project / "data" / "packs" / "sums" / "pack.yaml"
    path.write_text(f"{path.read_text(encoding='utf-8')}description: other words\n", encoding="utf-8")
    rows = status_of(gristmill)
    for name in ("extract/code", "select", "synthesize", "pairs", "evaluate"):
        assert "pack sums: files changed" in rows[name]["reasons"], name
    assert rows["pretrain"]["reasons"] == ["tokenizer is remade", "tokenize is remade"]


# ── what costs is asked for ──────────────────────────────────────────────────────────────────────────────────────────


def make_costly(run: Path, name: str) -> None:
    record = read_json(run / name / RECORD)
    write_json(run / name / RECORD, {**record, "wall_seconds": 3600.0})


def test_costly_change_is_refused_with_the_command_that_agrees_to_it(
    done_project: Path, gristmill: Command, finished_run: Path
) -> None:
    run = done_project / "runs" / "tiny"
    make_costly(run, "pretrain")
    arguments = ("run", "recipe.yaml", "pretrain.optimizer.peak_lr=0.02", "--until", "pretrain", *OPTIONS)
    answer = gristmill(*arguments)
    assert answer.code == 2
    assert "1.00 hours of work in runs/tiny would be made again" in answer.err
    assert "pretrain: pretrain.optimizer.peak_lr: 0.01 → 0.02" in answer.err
    command = re.search(r"To do so: gristmill (.*) --remake all ", answer.err)
    assert command is not None, answer.err
    assert command[1].split() == list(arguments)
    assert lines(answer.out, "running") == []
    assert {row["state"] for row in status_of(gristmill).values()} == {"done"}, "refusing changed something"

    answer = gristmill(*arguments, "--remake", "all")
    assert answer.code == 0, answer.err
    assert lines(answer.out, "running") == ["pretrain"]
    assert read_json(run / ".old" / "pretrain" / "1" / MANIFEST) == read_json(finished_run / "pretrain" / MANIFEST)


def test_change_upstream_of_a_costly_step_counts_its_cost(done_project: Path, gristmill: Command) -> None:
    make_costly(done_project / "runs" / "tiny", "pretrain")
    answer = gristmill("run", "recipe.yaml", "select.min_scores.manuals.above=1.5", *OPTIONS)
    assert answer.code == 2
    assert "select: select.min_scores.manuals.above: 1 → 1.5" in answer.err
    assert "pretrain: tokenizer is remade; tokenize is remade" in answer.err
    answer = gristmill("run", "recipe.yaml", "select.min_scores.manuals.above=1.5", "--until", "select", *OPTIONS)
    assert answer.code == 0, "what is not asked for is not lost"


def test_unfinished_costly_work_is_refused_too_and_moved_aside_when_agreed(
    done_project: Path, gristmill: Command
) -> None:
    run = done_project / "runs" / "tiny"
    record = read_json(run / "dpo" / RECORD)
    (run / "dpo" / RECORD).unlink()
    (run / "dpo").rename(run / "dpo.partial")
    write_json(run / "dpo.partial.json", {"fingerprint": record["fingerprint"], "seconds": 3600.0})
    answer = gristmill("run", "recipe.yaml", "dpo.beta=0.3", "--until", "dpo", *OPTIONS)
    assert answer.code == 2
    assert "1.00 hours of work" in answer.err
    answer = gristmill("run", "recipe.yaml", "dpo.beta=0.3", "--until", "dpo", "--remake", "dpo", *OPTIONS)
    assert answer.code == 0, answer.err
    assert (run / ".old" / "dpo" / "1" / "metrics.jsonl").is_file()
    assert read_json(run / "dpo" / RECORD)["counts"]["beta"] == 0.3


# ── two at once ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_second_run_at_the_same_time_leaves_with_75_and_disturbs_nothing(project: Path, gristmill: Command) -> None:
    command = [SCRIPT, "run", "recipe.yaml", "--until", "extract/manuals", *OPTIONS]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("running  extract/manuals")
        answer = gristmill("run", "recipe.yaml", *OPTIONS)
        assert answer.code == 75
        assert "another run is at work in runs/tiny" in answer.err
        assert "wait for it, or stop it" in answer.err
        rest = first.stdout.read()
    assert first.returncode == 0
    assert lines(rest, "made") == ["extract/manuals"]
