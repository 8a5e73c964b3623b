"""An edited recipe gives the model of a fresh run of it, however much of what was there is used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from safetensors.numpy import load_file
from whole_runs import (
    HARMLESS,
    OPTIONS,
    WEIGHTS,
    Command,
    checkpoints_of,
    edit,
    forget,
    lines,
    links_of,
    read_recipe,
    run_here,
    status_of,
    without_timings,
    write_recipe,
)

from gristmill.graph.outputs import content_files
from gristmill.recipe.interventions import FOLDER
from gristmill.recipe.schema.recipe import Recipe
from gristmill.select.outputs import Deduplicated
from gristmill.store.artifact import MANIFEST, RECORD
from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_log
from gristmill.train import pretrain
from gristmill.train.checkpoint import OPTIMIZER

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

MODELS = ("pretrain", "sft", "dpo")
BEFORE_DECAY = 14  # the step at which the tiny recipe's decay begins
PRETRAIN = ("run", "recipe.yaml", "--until", "pretrain", *OPTIONS)


def fresh(gristmill: Command, project: Path, *overrides: str) -> Path:
    """The run of a copy in which nothing of the training was ever made, with the recipe of now."""
    copy = project.with_name("fresh")
    shutil.copytree(project, copy, symlinks=True)
    forget(copy, "pretrain")
    for path in (copy / "runs" / ".store" / "checkpoints").iterdir():
        shutil.rmtree(path)
    run_here(gristmill, copy, *overrides, "--until", "pretrain")
    return copy / "runs" / "tiny"


def assert_same_training(one: Path, other: Path, *, besides: str = "throughput/") -> None:
    """Weights, last optimizer state and log lines; the log but for timings, origin, and what begins with `besides`."""
    assert (one / "pretrain" / WEIGHTS).read_bytes() == (other / "pretrain" / WEIGHTS).read_bytes()
    logs = [
        [
            {key: value for key, value in without_timings(line).items() if not key.startswith(besides)}
            for line in read_log(run / "pretrain" / "metrics.jsonl")
        ]
        for run in (one, other)
    ]
    assert logs[0] == logs[1]
    last = [max((run / "checkpoints" / "pretrain").iterdir(), key=lambda path: path.name) for run in (one, other)]
    assert last[0].name == last[1].name
    moments = [load_file(path / OPTIMIZER) for path in last]
    assert moments[0].keys() == moments[1].keys()
    for name, values in moments[0].items():
        assert values.tobytes() == moments[1][name].tobytes(), name


def test_watching_saving_and_caps_have_no_influence_on_the_weights(
    done_project: Path, finished_run: Path, gristmill: Command
) -> None:
    asked = [value for key, value in HARMLESS.items() if value.startswith("pretrain.") and key != "Watch.reference"]
    other = fresh(gristmill, done_project, *asked)  # which has no earlier run to refer to
    assert (other / "pretrain" / WEIGHTS).read_bytes() == (finished_run / "pretrain" / WEIGHTS).read_bytes()
    saved = [[path.name for path in sorted((run / "checkpoints" / "pretrain").iterdir())]
             for run in (other, finished_run)]  # fmt: skip
    assert saved[0] != saved[1], "the overrides changed nothing of what is saved"


def remade(project: Path, gristmill: Command, step: str, *overrides: str) -> Path:
    """The step's folder, made again with overrides from what is there before it."""
    forget(project, step)
    answer = gristmill("run", "recipe.yaml", *overrides, "--until", step, *OPTIONS)
    assert (answer.code, lines(answer.out, "made")) == (0, [step]), answer.err
    return project / "runs" / "tiny" / step


@pytest.mark.slow
def test_what_sft_is_asked_on_the_way_has_no_influence_on_its_weights(
    done_project: Path, finished_run: Path, gristmill: Command
) -> None:
    other = remade(done_project, gristmill, "sft", HARMLESS["Finetune.sample_prompts"])
    assert (other / WEIGHTS).read_bytes() == (finished_run / "sft" / WEIGHTS).read_bytes()
    asked = [
        {line["prompt"] for line in read_log(folder / "samples.jsonl")} for folder in (other, finished_run / "sft")
    ]
    assert asked[0] != asked[1], "the override changed nothing of what is asked"


