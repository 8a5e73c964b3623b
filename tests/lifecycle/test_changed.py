"""What a second run does: nothing when nothing changed, exactly what depends on a change otherwise, and asks before it costs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from whole_runs import (
    HARMLESS,
    OPTIONS,
    SCRIPT,
    WEIGHTS,
    Command,
    change_record,
    edit,
    forget,
    lines,
    links_of,
    read_recipe,
    status_of,
    step_names,
    write_recipe,
)

from gristmill import runner
from gristmill.data.packs import Item, write_pack
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.store.artifact import MANIFEST, RECORD
from gristmill.store.durable import file_sha256, read_json, write_json

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it


def after(project: Path, *changed: str) -> list[str]:
    """The steps whose identity covers, directly or not, what the changed ones make; those included; in order."""
    found: set[str] = set(changed)
    steps = steps_of(load_recipe(project / "recipe.yaml").recipe)
    for step in steps:
        if found.intersection(step.identity_inputs):
            found.add(step.name)
    return [step.name for step in steps if step.name in found]


# ── nothing changed ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_second_run_makes_nothing_and_says_so_of_each_step(done_project: Path, gristmill: Command) -> None:
    records = [done_project / "runs" / "tiny" / name / RECORD for name in step_names(done_project)]
    before = {path: path.stat().st_mtime_ns for path in records}
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert answer.code == 0
    assert lines(answer.out, "running") == []
    assert lines(answer.out, "done") == step_names(done_project)
    assert len(re.findall(r"^done +\S+ +unchanged since 20\d\d-", answer.out, re.MULTILINE)) == len(before) == 26
    assert {path: path.stat().st_mtime_ns for path in records} == before


def planned(gristmill: Command, *overrides: str) -> dict[str, Any]:
    answer = gristmill("plan", "recipe.yaml", *overrides, *OPTIONS, "--json")
    assert answer.code == 0, answer.err
    found: dict[str, Any] = json.loads(answer.out)
    return found


def test_plan_of_an_unchanged_recipe_names_no_change_and_harmless_ones_are_none(
    done_project: Path, gristmill: Command
) -> None:
    assert planned(gristmill)["changes"] == []
    assert planned(gristmill, *HARMLESS.values())["changes"] == []
    assert "changed since" not in gristmill("plan", "recipe.yaml", *OPTIONS).out


def test_plan_tells_each_change_once_with_old_and_new_value_what_it_remakes_and_how_long_that_takes(
    done_project: Path, gristmill: Command
) -> None:
    """A rate, and a rule far above it: the steps below both are counted with each."""
    overrides = ("pretrain.optimizer.peak_lr=0.005", "select.near_duplicates.min_jaccard=0.8")
    found = planned(gristmill, *overrides)
    rule, rate = found["changes"]
    assert rule["line"].endswith("near_duplicates.min_jaccard: 0.7 → 0.8")
    assert rate["line"] == "pretrain.optimizer.peak_lr: 0.01 → 0.005"
    assert (rule["asked_of"], rate["asked_of"]) == (["duplicates", "select"], ["pretrain"])
    for change in (rule, rate):
        assert change["remade"] == after(done_project, *change["asked_of"])
        left = sum(found["steps_seconds"][step]["left_seconds"] for step in change["remade"])
        assert change["seconds"] == pytest.approx(left) != 0
    page = gristmill("plan", "recipe.yaml", *overrides, *OPTIONS).out
    assert "changed since the run that is there" in page
    assert "pretrain.optimizer.peak_lr: 0.01 → 0.005; remakes pretrain and 6 steps that follow (at most " in page


def test_plan_of_a_change_that_was_made_before_remakes_nothing(done_project: Path, gristmill: Command) -> None:
    changed = ("select.near_duplicates.min_jaccard=0.8",)
    assert gristmill("run", "recipe.yaml", *changed, "--until", "duplicates", *OPTIONS).code == 0
    [change] = planned(gristmill)["changes"]
    assert change["line"].endswith("min_jaccard: 0.8 → 0.7")
    assert change["remade"] == []


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


@pytest.mark.parametrize("field", HARMLESS)
def test_a_change_of_what_is_watched_saved_or_capped_remakes_nothing(
    done_project: Path, gristmill: Command, field: str
) -> None:
    recipe = load_recipe(done_project / "recipe.yaml").recipe
    assert load_recipe(done_project / "recipe.yaml", [HARMLESS[field]]).recipe != recipe, "the override changes nothing"
    assert {row["state"] for row in status_of(gristmill, HARMLESS[field]).values()} == {"done"}


def test_all_harmless_changes_together_make_nothing_and_touch_no_model(done_project: Path, gristmill: Command) -> None:
    answer = gristmill("run", "recipe.yaml", *HARMLESS.values(), *OPTIONS)
    assert (answer.code, lines(answer.out, "made")) == (0, []), answer.err
    links = links_of(done_project)
    for name in ("pretrain", "sft", "dpo"):
        sha256 = read_json(links.folder / name / MANIFEST)[WEIGHTS]["sha256"]
        assert file_sha256(links.folder / name / WEIGHTS) == sha256


def test_every_field_that_no_identity_knows_is_tried_here() -> None:
    source = (Path(__file__).parents[1] / "graph" / "test_identity.py").read_text(encoding="utf-8")
    outside = re.search(r"^OUTSIDE = \{(.*?)^\}", source, re.MULTILINE | re.DOTALL)
    assert outside is not None
    tried = {*", ".join(HARMLESS).split(", "), "Change.why"}  # of a change: test_edits.py
    assert set(re.findall(r'"(\w+\.\w+)"', outside[1])) == tried


def test_labels_remake_what_prints_them_and_no_more(done_project: Path, gristmill: Command, finished_run: Path) -> None:
    recipe = read_recipe(done_project)
    recipe["sources"]["code"]["license"] = "MIT"
    recipe["description"] = "Other words."
    recipe["pretrain"]["stages"][0]["name"] = "long"
    write_recipe(done_project, recipe)
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert answer.code == 0, answer.err
    assert lines(answer.out, "made") == ["export", "report"]
    run = done_project / "runs" / "tiny"
    assert "Other words." in (run / "export" / "model" / "README.md").read_text(encoding="utf-8")
    hashes = [read_json(folder / "export" / MANIFEST)[WEIGHTS]["sha256"] for folder in (run, finished_run)]
    assert hashes[0] == hashes[1]


# ── one number changed ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("override", "changed", "words"),
    [
        ("select.min_scores.manuals.above=1.25", "duplicates", "min_scores.manuals.above: 1 → 1.25"),
        ("tokenizer.vocab_size=641", "tokenizer", "tokenizer.vocab_size: 640 → 641"),
        ("pretrain.optimizer.peak_lr=0.02", "pretrain", "pretrain.optimizer.peak_lr: 0.01 → 0.02"),
        ("pretrain.stages.decay.tokens=9216", "pretrain", "pretrain.stages[1].tokens: 8192 → 9216"),
        ("chat.num_definitions=9", "synthesize", "chat.num_definitions: 10 → 9"),
        ("dpo.beta=0.3", "dpo", "dpo.beta: 0.5 → 0.3"),
        ("evaluate.xz_yardstick=false", "evaluate", "evaluate.xz_yardstick: true → false"),
        ("sources.manuals.language.min_score=0.7", "extract/manuals", "source.language.min_score: 0.65 → 0.7"),
        ("classifiers.edu.num_folds=4", "classifier/edu", "classifier.num_folds: 5 → 4"),
    ],
)
def test_status_names_the_step_that_a_change_remakes_and_why_and_those_that_wait_for_it(
    done_project: Path, gristmill: Command, override: str, changed: str, words: str
) -> None:
    rows = status_of(gristmill, override)
    waiting = after(done_project, changed)
    waiting.remove(changed)
    assert rows[changed]["state"] == "drifted"
    assert words in rows[changed]["reasons"]
    assert [name for name, row in rows.items() if row["state"] == "undecided"] == waiting
    assert {row["state"] for name, row in rows.items() if name not in (changed, *waiting)} <= {"done"}
    for name in waiting:
        (reason,) = rows[name]["reasons"]
        assert re.fullmatch(r"waits for .+", reason)
        assert set(rows[name]["waits_for"]) <= {changed, *waiting}


@pytest.mark.parametrize(
    ("changed", "untouched"),
    [
        ("select", "extract/manuals"),
        ("select", "score/manuals"),
        ("duplicates", "signatures/manuals"),
        ("duplicates", "contamination/manuals"),
        ("contamination/manuals", "score/manuals"),
        ("pretrain", "tokenize"),
        ("dpo", "pairs"),
    ],
)
def test_costly_steps_do_not_depend_on_what_comes_after_them(
    finished_project: Path, changed: str, untouched: str
) -> None:
    assert untouched not in after(finished_project, changed)


def test_changed_beta_remakes_dpo_and_what_follows_and_keeps_what_was_and_undone_links_it_again(
    done_project: Path, gristmill: Command, finished_run: Path
) -> None:
    edit(done_project, "dpo.beta", 0.3)
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert answer.code == 0, answer.err
    remade = after(done_project, "dpo")
    assert set(remade) == {"dpo", "evaluate", "export", "report"}
    assert lines(answer.out, "running") == lines(answer.out, "made") == remade
    assert re.search(r"^running +dpo +dpo.beta: 0.5 → 0.3$", answer.out, re.MULTILINE)
    links = links_of(done_project)
    assert read_json(links.folder / "dpo" / RECORD)["counts"]["beta"] == 0.3
    for name in remade:
        kept = links.store.folder(name, (finished_run / name).readlink().name)
        assert read_json(kept / MANIFEST) == read_json(finished_run / name / MANIFEST)
    assert {row["state"] for row in status_of(gristmill).values()} == {"done"}

    edit(done_project, "dpo.beta", 0.5)
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, [])
    for name in step_names(done_project):
        assert (links.folder / name).readlink() == (finished_run / name).readlink()


def test_status_after_a_part_was_remade_says_what_is_left(done_project: Path, gristmill: Command) -> None:
    edit(done_project, "dpo.beta", 0.3)
    answer = gristmill("run", "recipe.yaml", "--until", "dpo", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, ["dpo"])
    rows = status_of(gristmill)
    assert [name for name, row in rows.items() if row["state"] != "done"] == after(done_project, "dpo")[1:]
    assert (rows["evaluate"]["state"], rows["evaluate"]["reasons"]) == ("drifted", ["model dpo changed"])


def test_changed_data_file_remakes_the_steps_that_read_it(done_project: Path, gristmill: Command) -> None:
    with (done_project / "data" / "novel.txt").open("a", encoding="utf-8") as file:
        file.write("\nIt is a truth.\n")
    rows = status_of(gristmill)
    assert rows["extract/novel"]["reasons"] == ["source: novel.txt changed"]
    assert [name for name, row in rows.items() if row["state"] != "done"] == after(done_project, "extract/novel")


def test_pack_that_changed_touches_all_that_it_is_held_out_of(done_project: Path, gristmill: Command) -> None:
    path = done_project / "data" / "packs" / "sums" / "pack.yaml"
    path.write_text(f"{path.read_text(encoding='utf-8')}description: other words\n", encoding="utf-8")
    rows = status_of(gristmill)
    assert rows["contamination/code"]["reasons"] == ["pack sums: pack.yaml changed"]
    extracted = ("manuals", "glosses", "novel", "code")
    assert {rows[f"{step}/{source}"]["state"] for step in ("extract", "signatures") for source in extracted} == {"done"}
    steps = {step.name: step for step in steps_of(load_recipe(done_project / "recipe.yaml").recipe)}
    for name in ("synthesize", "pairs", "evaluate"):
        assert "pack sums" in steps[name].given.files, name
        assert rows[name]["state"] == "undecided"
    assert rows["pretrain"]["reasons"] == ["waits for contamination (4), classifier/edu"]
    assert rows["pretrain"]["waits_for"] == [*(f"contamination/{source}" for source in extracted), "classifier/edu"]


def test_an_input_that_is_remade_to_the_same_bytes_remakes_nothing_after_it(
    done_project: Path, gristmill: Command
) -> None:
    """The words of the pack's description reach no document: what reads packs runs again, and nothing that reads that."""
    path = done_project / "data" / "packs" / "sums" / "pack.yaml"
    path.write_text(f"{path.read_text(encoding='utf-8')}description: other words\n", encoding="utf-8")
    answer = gristmill("run", "recipe.yaml", "--until", "tokenize", *OPTIONS)
    assert answer.code == 0, answer.err
    steps = step_names(done_project)
    made = ["classifier/edu", *(name for name in steps if name.startswith("contamination/"))]
    assert lines(answer.out, "made") == made
    assert lines(answer.out, "done") == [name for name in steps[: steps.index("tokenize") + 1] if name not in made]


