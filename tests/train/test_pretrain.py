"""The pretraining step on a tiny recipe: stages, extension, accounts, exact resuming through stage ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_run as tiny
import yaml

from gristmill.context import context_of
from gristmill.data.packs import Item, read_pack, write_pack
from gristmill.errors import DataError, Interrupted
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.model.generate import generate
from gristmill.model.weights import load_model
from gristmill.planning import speed
from gristmill.planning.cost import count_parameters, pretraining_flops
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import read_json
from gristmill.store.fingerprint import derive_seed
from gristmill.store.jsonl import read_log
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train import pretrain
from gristmill.train.course import course_of
from gristmill.train.loop import Progress, TrainingDiverged
from gristmill.train.monitor import METRICS, SAMPLES
from gristmill.train.prefix import prefixes
from gristmill.train.scorer import bits_per_byte, score_pack
from gristmill.train.threads import Speed
from gristmill.train.watch import watching

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]

OPTIMIZER = {"peak_lr": 1e-2}
PRETRAIN: dict[str, Any] = {
    "stages": [
        {"name": "stable", "tokens": 512, "seq_len": 16, "mixture": {"web": 0.75, "code": 0.25}},
        {"name": "decay", "tokens": 256, "seq_len": 16, "mixture": {"web": 0.5, "code": 0.5}},
        {
            "name": "extension",
            "tokens": 128,
            "seq_len": 32,
            "rope_theta": 50000.0,
            "mixture": [
                {"source": "web", "weight": 0.5},
                {"source": "web", "weight": 0.5, "min_document_tokens": 40},
            ],
        },
    ],
    "global_batch_tokens": 64,
    "warmup_tokens": 64,
    "decay_tokens": 384,
    "optimizer": OPTIMIZER,
    "watch": {
        "every_tokens": 256,
        "validation_bytes": 100,
        "packs": ["cloze"],
        "packs_every_tokens": 256,
        "max_items": 4,
        "max_share": 1.0,
    },
    "sample_prompts": ["", "one"],
    "checkpoint_every_tokens": 192,
    "max_epochs": 5.0,
}


def recipe(**changes: Any) -> Recipe:
    source = {"read": {"format": "text", "paths": ["x"]}, "license": "none"}
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "tiny",
            "seed": 3,
            "packs": {"cloze": {"path": "cloze"}, "bare": {"path": "bare"}},
            "sources": {"web": source, "code": source, "unused": source},
            "tokenizer": {"vocab_size": 300},
            "model": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "initializer_range": 0.1,
                "max_position_embeddings": 64,
            },
            "pretrain": {**PRETRAIN, **changes},
        }
    )


def with_model(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts of the steps before, and two packs."""
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.save(folder / "tokenizer")
    random = np.random.default_rng(0)
    for source, num_documents in (("web", 20), ("code", 12), ("unused", 0)):
        for split in ("train", "validation"):
            with ShardWriter(
                folder / "tokenize" / source / split, tokenizer_sha256="0" * 64, vocab_size=276, eos_id=0
            ) as writer:
                for number in range(num_documents if split == "train" else min(num_documents, 4)):
                    text = " ".join(random.choice(WORDS, size=5 + 3 * number))
                    writer.add(tokenizer.encode(text), num_bytes=len(text))
    items = [Item(id=f"i{n}", prompt="one", choices=(" two", " three"), answer=n % 2) for n in range(8)]
    write_pack(folder / "cloze", name="cloze", version=1, kind="multiple_choice", metric="acc", chance=0.5, items=items)
    bare = [Item(id="w", prompt="one")]
    write_pack(folder / "bare", name="bare", version=1, kind="unscored", metric="none", chance=0.0, items=bare)
    return folder


def context(
    inputs: Path,
    out: Path,
    recipe: Recipe,
    should_stop: Callable[[], bool] = lambda: False,
    micro_batch_tokens: int = 32,
    say: Callable[[str], None] = lambda line: None,
) -> StepContext:
    return context_of(
        recipe,
        "pretrain",
        folders={"tokenizer": inputs / "tokenizer", "tokenize": inputs / "tokenize"},
        recipe_dir=inputs,
        out=out,
        machine=Machine(processes=1, threads=1, device="cpu", micro_batch_tokens=micro_batch_tokens),
        say=say,
        should_stop=should_stop,
    )