def test_limits_of_a_source_have_no_influence_on_what_is_selected(
    done_project: Path, finished_run: Path, gristmill: Command
) -> None:
    limits = (HARMLESS["NearDuplicates.max_source_loss"], HARMLESS["Source.unique_tokens"])
    other = remade(done_project, gristmill, "duplicates", *limits)
    files = [
        {name: entry["sha256"] for name, entry in read_json(folder / MANIFEST).items()}
        for folder in (other, finished_run / "duplicates")
    ]
    assert content_files(Deduplicated, files[0]) == content_files(Deduplicated, files[1]) != {}
    assert files[0] != files[1], "the limit of now is in the notes"


# ── what lies ahead ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_decay_goes_on_from_before_it_and_undone_finds_the_old_model(
    done_project: Path, finished_run: Path, gristmill: Command
) -> None:
    old = links_of(done_project).target("pretrain")
    edit(done_project, "pretrain.decay_tokens", 8192)
    edit(done_project, "pretrain.decay_shape", "one_minus_sqrt")
    answer = gristmill(*PRETRAIN)
    assert answer.code == 0, answer.err
    assert f"Resuming from step {BEFORE_DECAY}, saved under an earlier form of the recipe." in answer.out
    run = done_project / "runs" / "tiny"
    log = read_log(run / "pretrain" / "metrics.jsonl")
    saved = [line["step"] < BEFORE_DECAY or (line["step"] == BEFORE_DECAY and line["kind"] == "train") for line in log]
    assert [line.get("origin") for line in log] == ["tiny" if before else None for before in saved]
    assert 0 < saved.count(True) < len(log), "only what follows was made anew"
    assert min(ref.step for ref in checkpoints_of(done_project)) == BEFORE_DECAY
    assert_same_training(run, fresh(gristmill, done_project))
    assert (run / "pretrain" / WEIGHTS).read_bytes() != (finished_run / "pretrain" / WEIGHTS).read_bytes()

    edit(done_project, "pretrain.decay_tokens", 14_336)
    edit(done_project, "pretrain.decay_shape", "linear")
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, [])
    assert links_of(done_project).target("pretrain") == old


def test_a_late_source_touches_no_token_of_the_others_and_goes_on_from_before_the_stage_that_draws_it(
    done_project: Path, finished_run: Path, gristmill: Command, tiny: Any
) -> None:
    write_recipe(done_project, late_source(read_recipe(done_project), random.Random(0), done_project, tiny))
    answer = gristmill(*PRETRAIN)
    assert answer.code == 0, answer.err
    new = ["extract/extra", "signatures/extra", "contamination/extra"]
    assert lines(answer.out, "made") == [*new, "duplicates", "select", "tokenize", "pretrain"]
    assert f"Resuming from step {BEFORE_DECAY}, saved under an earlier form of the recipe." in answer.out
    run = done_project / "runs" / "tiny"
    was, now = (read_json(folder / "tokenize" / MANIFEST) for folder in (finished_run, run))
    kept = {name: entry for name, entry in now.items() if not name.startswith("extra/")}
    assert was == kept, "a late source changed the tokens of another"
    assert (run / "tokenizer").readlink() == (finished_run / "tokenizer").readlink()
    assert read_json(run / "pretrain" / RECORD)["counts"]["tokens_by_source"]["extra"] > 0
    assert_same_training(run, fresh(gristmill, done_project), besides="eval/extra/")


# ── divergence ───────────────────────────────────────────────────────────────────────────────────────────────────────