def test_one_more_pack_that_meets_nothing_extracts_and_signs_and_chooses_nothing_again(
    done_project: Path, gristmill: Command
) -> None:
    items = [Item(id="far", prompt="Which river of the moon is the longest of all that ever were?", target="none")]
    folder = done_project / "data" / "packs" / "far"
    write_pack(folder, name="far", version=1, kind="generate", metric="acc", chance=0.0, items=items)
    edit(done_project, "packs.far", {"path": "data/packs/far"})
    answer = gristmill("run", "recipe.yaml", "--until", "tokenize", *OPTIONS)
    assert answer.code == 0, answer.err
    searched = [name for name in step_names(done_project) if name.startswith("contamination/")]
    assert lines(answer.out, "made") == ["classifier/edu", *searched, "select"]
    report = read_json(done_project / "runs" / "tiny" / "select" / "decontamination.json")
    assert report["packs"]["far"]["found"] == 4


# ── what costs is asked for ──────────────────────────────────────────────────────────────────────────────────────────


def test_costly_change_is_refused_with_the_command_that_agrees_to_it(
    done_project: Path, gristmill: Command, finished_run: Path
) -> None:
    change_record(done_project, "pretrain", wall_seconds=3600.0)
    arguments = ("run", "recipe.yaml", "pretrain.optimizer.peak_lr=0.02", "--until", "pretrain", *OPTIONS)
    answer = gristmill(*arguments)
    assert answer.code == 2
    assert re.search(r"up to 60\.\d min of work in runs/tiny would be remade", answer.err)
    assert "pretrain: pretrain.optimizer.peak_lr: 0.01 → 0.02" in answer.err
    command = re.search(r"To do so: gristmill (.*) --remake all ", answer.err)
    assert command is not None, answer.err
    assert command[1].split() == list(arguments)
    assert lines(answer.out, "running") == []
    assert {row["state"] for row in status_of(gristmill).values()} == {"done"}, "refusing changed something"

    answer = gristmill(*arguments, "--remake", "all")
    assert answer.code == 0, answer.err
    assert lines(answer.out, "running") == ["pretrain"]
    kept = links_of(done_project).store.folder("pretrain", (finished_run / "pretrain").readlink().name)
    assert read_json(kept / MANIFEST) == read_json(finished_run / "pretrain" / MANIFEST)


