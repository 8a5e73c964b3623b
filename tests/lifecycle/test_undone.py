"""An edit that fails, is stopped or is undone: what was finished stays, is found again, and nothing says otherwise."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from whole_runs import (
    OPTIONS,
    Command,
    change_record,
    checkpoints_of,
    edit,
    lines,
    links_of,
    read_recipe,
    remove_folder,
    status_of,
    write_recipe,
)

from gristmill.errors import ResourceError
from gristmill.recipe.load import load_recipe
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.durable import read_json, write_json
from gristmill.store.removal import held_names, removable

pytestmark = pytest.mark.timeout(600)
PRETRAIN = "pretrain"


def plan_of(gristmill: Command, *arguments: object) -> list[str]:
    """The lines of `plan` on the next run."""
    answer = gristmill("plan", "recipe.yaml", *arguments)
    assert answer.code == 0, answer.err
    _, _, found = answer.out.partition("\nthe next run\n")
    return [line.strip() for line in found.partition("\n\n")[0].splitlines()]


def stop_in(monkeypatch: pytest.MonkeyPatch, module: str, error: Exception) -> None:
    def run(_ctx: Any) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module(module), "run", run)


# ── what was finished stays ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_edit_that_a_step_refuses_leaves_the_link_of_what_was_made(done_project: Path, gristmill: Command) -> None:
    links = links_of(done_project)
    before = links.target(PRETRAIN)
    answer = gristmill("run", "recipe.yaml", "pretrain.stages.stable.tokens=14336000", *OPTIONS)
    assert answer.code == 2, answer.out
    assert "would be read" in answer.err
    assert links.target(PRETRAIN) == before
    assert gristmill("chat", "runs/tiny", "--prompt", "hi", "--max-new-tokens", "2").code == 0


@pytest.mark.parametrize("error", [ResourceError("no space"), RuntimeError("a bug")])
def test_what_a_stopped_remake_replaces_is_held_until_the_remake_ends(
    done_project: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    links = links_of(done_project)
    before, kept = links.target(PRETRAIN), [ref.folder for ref in checkpoints_of(done_project)]
    with monkeypatch.context() as patched:
        stop_in(patched, "gristmill.train.pretrain", error)
        arguments = ("run", "recipe.yaml", "pretrain.optimizer.peak_lr=0.02", "--until", PRETRAIN, *OPTIONS)
        if isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError, match="a bug"):
                gristmill(*arguments)
        else:
            assert gristmill(*arguments).code != 0
    assert links.target(PRETRAIN) is None, "the folder shows the result of another recipe"
    assert links.before(PRETRAIN) == before
    assert removable(links.store) == []
    assert gristmill("clean", "--yes").code == 0
    assert all(folder.is_dir() for folder in kept)

    monkeypatch.setenv("COLUMNS", "120")
    status = gristmill("status", "recipe.yaml")
    assert "made earlier; run links it" in status.out
    assert "made earlier, and linked again by the next run: pretrain" in plan_of(gristmill)
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, [])
    assert links.target(PRETRAIN) == before
    assert [ref.folder for ref in checkpoints_of(done_project)] == kept
    assert not list(links.folder.glob("*.before"))


def test_what_a_finished_remake_replaced_is_no_longer_held(done_project: Path, gristmill: Command) -> None:
    links = links_of(done_project)
    before = links.target("sft")
    answer = gristmill("run", "recipe.yaml", "sft.epochs=1", "--until", "sft", *OPTIONS)
    assert answer.code == 0, answer.err
    assert links.target("sft") != before
    assert f"sft/{before}" not in held_names(links.store)
    assert ("sft", before) in {(item.step, item.identity) for item in removable(links.store)}


def test_a_longer_trunk_keeps_the_checkpoint_that_the_old_recipe_needs(done_project: Path, gristmill: Command) -> None:
    """The old trunk ends at step 14; of the longer one that is no milestone, and newer checkpoints push it out."""
    decay = ("pretrain.decay_shape=one_minus_sqrt", *OPTIONS[:2])
    assert "pretrain resumes from step 14 of 28; 14 steps to make" in plan_of(gristmill, *decay)
    edit(done_project, "pretrain.stages.0.tokens", 18_432)
    answer = gristmill("run", "recipe.yaml", "--until", PRETRAIN, *OPTIONS)
    assert answer.code == 0, answer.err
    assert "Resuming from step 14" in answer.out
    assert 14 not in [ref.step for ref in checkpoints_of(done_project)]
    edit(done_project, "pretrain.stages.0.tokens", 14_336)
    answer = gristmill("run", "recipe.yaml", "--until", PRETRAIN, *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, [])
    assert "pretrain resumes from step 14 of 28; 14 steps to make" in plan_of(gristmill, *decay)


def test_status_names_what_an_undone_edit_left_in_the_runs_folder(
    done_project: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    answer = gristmill("run", "recipe.yaml", "sources.manuals.license=MIT", *OPTIONS)
    assert (answer.code, lines(answer.out, "made")) == (0, ["export", "report"])
    assert plan_of(gristmill) == ["made earlier, and linked again by the next run: export, report"]
    rows = [line for line in gristmill("status", "recipe.yaml").out.splitlines() if "run links it" in line]
    assert [row.split()[0] for row in rows] == ["export", "report"]


# ── what `plan` says before ──────────────────────────────────────────────────────────────────────────────────────────


def test_plan_says_what_a_change_remakes_how_long_that_took_and_where_training_resumes(
    done_project: Path, gristmill: Command
) -> None:
    change_record(done_project, PRETRAIN, wall_seconds=80.0)
    for step in ("sft", "pairs", "dpo", "evaluate", "export", "report"):
        change_record(done_project, step, wall_seconds=0.0)
    found = plan_of(gristmill, "pretrain.decay_shape=one_minus_sqrt", *OPTIONS[:2])
    assert found[0] == 'pretrain: pretrain.decay_shape: "linear" → "one_minus_sqrt" (40 s)'
    assert found[-2] == "pretrain resumes from step 14 of 28; 14 steps to make"
    assert re.fullmatch(
        r"at most 4\d s of work would be remade; nothing is deleted; above 10\.0 min run asks first .*", found[-1]
    )


def test_plan_counts_begun_work_and_says_that_a_run_asks_first(done_project: Path, gristmill: Command) -> None:
    links = links_of(done_project)
    identity = links.target("dpo")
    assert identity is not None
    links.withdraw("dpo")
    links.mark_unfinished("dpo", "0" * 32)
    working = links.store.open_work("dpo", "0" * 32)
    write_json(working.with_name(f"{working.name}.json"), {"fingerprint": "0" * 32, "seconds": 36_000.0})
    found = plan_of(gristmill, "dpo.beta=0.3")
    assert "dpo: not made yet (10.0 h)" in found
    assert found[-1].endswith("; run asks first (--remake agrees)")
    assert gristmill("run", "recipe.yaml", "dpo.beta=0.3", *OPTIONS).code == 2


def test_plan_counts_the_work_that_begun_training_went_on_from(done_project: Path, gristmill: Command) -> None:
    links = links_of(done_project)
    links.withdraw("pretrain")
    links.mark_unfinished("pretrain", "0" * 32)
    working = links.store.open_work("pretrain", "0" * 32)
    write_json(working.with_name(f"{working.name}.json"), {"fingerprint": "0" * 32, "seconds": 3.0})
    newest = CheckpointIndex(links.store, "pretrain").own(links)[0].folder / "state.json"
    state = read_json(newest)
    state["progress"]["seconds"] = 36_000.0
    newest.chmod(0o644)
    write_json(newest, state)
    found = plan_of(gristmill, "pretrain.optimizer.peak_lr=2e-3")
    assert any(line.startswith("pretrain: ") and line.endswith("(10.0 h)") for line in found), found
    assert found[-1].endswith("; run asks first (--remake agrees)")


def test_plan_counts_removed_files_that_a_run_needs(done_project: Path, gristmill: Command) -> None:
    change_record(done_project, "extract/manuals", wall_seconds=80.0)
    remove_folder((done_project / "runs" / "tiny" / "extract" / "manuals").resolve())
    assert plan_of(gristmill) == []
    found = plan_of(gristmill, "sources.manuals.license=MIT")
    assert "extract/manuals: its files were removed (80 s)" in found
    remove_folder((done_project / "runs" / "tiny" / "dpo").resolve())
    assert any(line.startswith("dpo: its files were removed") for line in plan_of(gristmill))


def test_plan_says_that_another_peak_starts_from_the_beginning_and_what_does_not(
    done_project: Path, gristmill: Command
) -> None:
    [found] = [
        line for line in plan_of(gristmill, "pretrain.optimizer.peak_lr=0.02", *OPTIONS[:2]) if "from the" in line
    ]
    assert found.startswith("pretrain starts from the beginning; 28 steps to make; step 28 does not fit: ")
    assert "optimizer.peak_lr: 0.01 → 0.02" in found
    assert "pretrain.changes alters the rate from a later step on" in found


def test_plan_and_status_offer_what_another_run_made_with_other_threads(done_project: Path, gristmill: Command) -> None:
    recipe = read_recipe(done_project)
    recipe["name"] = "second"
    recipe["pretrain"]["decay_shape"] = "one_minus_sqrt"
    write_recipe(done_project, recipe)
    offer = "step 14 of another run fits, made with other threads: 1 → 3; run with those"
    assert any(offer in line for line in plan_of(gristmill, "--threads", "3"))
    assert offer in " ".join(gristmill("status", "recipe.yaml", "--threads", "3").out.split())
    assert status_of(gristmill, "--threads", "3")[PRETRAIN]["resumes_from"] == 0
    assert status_of(gristmill, "--threads", "1")[PRETRAIN]["resumes_from"] == 14
    assert "resumes from step 14 of 28" in " ".join(gristmill("status", "recipe.yaml", "--threads", "1").out.split())


def test_a_run_resumes_from_its_own_checkpoint_of_other_threads_after_the_edit_between_was_undone(
    done_project: Path, gristmill: Command
) -> None:
    """The edit let its links to the checkpoints go, but they carry its name."""
    answer = gristmill("run", "recipe.yaml", "pretrain.optimizer.peak_lr=0.02", "--until", PRETRAIN, *OPTIONS)
    assert answer.code == 0, answer.err
    override = "pretrain.decay_shape=one_minus_sqrt"
    assert status_of(gristmill, override, "--threads", "2")[PRETRAIN]["resumes_from"] == 14
    answer = gristmill("run", "recipe.yaml", override, "--until", PRETRAIN, "--threads", "2")
    assert answer.code == 0, answer.err
    assert "Resuming with different threads: 1 → 2" in answer.out
    assert "Resuming from step 14" in answer.out


# ── consent ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steps_that_were_agreed_to_do_not_count(done_project: Path, gristmill: Command) -> None:
    change_record(done_project, "duplicates", wall_seconds=100.0)
    change_record(done_project, PRETRAIN, wall_seconds=3000.0)
    override = "select.min_scores.manuals.above=1.25"
    answer = gristmill("run", "recipe.yaml", override, "--until", PRETRAIN, *OPTIONS)
    assert answer.code == 2
    assert "duplicates: min_scores.manuals.above" in answer.err
    answer = gristmill("run", "recipe.yaml", override, "--until", PRETRAIN, "--remake", PRETRAIN, *OPTIONS)
    assert (answer.code, lines(answer.out, "made")[0]) == (0, "duplicates")


def test_a_step_of_a_minute_is_tried_and_one_of_more_is_asked_about(done_project: Path, gristmill: Command) -> None:
    change_record(done_project, PRETRAIN, wall_seconds=3000.0)
    override = "select.min_scores.manuals.above=1.25"
    change_record(done_project, "duplicates", wall_seconds=61.0)
    answer = gristmill("run", "recipe.yaml", override, "--until", "select", "--until", PRETRAIN, *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (2, [])
    change_record(done_project, "duplicates", wall_seconds=59.0)
    answer = gristmill("run", "recipe.yaml", override, "--until", PRETRAIN, *OPTIONS)
    assert lines(answer.out, "made")[0] == "duplicates"


# ── what is read is what was made ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("damaged", "override", "reader"),
    [
        ("dpo/model/model.safetensors", "export.dtype=bfloat16", "export"),
        ("tokenizer/tokenizer.json", "pretrain.optimizer.peak_lr=0.02", PRETRAIN),
    ],
)
def test_a_flipped_byte_of_an_input_stops_the_step_that_reads_it(
    done_project: Path, gristmill: Command, damaged: str, override: str, reader: str
) -> None:
    path = done_project / "runs" / "tiny" / damaged
    flip(path)
    answer = gristmill("run", "recipe.yaml", override, "--until", reader, *OPTIONS)
    assert answer.code == 1, answer.out
    assert f"{path.name} does not have the SHA-256 of its manifest" in answer.err
    assert f"{reader} reads it" in answer.err


@pytest.mark.parametrize("name", ["train.bin", "train.blocks"])
def test_a_flipped_byte_of_tokens_stops_training_before_it_uses_them_and_its_remedy_works(
    done_project: Path, gristmill: Command, name: str
) -> None:
    folder = (done_project / "runs" / "tiny" / "tokenize").resolve()
    flip(folder / "manuals" / name)
    asked = ("run", "recipe.yaml", "pretrain.optimizer.peak_lr=0.02", "--until", PRETRAIN, *OPTIONS)
    answer = gristmill(*asked)
    assert answer.code == 1, answer.out
    assert f"{Path('manuals') / name} was damaged or exchanged" in answer.err
    assert f"remove {folder} and run the same command" in answer.err
    shutil.rmtree(folder)
    answer = gristmill(*asked)
    assert (answer.code, lines(answer.out, "made")) == (0, ["tokenize", PRETRAIN]), answer.err


def test_verify_names_each_file_that_is_not_what_was_written(done_project: Path, gristmill: Command) -> None:
    run = done_project / "runs" / "tiny"
    sound = gristmill("verify", "recipe.yaml")
    assert (sound.code, "every file is what was written" in sound.out) == (0, True), sound.out
    flip(run / "tokenize" / "manuals" / "train.bin")
    cut = min((run / "select").resolve().rglob("*.parquet"))
    cut.chmod(0o644)
    os.truncate(cut, 5)
    (run / "tokenizer" / "chat_template.jinja").unlink()
    answer = gristmill("verify", "runs/tiny")
    assert answer.code == 1
    found = " ".join(answer.out.split())
    size = (run / "tokenize" / "manuals" / "train.bin").stat().st_size
    for path, problem in (
        ("tokenize/manuals/train.bin", f"its content is not what was written: bytes 0 to {size:,}"),
        (f"select/{cut.relative_to((run / 'select').resolve())}", "it has 5 bytes, expected"),
        ("tokenizer/chat_template.jinja", "it is missing"),
    ):
        step, _, rest = path.partition("/")
        assert f"{(run / step).resolve() / rest}: {problem}" in found
        assert f"{step} is damaged" in found
        assert f"or remove {(run / step).resolve()} and run the recipe again: that remakes {step};" in found
    told = json.loads(gristmill("verify", "runs/tiny", "--json").out)
    assert [(wrong["of"], wrong["problem"].split()[:2]) for wrong in told["wrong"]] == [
        ("select", ["it", "has"]),
        ("tokenizer", ["it", "is"]),
        ("tokenize", ["its", "content"]),
    ]
    assert told["wrong"][2]["bytes"] == [[0, size]]


def flip(path: Path) -> None:
    """One bit in the middle."""
    path = path.resolve()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_inspect_shows_the_account_that_select_was_made_from(done_project: Path, gristmill: Command) -> None:
    shown = gristmill("inspect", "runs/tiny").out
    answer = gristmill(
        "run", "recipe.yaml", "sources.manuals.rules={packs: []}", "--until", "extract/manuals", *OPTIONS
    )
    assert (answer.code, lines(answer.out, "made")) == (0, ["extract/manuals"])
    assert gristmill("inspect", "runs/tiny").out == shown


def test_evaluation_asked_for_more_does_not_claim_that_its_inputs_changed(
    done_project: Path, gristmill: Command
) -> None:
    other = not load_recipe(done_project / "recipe.yaml").recipe.evaluate.xz_yardstick
    [reason] = status_of(gristmill, f"evaluate.xz_yardstick={str(other).lower()}")["evaluate"]["reasons"]
    assert reason.startswith("evaluate.xz_yardstick")