@pytest.fixture(scope="module")
def unbroken(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("unbroken")
    return out, pretrain.run(context(inputs, out, recipe()))


def stop_at_call(number: int) -> Callable[[], bool]:
    calls = iter(range(1, 10**6))
    return lambda: next(calls) == number


def diary(out: Path) -> list[dict[str, Any]]:
    lines = read_log(out / METRICS) + read_log(out / SAMPLES)
    return [{key: value for key, value in line.items() if not key.startswith("throughput/")} for line in lines]


def pretend_to_train(
    monkeypatch: pytest.MonkeyPatch, *, seconds: float = 0.0, slow_seconds: float = 0.0
) -> list[dict[str, Any]]:
    """What the loop is asked, stage by stage; it trains nothing and takes so long altogether, and longer for the load."""
    asked: list[dict[str, Any]] = []

    def pretend(session: Any, method: Any, watch: Any, *, end_step: int, runtime: Any) -> None:
        config, optimizer = session.model.config, session.optimizer
        last = method.batch_at(Progress(step=end_step - 1))
        asked.append(
            {
                "optimizer": optimizer,
                "config": config,
                "method": method,
                "watch": watch,
                "end_step": end_step,
                "last": last,
            }
        )
        session.progress.step, session.progress.tokens, session.progress.seconds = (
            end_step,
            end_step * 64,
            seconds + slow_seconds,
        )
        session.threads.usual = Speed(tokens=end_step * 64, seconds=seconds)
        session.progress.hooks_pending = False

    monkeypatch.setattr(pretrain, "train", pretend)
    return asked


def test_stopped_at_every_second_step_and_resumed_equals_unbroken(
    inputs: Path, tmp_path: Path, unbroken: tuple[Path, dict[str, Any]]
) -> None:
    counts = None
    for _ in range(20):
        try:
            counts = pretrain.run(context(inputs, tmp_path, recipe(), should_stop=stop_at_call(2)))
            break
        except Interrupted:
            continue
    assert counts is not None
    out, expected = unbroken
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (out / "model" / name).read_bytes()
    assert diary(tmp_path) == diary(out)
    timings = ("training_seconds", "tokens_per_second", "stages", "final")
    assert {k: v for k, v in counts.items() if k not in timings} == {
        k: v for k, v in expected.items() if k not in timings
    }
    assert [stage["first_step"] for stage in counts["stages"]] == [0, 8, 12]
    assert sum(stage["seconds"] for stage in counts["stages"]) == pytest.approx(counts["training_seconds"])


def test_watching_sampling_and_saving_less_gives_the_same_weights(
    inputs: Path, tmp_path: Path, unbroken: tuple[Path, dict[str, Any]]
) -> None:
    watch = {"every_tokens": 10**9, "validation_bytes": 1}
    quiet = recipe(watch=watch, sample_prompts=[], checkpoint_every_tokens=10**9)
    pretrain.run(context(inputs, tmp_path, quiet))
    name = "model/model.safetensors"
    assert (tmp_path / name).read_bytes() == (unbroken[0] / name).read_bytes()


def test_counts_are_those_of_the_mixture(unbroken: tuple[Path, dict[str, Any]]) -> None:
    _, counts = unbroken
    assert counts["tokens"] == 896
    assert counts["steps"] == 14
    assert counts["tokens_by_source"] == {"web": 384 + 128 + 128, "code": 128 + 128}
    assert sum(draw["tokens_drawn"] for draw in counts["draws"]) == 896
    assert {(draw["source"], draw["min_document_tokens"]) for draw in counts["draws"]} == {
        ("web", None),
        ("web", 40),
        ("code", None),
    }
    seconds = [stage["seconds"] for stage in counts["stages"]]
    assert sum(seconds) == pytest.approx(counts["training_seconds"])


def test_skipped_sequences_are_in_no_count(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_train(monkeypatch)
    changes = [{"after_step": step, "set": {"skip_steps": 2}, "why": "the text there is bad"} for step in (2, 13)]
    counts = pretrain.run(context(inputs, tmp_path, recipe(changes=changes)))
    assert counts["tokens"] == sum(counts["tokens_by_source"].values()) == 896
    assert sum(draw["tokens_drawn"] for draw in counts["draws"]) == 896


def test_a_checkpoint_names_all_that_shaped_it(inputs: Path, unbroken: tuple[Path, dict[str, Any]]) -> None:
    ctx = context(inputs, unbroken[0], recipe())
    section = recipe().pretrain
    prefix_at = prefixes(
        course_of(section, rope_theta=10_000.0),
        recipe().model,
        section,
        vocabulary=ctx.inputs["vocabulary"].content,
        texts={source: ctx.inputs[f"tokens of {source}"].content for source in ("web", "code")},
        seed=ctx.seed,
        number_format="float32",
    )
    links = ctx.run.folder / "checkpoints" / "pretrain"
    found = {int(link.name): read_json(link / "state.json")["prefix"] for link in links.iterdir()}
    assert found == {step: prefix_at(step) for step in (8, 12, 14)}


def test_learning_rate_warms_up_stays_and_ends_at_zero_across_stages(unbroken: tuple[Path, dict[str, Any]]) -> None:
    lines = [line for line in read_log(unbroken[0] / METRICS) if line["kind"] == "train"]
    rates = [1e-2] * 8 + [1e-2 * left / 6 for left in range(5, -1, -1)]
    spans = [
        (0, 8),
        (0, 10),
        (10, 12),
        (10, 14),
    ]  # a line every ten steps however short the recipe, and at each stage end one of the steps since
    assert [line["step"] for line in lines] == [last for _, last in spans]
    assert [line["train/lr"] for line in lines] == pytest.approx(
        [np.mean(rates[first:last]) for first, last in spans], abs=1e-12
    )


def test_extension_sets_the_rope_base_and_nothing_before_it_does(unbroken: tuple[Path, dict[str, Any]]) -> None:
    out, _ = unbroken
    links = out.with_name(f"{out.name}.runs") / "tiny" / "checkpoints" / "pretrain"
    found = {int(link.name): load_model(link).config.rope_theta for link in links.iterdir()}
    assert {step: found[step] for step in (8, 12, 14)} == {8: 10_000.0, 12: 10_000.0, 14: 50_000.0}
    assert load_model(out / "model").config.rope_theta == 50_000.0


def test_every_source_with_validation_text_and_every_pack_is_watched(unbroken: tuple[Path, dict[str, Any]]) -> None:
    lines = [line for line in read_log(unbroken[0] / METRICS) if line["kind"] == "eval"]
    assert [line["step"] for line in lines] == [0, 4, 8, 12, 14]
    names = {f"eval/{name}" for name in ("web/bits_per_byte", "code/bits_per_byte", "cloze/accuracy")}
    for line in lines:
        assert names <= line.keys()
        assert "eval/unused/bits_per_byte" not in line
    assert lines[-1]["eval/web/bits_per_byte"] < lines[0]["eval/web/bits_per_byte"]


def test_held_out_text_is_measured_within_the_length_of_the_stage(
    inputs: Path, unbroken: tuple[Path, dict[str, Any]]
) -> None:
    folder = unbroken[0] / "model"
    last = [line for line in read_log(unbroken[0] / METRICS) if line["kind"] == "eval"][-1]
    shard = TokenShard(inputs / "tokenize" / "web" / "validation")
    window = recipe().pretrain.stages[-1].seq_len
    alone = bits_per_byte(
        load_model(folder), Tokenizer.load(folder), shard, max_bytes=100, window=window, cuts_last=True
    )
    assert last["eval/web/bits_per_byte"] == alone.value
    assert (last["eval/web/bits_per_byte_low"], last["eval/web/bits_per_byte_high"]) == (alone.low, alone.high)


def test_accuracy_is_that_of_as_many_items_as_the_recipe_says(
    inputs: Path, unbroken: tuple[Path, dict[str, Any]]
) -> None:
    folder = unbroken[0] / "model"
    last = [line for line in read_log(unbroken[0] / METRICS) if line["kind"] == "eval"][-1]
    score = score_pack(load_model(folder), Tokenizer.load(folder), read_pack(inputs / "cloze"), max_items=4)
    for key, found in (("accuracy", score.accuracy), ("accuracy_per_byte", score.accuracy_per_byte)):
        names = (f"eval/cloze/{key}", f"eval/cloze/{key}_low", f"eval/cloze/{key}_high")
        assert [last[name] for name in names] == [found.value, found.low, found.high]


def test_samples_are_written_whenever_packs_are_scored(unbroken: tuple[Path, dict[str, Any]]) -> None:
    samples = read_log(unbroken[0] / SAMPLES)
    assert [(sample["step"], sample["stage"], sample["prompt"]) for sample in samples] == [
        (4, "stable", ""),
        (4, "stable", "one"),
        (8, "stable", ""),
        (8, "stable", "one"),
        (12, "decay", ""),
        (12, "decay", "one"),
        (14, "extension", ""),
        (14, "extension", "one"),
    ]


def written_by(folder: Path, *, seed: int, max_new_tokens: int) -> list[str]:
    """How the model in that folder continues the two prompts."""
    model, tokenizer = load_model(folder), Tokenizer.load(folder)
    found = generate(
        model,
        [[tokenizer.eos_id], [tokenizer.eos_id, *tokenizer.encode("one")]],
        max_new_tokens=max_new_tokens,
        stop_ids=[tokenizer.eos_id],
        temperature=0.8,
        top_p=0.95,
        seeds=[derive_seed(seed, "sample", prompt) for prompt in ("", "one")],
    )
    return [tokenizer.decode([token for token in ids if token != tokenizer.eos_id]) for ids in found]


def test_samples_are_what_the_model_writes_after_each_prompt_within_its_context(
    inputs: Path, unbroken: tuple[Path, dict[str, Any]]
) -> None:
    tokenizer = Tokenizer.load(unbroken[0] / "model")
    room = 64 - 1 - len(tokenizer.encode("one"))
    seed = context(inputs, unbroken[0], recipe()).seed
    texts = [sample["text"] for sample in read_log(unbroken[0] / SAMPLES)[-2:]]
    assert texts == written_by(unbroken[0] / "model", seed=seed, max_new_tokens=room)
    assert texts[0] != texts[1]


def test_a_sample_ends_where_the_model_ends_the_text(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.load(inputs / "tokenizer")
    stop_ids: list[list[int]] = []

    def ending(model: Any, prompts: list[list[int]], **settings: Any) -> list[list[int]]:
        stop_ids.append(settings["stop_ids"])
        return [[*tokenizer.encode("two"), tokenizer.eos_id] for _ in prompts]

    monkeypatch.setattr(watching, "generate", ending)
    asked = pretend_to_train(monkeypatch)
    pretrain.run(context(inputs, tmp_path, recipe()))
    asked[-1]["watch"].hooks[-1].run(Progress(step=14))
    assert [sample["text"] for sample in read_log(tmp_path / SAMPLES)] == ["two", "two"]
    assert stop_ids == [[tokenizer.eos_id]]


def test_a_longer_context_of_the_model_is_no_other_training_and_leaves_samples_of_64_tokens(
    inputs: Path, tmp_path: Path, unbroken: tuple[Path, dict[str, Any]]
) -> None:
    with pytest.raises(Interrupted):
        pretrain.run(context(inputs, tmp_path, recipe(), should_stop=stop_at_call(9)))
    ctx = context(inputs, tmp_path, with_model(recipe(), max_position_embeddings=128))
    pretrain.run(ctx)
    assert load_model(tmp_path / "model").config.max_position_embeddings == 128
    name = "model/model.safetensors"
    assert (tmp_path / name).read_bytes() == (unbroken[0] / name).read_bytes()
    texts = [sample["text"] for sample in read_log(tmp_path / SAMPLES)[-2:]]
    assert texts == written_by(tmp_path / "model", seed=ctx.seed, max_new_tokens=64)


def test_a_prompt_that_leaves_no_room_for_a_sample_is_refused_before_training(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prompt 0 has"):
        pretrain.run(context(inputs, tmp_path, recipe(sample_prompts=["seven " * 64])))
    assert read_log(tmp_path / METRICS) == []


def test_steps_that_others_slowed_down_do_not_count_for_the_speed(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_to_train(monkeypatch, seconds=19.0, slow_seconds=1000.0)
    ctx = context(inputs, tmp_path / "out", recipe())
    pretrain.run(replace(ctx, machine=replace(ctx.machine, runs_dir=tmp_path)))
    assert speed.read_profile(tmp_path) is None


def test_machine_micro_batch_changes_rounding_alone(
    inputs: Path, tmp_path: Path, unbroken: tuple[Path, dict[str, Any]]
) -> None:
    pretrain.run(context(inputs, tmp_path, recipe(), micro_batch_tokens=8))
    for ours, theirs in zip(read_log(tmp_path / METRICS), read_log(unbroken[0] / METRICS), strict=True):
        if ours["kind"] == "train":
            assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-5)


def test_pack_without_answers_is_refused_before_training(inputs: Path, tmp_path: Path) -> None:
    watch = {**PRETRAIN["watch"], "packs": ["bare"]}
    with pytest.raises(DataError, match="the pack 'bare' has no answers"):
        pretrain.run(context(inputs, tmp_path, recipe(watch=watch)))


def test_what_the_recipe_says_of_optimizer_and_decay_reaches_the_loop(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend_to_train(monkeypatch)
    optimizer = {"peak_lr": 0.05, "beta1": 0.8, "beta2": 0.7, "eps": 1e-3, "weight_decay": 0.3, "max_grad_norm": 0.25}
    changed = recipe(optimizer=optimizer | {"decay_embeddings": False}, decay_shape="one_minus_sqrt")
    pretrain.run(context(inputs, tmp_path, changed))
    assert [settings["end_step"] for settings in asked] == [8, 12, 14]
    for settings, following in ((asked[0], 8 * 4), (asked[2], 12 * 4 + 2 * 2)):
        batch, next_sample = settings["last"]
        assert (batch.num_tokens, next_sample) == (64, following)
    for settings in asked:
        assert settings["method"].max_grad_norm == 0.25
        assert settings["method"].lr_at(Progress(step=9)) == pytest.approx(0.05 * (1 - math.sqrt(128 / 384)))
        assert [group["weight_decay"] for group in settings["optimizer"].param_groups] == [0.3, 0.0]
        for group in settings["optimizer"].param_groups:
            assert (group["betas"], group["eps"]) == ((0.8, 0.7), 1e-3)


def test_the_rope_base_of_the_model_holds_until_a_stage_sets_another(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend_to_train(monkeypatch)
    pretrain.run(context(inputs, tmp_path, with_model(recipe(), rope_theta=20_000.0)))
    assert [settings["config"].rope_theta for settings in asked] == [20_000.0, 20_000.0, 50_000.0]


@pytest.mark.parametrize(("tokens", "due"), [(192, [0, 3, 6, 8, 9, 12, 14]), (1, list(range(15)))])
def test_saving_and_measuring_are_due_every_so_many_tokens_and_at_stage_ends(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int, due: list[int]
) -> None:
    """And after every step where a step has more tokens than that."""
    asked = pretend_to_train(monkeypatch)
    often = recipe(
        checkpoint_every_tokens=tokens, watch={**PRETRAIN["watch"], "every_tokens": tokens, "packs_every_tokens": 10**9}
    )
    pretrain.run(context(inputs, tmp_path, often))
    for settings in asked:
        read_long_texts, measure = settings["watch"].hooks
        assert [step for step in range(15) if read_long_texts.at(step)] == [
            12,
            14,
        ]  # the last stage extends the context
        assert [step for step in range(15) if settings["watch"].save.at(step)] == due
        assert [step for step in range(15) if measure.at(step)] == due


@pytest.mark.parametrize(("micro_batch_tokens", "noted"), [(32, 32), (128, 64)])
def test_the_speed_of_a_long_enough_training_is_kept_for_plans(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batch_tokens: int, noted: int
) -> None:
    monkeypatch.setattr(speed, "measure_matmul", lambda: 1e9)
    pretend_to_train(monkeypatch, seconds=20.0)
    ctx = context(inputs, tmp_path / "out", recipe(), micro_batch_tokens=micro_batch_tokens)
    pretrain.run(replace(ctx, machine=replace(ctx.machine, runs_dir=tmp_path)))
    profile = speed.read_profile(tmp_path)
    assert profile is not None
    flops = pretraining_flops(recipe().model, 276, recipe().pretrain).with_attention
    assert profile.points == (
        speed.SpeedPoint(
            parameters=count_parameters(recipe().model, 276),
            seq_len=16,
            micro_batch_tokens=noted,
            tokens_per_second=896 / 20,
            flops_per_second=pytest.approx(flops / 20),
            measured_by="pretrain",
        ),
    )


def test_the_speed_of_a_shorter_training_tells_nothing(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_to_train(monkeypatch, seconds=19.9)
    ctx = context(inputs, tmp_path / "out", recipe())
    pretrain.run(replace(ctx, machine=replace(ctx.machine, runs_dir=tmp_path)))
    assert speed.read_profile(tmp_path) is None


def test_after_a_divergence_the_newest_checkpoint_and_half_of_its_rate_are_offered(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(session: Any, *_: Any, **__: Any) -> None:
        for session.progress.step in (4, 8):
            session.save(session.progress)
        raise TrainingDiverged("no number")

    monkeypatch.setattr(pretrain, "train", diverge)
    changes = [
        {"after_step": step, "set": {"optimizer.peak_lr": rate}, "why": "to see what a lower rate does"}
        for step, rate in ((4, 0.008), (8, 0.006), (9, 0.004))
    ]
    with pytest.raises(TrainingDiverged) as diverged:
        pretrain.run(context(inputs, tmp_path, recipe(changes=changes)))
    reason, _, advice = str(diverged.value).partition("\n")
    assert reason == "no number"
    entry = yaml.safe_load(advice.partition("\n")[2])
    assert entry == [{"after_step": 8, "set": {"optimizer.peak_lr": 0.003}, "why": "diverged at step 8"}]


# ── training that went wrong ─────────────────────────────────────────────────────────────────────────────────────────


def advised(*changes: dict[str, Any], checkpoint: int = 8, diverged: int = 10) -> tuple[str, list[dict[str, Any]]]:
    """(the sentence, the entries) of the advice after these changes."""
    section = recipe(changes=[{"why": "because the test says so", **change} for change in changes]).pretrain
    course = course_of(section, rope_theta=10_000.0)
    session: Any = SimpleNamespace(
        progress=Progress(step=diverged), checkpoints=SimpleNamespace(kept=lambda: [SimpleNamespace(step=checkpoint)])
    )
    sentence, _, printed = pretrain.advice(section, course, session).partition("\n")
    found = yaml.safe_load(printed)
    assert isinstance(found, list) == bool(changes), "changes: is printed only where the recipe has none"
    entries = found if changes else found["changes"]
    recipe(changes=[*section.model_dump()["changes"], *entries])  # it fits behind those that are there
    return sentence, entries


def peak(after_step: int, peak_lr: float) -> dict[str, Any]:
    return {"after_step": after_step, "set": {"optimizer.peak_lr": peak_lr}}


def test_the_first_change_that_a_divergence_asks_for_halves_the_peak() -> None:
    sentence, entries = advised()
    assert "Add this under pretrain" in sentence
    assert entries == [{**peak(8, 5e-3), "why": "diverged at step 10"}]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([peak(4, 4e-3)], peak(8, 2e-3)),  # lowered before
        ([peak(4, 4e-3), peak(8, 2e-2)], peak(8, 2e-3)),  # raised, then diverged
        ([peak(9, 2e-2)], peak(9, 5e-3)),  # the checkpoint is older than the change
        ([{"after_step": 8, "set": {"skip_steps": 1}}], peak(8, 5e-3)),
    ],
)
def test_a_further_change_is_appended_and_mistrusts_a_raise(
    changes: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    sentence, entries = advised(*changes)
    assert "Append this entry to pretrain.changes" in sentence
    assert "checkpoint at step 8" in sentence
    assert entries == [{**expected, "why": "diverged at step 10"}]


def with_rate(recipe: Recipe, peak_lr: float) -> Recipe:
    """A rate that no recipe may have."""
    optimizer = recipe.pretrain.optimizer.model_copy(update={"peak_lr": peak_lr})
    return recipe.model_copy(update={"pretrain": recipe.pretrain.model_copy(update={"optimizer": optimizer})})


def test_a_model_that_ends_worse_than_guessing_is_told_of(inputs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    ctx = context(inputs, tmp_path, with_rate(recipe(), 2.0), say=said.append)
    counts = pretrain.run(ctx)
    assert counts["final"]["train/loss"] > math.log(276)
    assert any(
        line.startswith("The last training loss is") and "lower pretrain.optimizer.peak_lr" in line for line in said
    )


def test_a_loss_below_that_of_guessing_is_not_remarked() -> None:
    assert pretrain.worse_than_guessing(math.log(276) - 0.01, 276) is None
    assert pretrain.worse_than_guessing(None, 276) is None