def diverge_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Every batch after so many has a loss that is no number."""
    real, seen = pretrain.next_token_loss, [0]

    def loss(*arguments: Any, **named: Any) -> Any:
        seen[0] += 1
        found = real(*arguments, **named)
        return found if seen[0] <= batches else type(found)(loss_sum=found.loss_sum * float("nan"), sums=found.sums)

    monkeypatch.setattr(pretrain, "next_token_loss", loss)


def test_the_entry_that_a_divergence_prints_resumes_from_the_checkpoint_it_names(
    done_project: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(done_project, "pretrain")
    with monkeypatch.context() as broken:
        diverge_after(broken, 15)
        answer = gristmill(*PRETRAIN)
    assert answer.code == 1, answer.out
    assert "None of them was applied" in answer.err
    assert "resumes from the checkpoint at step 15" in answer.err
    entry = yaml.safe_load(answer.err.partition("    changes:\n")[2])
    assert entry == [{"after_step": 15, "set": {"optimizer.peak_lr": 0.005}, "why": "diverged at step 17"}]
    edit(done_project, "pretrain.changes", entry)
    answer = gristmill(*PRETRAIN)
    assert answer.code == 0, answer.err
    assert "Resuming from step 15" in answer.out


def test_a_divergence_before_the_first_checkpoint_says_that_there_is_none(
    done_project: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(done_project, "pretrain")
    diverge_after(monkeypatch, 0)
    answer = gristmill(*PRETRAIN)
    assert answer.code == 1
    assert "it starts from the beginning" in answer.err
    assert "changes:" not in answer.err


# ── interventions ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_intervention_takes_part_in_the_next_run_and_stands_in_the_recipe_as_it_became(
    done_project: Path, gristmill: Command
) -> None:
    folder = done_project / "runs" / "tiny" / FOLDER
    folder.mkdir()
    change = {"after_step": 22, "set": {"optimizer.peak_lr": 0.004}, "why": "to see what a lower rate does"}
    (folder / "001.yaml").write_text(yaml.safe_dump(change), encoding="utf-8")
    assert status_of(gristmill)["pretrain"]["state"] == "drifted"
    answer = gristmill(*PRETRAIN)
    assert answer.code == 0, answer.err
    assert "Resuming from step 22, saved under an earlier form of the recipe." in answer.out
    printed = gristmill("recipe", "runs/tiny")
    assert yaml.safe_load(printed.out)["pretrain"]["changes"] == [change]
    (folder / "001.yaml").unlink()
    edit(done_project, "pretrain.changes", [change])
    answer = gristmill(*PRETRAIN)
    assert lines(answer.out, "running") == [], "the same change in the recipe itself is the same training"
    edit(done_project, "pretrain.changes.0.why", "in other words, for the same reason")
    assert status_of(gristmill)["pretrain"]["state"] == "done"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("after_step: 99\nset: {optimizer.peak_lr: 0.001}\nwhy: far beyond the end\n", "after_step 99"),
        ("after_step: 20\nset: {optimizer.beta1: 0.8}\nwhy: another momentum\n", "optimizer.beta1"),
        ("after_step: 20\nwhy: nothing is set here\n", "field required"),
    ],
)
def test_a_broken_intervention_is_refused_naming_its_file(
    done_project: Path, gristmill: Command, text: str, words: str
) -> None:
    folder = done_project / "runs" / "tiny" / FOLDER
    folder.mkdir()
    (folder / "002.yaml").write_text(text, encoding="utf-8")
    for verb in ("run", "status"):
        answer = gristmill(verb, "recipe.yaml")
        assert answer.code == 2
        assert "interventions/002.yaml does not fit the recipe" in answer.err
        assert words in answer.err
        assert "Correct the file, or remove it" in answer.err


# ── edits at random ──────────────────────────────────────────────────────────────────────────────────────────────────


Values = dict[str, Any]
Edit = Callable[[Values, random.Random, Path, Any], Values]


def at(path: str, *choices: Any) -> Edit:
    """One of some values at a place."""

    def change(recipe: Values, draw: random.Random, _project: Path, _tiny: Any) -> Values:
        *parents, last = path.split(".")
        place: Any = recipe
        for part in parents:
            place = place[int(part) if part.isdecimal() else part]
        place[last] = draw.choice(choices)
        return recipe

    return change


def other_weights(recipe: Values, draw: random.Random, _project: Path, _tiny: Any) -> Values:
    share = draw.choice([0.05, 0.2, 0.3])
    recipe["pretrain"]["stages"][1]["mixture"] = {
        "manuals": 0.5, "glosses": 0.4 - share, "novel": share, "code": 0.1,
    }  # fmt: skip
    return recipe


def added_stage(recipe: Values, draw: random.Random, _project: Path, _tiny: Any) -> Values:
    stage = {"name": "added", "tokens": 1024 * draw.randint(2, 4), "seq_len": 64, "mixture": {"novel": 1.0}}
    recipe["pretrain"]["stages"].insert(draw.choice([1, 2, 3]), stage)
    return recipe


def dropped_stage(recipe: Values, draw: random.Random, _project: Path, _tiny: Any) -> Values:
    del recipe["pretrain"]["stages"][draw.choice([1, 2])]
    return recipe


def change_on_the_way(recipe: Values, draw: random.Random, _project: Path, _tiny: Any) -> Values:
    setting = draw.choice([{"optimizer.peak_lr": 0.006}, {"skip_steps": 2}])
    entry = {"after_step": draw.choice([14, 18]), "set": setting, "why": "to see what it does"}
    recipe["pretrain"]["changes"] = [entry]
    return recipe


def late_source(recipe: Values, _draw: random.Random, project: Path, tiny: Any) -> Values:
    (project / "data" / "extra.txt").write_text("".join(tiny.chapters(9)[6:]), encoding="utf-8")
    read = {"format": "text", "paths": ["data/extra.txt"], "split_at": r"^Chapter \d+$"}
    recipe["sources"]["extra"] = {"read": read, "license": "public domain", "late": True}
    recipe["pretrain"]["stages"][1]["mixture"] = {"manuals": 0.6, "glosses": 0.1, "novel": 0.1, "extra": 0.2}
    return recipe


def renamed_stage(recipe: Values, draw: random.Random, _project: Path, _tiny: Any) -> Values:
    recipe["pretrain"]["stages"][draw.choice([0, 1, 2])]["name"] = "another"
    return recipe


AHEAD: dict[str, Edit] = {  # edits of the pretraining alone, of what follows the first fourteen steps
    "decay length": at("pretrain.decay_tokens", 5120, 8192),
    "decay shape": at("pretrain.decay_shape", "one_minus_sqrt"),
    "longer trunk": at("pretrain.stages.0.tokens", 15_360, 17_408),
    "weights": other_weights,
    "added stage": added_stage,
    "dropped stage": dropped_stage,
    "change on the way": change_on_the_way,
    "stage renamed": renamed_stage,
    "saving": at("pretrain.checkpoint_every_tokens", 3072, 7168),
    "watching": at("pretrain.watch.every_tokens", 2048, 9216),
}
ANYWHERE: dict[str, Edit] = {
    **AHEAD,
    "peak rate": at("pretrain.optimizer.peak_lr", 0.008, 0.02),
    "first weights": at("pretrain.stages.0.mixture", {"manuals": 0.5, "glosses": 0.3, "code": 0.2}),
    "seed": at("seed", 4, 5),
    "vocabulary": at("tokenizer.vocab_size", 600, 700),
    "late source": late_source,
    "threshold": at("select.min_scores.manuals.above", 0.5, 1.25),
    "rule": at("sources.novel.rules.limits.too_few_tokens_with_letters", 0.6),
    "definitions": at("chat.num_definitions", 8),
    "fine-tuning": at("sft.epochs", 10, 11),
    "pairs": at("pairs.num_prompts", 15),
    "preference": at("dpo.beta", 0.3),
    "label": at("sources.code.license", "MIT"),
}


def edited(recipe: Values, kinds: dict[str, Edit], number: int, project: Path, tiny: Any) -> tuple[Values, list[str]]:
    """The recipe after one to three edits: the number says which comes first; drawn again until the schema takes them."""
    draw = random.Random(number)
    while True:
        first = list(kinds)[number % len(kinds)]
        chosen = [first, *draw.sample([kind for kind in kinds if kind != first], draw.randint(0, 2))]
        values: Values = yaml.safe_load(yaml.safe_dump(recipe, sort_keys=False))
        try:
            for kind in chosen:
                values = kinds[kind](values, draw, project, tiny)
            Recipe.model_validate(values)
        except (ValidationError, IndexError, KeyError):
            continue
        return values, chosen


@pytest.mark.parametrize("number", [0, 2, 5])
def test_an_edited_pretraining_gives_the_weights_of_a_fresh_one(
    done_project: Path, tiny: Any, gristmill: Command, number: int
) -> None:
    values, chosen = edited(read_recipe(done_project), AHEAD, number, done_project, tiny)
    write_recipe(done_project, values)
    printed = run_here(gristmill, done_project, "--until", "pretrain")
    run = done_project / "runs" / "tiny"
    if "dropped stage" not in chosen:  # otherwise the decay may begin earlier than any checkpoint
        assert "Resuming from step" in printed or "pretrain" in lines(printed, "done"), f"{chosen}: nothing was used"
    assert (run / "pretrain" / WEIGHTS).read_bytes() == (
        fresh(gristmill, done_project) / "pretrain" / WEIGHTS
    ).read_bytes(), chosen


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(len(ANYWHERE)))
def test_an_edited_recipe_gives_the_models_of_a_run_in_an_empty_folder(
    done_project: Path, tiny: Any, gristmill: Command, number: int
) -> None:
    values, chosen = edited(read_recipe(done_project), ANYWHERE, number, done_project, tiny)
    write_recipe(done_project, values)
    run_here(gristmill, done_project, "--until", "dpo")
    run_here(gristmill, done_project, "--until", "dpo", "--runs-dir", "empty")
    for name in MODELS:
        one, other = (done_project / runs / "tiny" / name / WEIGHTS for runs in ("runs", "empty"))
        assert one.read_bytes() == other.read_bytes(), f"{name} after {chosen}"