def test_a_costly_step_downstream_is_asked_about_when_it_is_decided_and_not_before(
    done_project: Path, gristmill: Command
) -> None:
    change_record(done_project, "pretrain", wall_seconds=3600.0)
    override = "select.min_scores.manuals.above=2.0"
    answer = gristmill("run", "recipe.yaml", override, *OPTIONS)
    assert answer.code == 2
    made = lines(answer.out, "made")
    assert made[0] == "duplicates", "what takes a second is tried before anybody is asked"
    assert "pretrain" not in made
    assert re.search(r"^  pretrain: .*text|tokens of manuals changed", answer.err, re.MULTILINE), answer.err
    assert re.search(r"up to 60\.\d min of work", answer.err)


def test_a_change_that_does_not_reach_the_costly_step_is_not_asked_about(
    done_project: Path, gristmill: Command
) -> None:
    change_record(done_project, "pretrain", wall_seconds=3600.0)
    path = done_project / "data" / "packs" / "sums" / "pack.yaml"
    path.write_text(f"{path.read_text(encoding='utf-8')}description: other words\n", encoding="utf-8")
    answer = gristmill("run", "recipe.yaml", "--until", "pretrain", *OPTIONS)
    assert answer.code == 0, answer.err
    assert "pretrain" in lines(answer.out, "done")


