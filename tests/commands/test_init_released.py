"""The recipe that init writes to continue a released model: it runs as it is, and what cannot be continued is told before any text is read."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gristmill.commands.init import init
from gristmill.draft.interval import Estimate
from gristmill.draft.released import Released, pretrain_text, released_shape
from gristmill.draft.size import MAX_EPOCHS, REPLAY_SHARE, Wish, budget_for
from gristmill.errors import RecipeError
from gristmill.forecast import check_caps, make_forecast
from gristmill.graph.machine import Machine
from gristmill.planning.estimate import bytes_per_token
from gristmill.planning.ranks import speedup_of_ranks
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.curation import Source
from gristmill.recipe.schema.training import ModelSection, Watch
from gristmill.runner import run
from gristmill.store.durable import read_json
from gristmill.train.watch.pace import FEWEST_BYTES, affordable_part
from prose import prose
from released import SHAPE, VOCAB_SIZE, save_released

QUIET = Console(quiet=True)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(runs_dir=tmp_path / "runs", threads=1, processes=1, device="cpu")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """own/ and general/ with text, and models/a[1]/, whose name is also a pattern."""
    save_released(tmp_path / "models" / "a[1]", context=70)
    for folder, words in (("own", 800), ("general", 300)):
        (tmp_path / folder).mkdir()
        for number in range(12):
            text = prose(words, seed=number + words)
            (tmp_path / folder / f"{number}.txt").write_text(text.upper() if words == 300 else text, encoding="utf-8")
    return tmp_path


def written(project: Path, machine: Machine, console: Console = QUIET, **options: Any) -> Path:
    given = {"data": project / "own", "released": project / "models" / "a[1]", **options}
    return init(project / "new", console=console, machine=machine, **given)


@pytest.mark.slow
def test_init_and_run_give_the_table_of_before_and_after(project: Path, machine: Machine) -> None:
    path = written(project, machine, replay=project / "general")
    loaded = load_recipe(path)
    (project / "models" / "a[1]" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    run(loaded, machine, console=QUIET)
    results = machine.runs_dir / "new" / "evaluate"
    models = {(row["model"], row["task"]) for row in read_json(results / "results.json")}
    assert models == {(model, task) for model in ("start", "pretrain") for task in ("text", "replay-text")}
    compared = {(row["a"], row["b"], row["task"]) for row in read_json(results / "comparisons.json")}
    assert compared == {("pretrain", "start", "text"), ("pretrain", "start", "replay-text")}
    card = (machine.runs_dir / "new" / "export" / "model" / "README.md").read_text(encoding="utf-8")
    assert (
        "Training continued from the released model a[1]. Its licence, as the model card in its folder states it, is mit."
        in card
    )
    # counted with the released tokenizer, to the token
    counted = {row.selection.source: row.unique_tokens for row in make_forecast(loaded, machine).budget}
    assert counted == {name: source.unique_tokens for name, source in loaded.recipe.sources.items()}


def test_model_and_tokenizer_are_those_of_the_folder_and_the_rate_is_that_of_continued_training(
    project: Path, machine: Machine
) -> None:
    loaded = load_recipe(written(project, machine, replay=project / "general"))
    made = make_forecast(loaded, machine)
    check_caps(made)
    assert [row.verdict for row in made.budget] == ["fine", "fine"]
    assert not made.missing
    recipe, pretrain = loaded.recipe, loaded.recipe.pretrain
    assert {key: getattr(recipe.model, key) for key in SHAPE} == SHAPE
    assert recipe.model.max_position_embeddings == 70
    assert recipe.tokenizer.vocab_size == VOCAB_SIZE
    assert pretrain.init_from == "../models/a[1]"
    assert {stage.seq_len for stage in pretrain.stages} == {64}
    assert pretrain.optimizer.peak_lr == 5e-5
    assert pretrain.warmup_tokens == pytest.approx(0.1 * pretrain.total_tokens, rel=0.1)
    assert pretrain.decay_tokens == pytest.approx(0.5 * pretrain.total_tokens, rel=0.1)
    assert [{draw.source: draw.weight for draw in stage.mixture} for stage in pretrain.stages] == [
        {"text": 0.75, "replay-text": 0.25}
    ] * 2


def test_without_general_text_what_is_forgotten_is_said_and_the_recipe_has_the_lines_to_add(
    project: Path, machine: Machine
) -> None:
    out = io.StringIO()
    path = written(project, machine, Console(file=out, width=300))
    assert "Some of what the released model knows will be forgotten. --replay FOLDER" in out.getvalue()
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("  # replay:"))
    added = yaml.safe_load("\n".join(line.replace("# ", "", 1) for line in lines[first : first + 3]))
    assert Source.model_validate(added["replay"]).read.format == "text"
    assert "{text: 0.75, replay: 0.25}" in lines[first - 1]


def test_a_time_that_is_asked_for_is_kept(project: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.commands.init_count._measure_speed", lambda *_: None)
    monkeypatch.setattr("gristmill.planning.speed.measure_matmul", lambda **_: 1e9)
    path = written(project, machine, replay=project / "general", minutes=3)
    made = make_forecast(load_recipe(path), machine)
    assert made.hours * 60 == pytest.approx(3, rel=0.05)
    assert made.recipe.pretrain.total_tokens < MAX_EPOCHS * sum(row.unique_tokens or 0 for row in made.budget)


def test_a_rate_by_which_a_released_model_forgets_is_cautioned_against(project: Path, machine: Machine) -> None:
    path = written(project, machine)

    def cautions(*overrides: str) -> list[str]:
        made = make_forecast(load_recipe(path, [*overrides]), machine)
        return [warning for warning in made.warnings if "init_from" in warning]

    assert cautions() == []
    assert cautions("pretrain.optimizer.peak_lr=5e-4") == []
    (without,) = cautions("pretrain.warmup_tokens=0")
    assert "without warm-up" in without
    (high,) = cautions("pretrain.optimizer.peak_lr=3e-3")
    assert "a peak rate of 0.003, 60 times the 5e-05 of published continued trainings" in high
    raised = '[{after_step: 3, set: {optimizer.peak_lr: 0.001}, why: "to see what happens"}]'
    (later,) = cautions(f"pretrain.changes={raised}")
    assert "20 times" in later


def test_training_by_ranks_is_planned_faster_and_the_other_steps_are_not(project: Path, machine: Machine) -> None:
    loaded = load_recipe(written(project, machine))
    one, two = (make_forecast(loaded, replace(machine, ranks=ranks)) for ranks in (1, 2))
    faster = speedup_of_ranks(replace(machine, ranks=2))
    assert faster > 1
    for alone, together in zip(one.steps, two.steps):
        share = faster if alone.step == "pretrain" else 1.0
        assert together.seconds == pytest.approx(alone.seconds / share)
    assert two.hours < one.hours
    assert any("hours of training are those of 2 ranks" in note for note in two.notes)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def edit_config(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(read_json(folder / "config.json") | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: folder.rename(folder.with_name("b")), r"a\[1\] does not exist.*hf download"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has no \*\.safetensors"),
        (lambda folder: edit_config(folder, model_type="qwen2"), "'qwen2'; only 'llama' is supported"),
        (lambda folder: edit_config(folder, head_dim=16), "the head size is 8, the released model has 16"),
        (lambda folder: edit_config(folder, vocab_size=512), "it is not this model's tokenizer"),
        (lambda folder: edit_config(folder, hidden_size=30), "hidden_size 30 is not a multiple of"),
    ],
)
def test_a_folder_that_cannot_be_continued_is_told_before_anything_is_read(
    project: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], said: str
) -> None:
    change(project / "models" / "a[1]")
    monkeypatch.setattr("gristmill.commands.init.look_into", lambda *_, **__: pytest.fail("text was read"))
    with pytest.raises(RecipeError, match=re.compile(f"--from: .*{said}", re.DOTALL)):
        written(project, machine)
    assert not (project / "new").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "10M"}, "--size and --from exclude each other"),
        ({"chat": True}, "--chat and --from exclude each other"),
        ({"released": None, "replay": Path("general")}, "name its folder with --from"),
        ({"released": Path("own/0.txt")}, "is a file. Name the folder"),
        ({"replay": Path("genral")}, r"does not exist. Did you mean 'general'\?"),
        ({"replay": Path("own/0.txt")}, "hold the same files"),
    ],
)
def test_options_that_exclude_each_other_and_folders_of_one_text_are_refused(
    project: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(RecipeError, match=said):
        written(project, machine, **options)
    assert not (project / "new").exists()


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

MODEL = ModelSection(**SHAPE, initializer_range=0.1, max_position_embeddings=8192)
RELEASED = Released(path="released", model=MODEL, vocab_size=VOCAB_SIZE)
SIZES = st.integers(20_000, 100_000_000)


@settings(max_examples=40, deadline=None)
@given(own=SIZES, general=st.lists(SIZES, max_size=3), most=st.sampled_from([None, 30_000, 3_000_000]))
def test_general_text_has_its_share_and_is_never_read_more_often_than_the_cap(
    own: int, general: list[int], most: int | None
) -> None:
    wish = Wish() if most is None else Wish(tokens_in_time=lambda _: most)
    sizes = {"own": own, **{f"general{number}": size for number, size in enumerate(general)}}
    tokens = {name: Estimate(value=size, low=size, high=size) for name, size in sizes.items()}
    shape = released_shape(RELEASED, own, wish)
    budget = budget_for(shape, tokens, wish, replayed={*sizes} - {"own"})
    raised = len(general) * shape.seq_len / budget.decay_tokens  # each source draws a sequence in each stage
    assert budget.replay_share <= REPLAY_SHARE + raised
    drawn = {name: weight * budget.total_tokens for name, weight in budget.weights.items()}
    for name, size in drawn.items():
        assert size <= 4.5 * sizes[name]
    if MAX_EPOCHS * sum(general) > budget.total_tokens:  # there is enough of it
        assert budget.replay_share == pytest.approx(REPLAY_SHARE, abs=1e-5 + raised)
    if most is None:
        assert drawn["own"] == pytest.approx(2.5 * own, rel=0.15)


def test_what_is_replayed_takes_from_each_source_of_ones_own_text_by_its_size() -> None:
    sizes = {"large": 3_000_000, "small": 1_000_000, "general": 4_000_000}
    tokens = {name: Estimate(value=size, low=size, high=size) for name, size in sizes.items()}
    budget = budget_for(released_shape(RELEASED, 4_000_000, Wish()), tokens, Wish(), replayed={"general"})
    assert budget.weights == pytest.approx({"large": 0.5625, "small": 0.1875, "general": 0.25}, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(own=st.integers(20_000, 10**9), sources=st.integers(1, 4))
def test_a_training_has_time_for_the_held_out_text_that_the_recipe_asks_for(own: int, sources: int) -> None:
    """By the rule of training itself: after the start and at the two stage ends it is scored whatever it takes."""
    tokens = {f"own{n}": Estimate(value=own, low=own, high=own) for n in range(sources)}
    budget = budget_for(released_shape(RELEASED, own * sources, Wish()), tokens, Wish())
    text = pretrain_text(RELEASED, budget, mixture="{}", sources=sources, asked="", prompts="[]")
    num_bytes = yaml.safe_load(text)["pretrain"]["watch"]["validation_bytes"]
    part = affordable_part(
        scored_tokens=3 * sources * num_bytes / bytes_per_token(VOCAB_SIZE),
        trained_tokens=budget.total_tokens,
        max_share=Watch.model_fields["max_share"].default,
    )
    assert part > 0.99 or num_bytes <= FEWEST_BYTES


@pytest.mark.parametrize(("tokens", "seq_len"), [(20_000, 512), (130_000, 1024), (10_000_000, 2048)])
def test_sequences_are_longer_where_there_is_more_text(tokens: int, seq_len: int) -> None:
    assert released_shape(RELEASED, tokens, Wish()).seq_len == seq_len