def test_all_that_follows_counts_together_once_the_first_of_it_is_above_the_limit_of_a_trial(
    done_project: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "TRIED_SECONDS", 0.0)
    monkeypatch.setattr(runner, "CHEAP_SECONDS", 50.0)
    change_record(done_project, "sft", wall_seconds=30.0)
    change_record(done_project, "dpo", wall_seconds=30.0)
    answer = gristmill("run", "recipe.yaml", "sft.epochs=11", "--until", "dpo", *OPTIONS)
    assert answer.code == 2
    assert "sft: sft.epochs: 12 → 11" in answer.err
    assert re.search(r"and, as far as they change: pairs, dpo", answer.err), answer.err
    monkeypatch.setattr(runner, "CHEAP_SECONDS", 5000.0)
    answer = gristmill("run", "recipe.yaml", "sft.epochs=11", "--until", "sft", *OPTIONS)
    assert (answer.code, lines(answer.out, "made")) == (0, ["sft"])
    assert "of work would be remade" in answer.out, "what is below the limit is told"


def test_unfinished_costly_work_is_refused_too_and_kept_when_agreed(done_project: Path, gristmill: Command) -> None:
    links = links_of(done_project)
    identity = links.target("dpo")
    assert identity is not None
    forget(done_project, "dpo")
    links.mark_unfinished("dpo", identity)
    working = links.store.open_work("dpo", identity)
    (working / "metrics.jsonl").write_text("", encoding="utf-8")
    write_json(working.with_name(f"{working.name}.json"), {"fingerprint": identity, "seconds": 3600.0})
    answer = gristmill("run", "recipe.yaml", "dpo.beta=0.3", "--until", "dpo", *OPTIONS)
    assert answer.code == 2, answer.out
    assert re.search(r"up to 60\.\d min of work", answer.err)
    answer = gristmill("run", "recipe.yaml", "dpo.beta=0.3", "--until", "dpo", "--remake", "dpo", *OPTIONS)
    assert answer.code == 0, answer.err
    assert working.is_dir(), "it is there for who undoes the change"
    assert read_json(links.folder / "dpo" / RECORD)["counts"]["beta"] == 0.3


def test_of_a_changed_decay_only_the_steps_after_its_checkpoint_count(done_project: Path, gristmill: Command) -> None:
    """The tiny trunk of 28 steps decays from step 14 on, so half of its work is kept."""
    change_record(done_project, "pretrain", wall_seconds=7200.0)
    override = "pretrain.decay_shape=one_minus_sqrt"
    answer = gristmill("run", "recipe.yaml", override, "--until", "pretrain", *OPTIONS)
    assert answer.code == 2
    assert re.search(r"up to 60\.\d min of work", answer.err), answer.err
    assert "resumes from step 14 of 28; 14 steps to make" in answer.err
    assert status_of(gristmill, override)["pretrain"]["resumes_from"] == 14


def test_work_that_a_training_inherited_counts_as_its_own(done_project: Path, gristmill: Command) -> None:
    """Its own wall time covers only what came after the checkpoint that it resumed from."""
    record = read_json(done_project / "runs" / "tiny" / "pretrain" / RECORD)
    change_record(done_project, "pretrain", counts={**record["counts"], "training_seconds": 7200.0})
    answer = gristmill("run", "recipe.yaml", "pretrain.optimizer.beta1=0.8", "--until", "pretrain", *OPTIONS)
    assert answer.code == 2
    assert re.search(r"up to 2\.0 h of work", answer.err), answer.err


def test_steps_that_nobody_asked_for_do_not_count(done_project: Path, gristmill: Command) -> None:
    change_record(done_project, "tokenizer", wall_seconds=100.0)
    change_record(done_project, "pretrain", wall_seconds=7200.0)
    answer = gristmill("run", "recipe.yaml", "tokenizer.vocab_size=641", "--until", "tokenizer", *OPTIONS)
    assert (answer.code, lines(answer.out, "made")) == (0, ["tokenizer"])


def test_removed_files_of_costly_work_are_not_remade_without_asking(done_project: Path, gristmill: Command) -> None:
    change_record(done_project, "dpo", wall_seconds=7200.0)
    shutil.rmtree((done_project / "runs" / "tiny" / "dpo").resolve())
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert answer.code == 2
    assert re.search(r"up to 2\.0 h of work.*\n  dpo: its files were removed", answer.err), answer.err


# ── two at once ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_second_run_at_the_same_time_leaves_with_75_and_disturbs_nothing(project: Path, gristmill: Command) -> None:
    command = [SCRIPT, "run", "recipe.yaml", "--until", "extract/manuals", *OPTIONS]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert any(line.startswith("running  extract/manuals") for line in first.stdout)
        answer = gristmill("run", "recipe.yaml", *OPTIONS)
        assert answer.code == 75
        assert "another run, or a rank of an array" in answer.err
        assert "wait for it, or stop it" in answer.err
        rest = first.stdout.read()
    assert first.returncode == 0
    assert lines(rest, "made") == ["extract/manuals"]
