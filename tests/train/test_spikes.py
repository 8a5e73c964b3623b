"""What is done about a spike, in a real pretraining of 40 tiny steps. The rule is made strict enough to meet some: 1.2 standard deviations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run as tiny
import torch
from safetensors.torch import load_file

from gristmill.context import context_of
from gristmill.errors import Interrupted
from gristmill.graph.machine import Machine
from gristmill.graph.step import PassOver
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.jsonl import read_jsonl, read_log
from gristmill.tokens.shards import ShardWriter
from gristmill.train import pretrain, spikes, stability
from gristmill.train.events import EVENTS, MixtureEvent, PassedOverEvent, SpikeEvent, read_events
from gristmill.train.loss import LossOutput, next_token_loss
from gristmill.train.monitor import METRICS
from gristmill.train.spikes import TrainingSpiked

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
BATCH = 64
NUM_STEPS = 40
WEIGHTS = "model/model.safetensors"


def recipe(**changed: Any) -> Recipe:
    source = {"read": {"format": "text", "paths": ["x"]}, "license": "none"}
    stages = [
        {"name": "stable", "tokens": 24 * BATCH, "seq_len": 16, "mixture": {"web": 0.75, "code": 0.25}},
        {"name": "decay", "tokens": 16 * BATCH, "seq_len": 16, "mixture": {"web": 0.5, "code": 0.5}},
    ]
    section = {
        "stages": stages,
        "global_batch_tokens": BATCH,
        "warmup_tokens": BATCH,
        "decay_tokens": 16 * BATCH,
        "optimizer": {"peak_lr": 1e-2},
        "watch": {"every_tokens": 20 * BATCH, "validation_bytes": 100, "max_share": 1.0},
        "checkpoint_every_tokens": 6 * BATCH,
        **changed,
    }
    model = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1, "initializer_range": 0.1, "max_position_embeddings": 64}  # fmt: skip
    return Recipe.model_validate(
        {"schema_version": 1, "name": "tiny", "seed": 3, "sources": {"web": source, "code": source},
         "tokenizer": {"vocab_size": 300}, "model": model, "pretrain": section}
    )  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and the token shards of two sources."""
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.save(folder / "tokenizer")
    random = np.random.default_rng(0)
    for source in ("web", "code"):
        for split in ("train", "validation"):
            path = folder / "tokenize" / source / split
            with ShardWriter(path, tokenizer_sha256="0" * 64, vocab_size=276, eos_id=0) as writer:
                for _ in range(60):
                    text = " ".join(random.choice(WORDS, size=12))
                    writer.add(tokenizer.encode(text), num_bytes=len(text))
    return folder


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.2 deviations above eight steps: of the forty steps a handful are spikes."""
    monkeypatch.setattr(stability, "SIGMAS", 1.2)
    monkeypatch.setattr(stability, "MIN_STEPS", 8)


def run(inputs: Path, out: Path, *, stop_at_call: int | None = None, **changed: Any) -> Any:
    """The step; with `stop_at_call`, a signal arrives after so many steps."""
    calls = iter(range(1, 10**6))
    out.mkdir(exist_ok=True)
    context = context_of(
        recipe(**changed),
        "pretrain",
        folders={"tokenizer": inputs / "tokenizer", "tokenize": inputs / "tokenize"},
        recipe_dir=inputs,
        out=out,
        machine=Machine(processes=1, threads=1, device="cpu", micro_batch_tokens=BATCH),
        should_stop=lambda: next(calls) == stop_at_call,
    )
    return pretrain.run(context)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(out / WEIGHTS))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.runs") / "tiny"


def spikes_of(out: Path) -> list[SpikeEvent]:
    return [event for event in read_events(out / EVENTS) if isinstance(event, SpikeEvent)]


@pytest.fixture(scope="module")
def logged(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stability, "SIGMAS", 1.2)
        patched.setattr(stability, "MIN_STEPS", 8)
        out = tmp_path_factory.mktemp("logged") / "out"
        run(inputs, out)
    return out


# ── log ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spike_is_logged_with_what_it_is_judged_by_and_its_batch(logged: Path, inputs: Path) -> None:
    found = spikes_of(logged)
    assert len(found) >= 3
    for event in found:
        assert event.applied
        for name in event.exceeding:
            judged = event.quantities[name]
            assert judged.sigmas is not None
            assert judged.sigmas > 1.2
        assert {"loss", "grad_norm", "loss/web", "loss/code"} <= event.quantities.keys()
        assert event.tokens == event.step * BATCH
        assert event.text is not None
        head, *parts = read_jsonl(run_folder(logged) / event.text)
        assert SpikeEvent.from_json(head, where="here") == event
        assert {part["step"] for part in parts} == {event.step}
        assert sum(part["end"] - part["first"] + 1 for part in parts) == BATCH
        assert {part["document"] for part in parts} == {None}, "nothing says here what the documents are called"
        assert all(part["text"] for part in parts)


def test_the_rule_changes_no_weight_where_spikes_are_logged(
    logged: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "SIGMAS", 1e9)
    run(inputs, tmp_path / "out")
    assert spikes_of(tmp_path / "out") == []
    assert same(weights(tmp_path / "out"), weights(logged))


@pytest.mark.parametrize("policy", ["log", "skip"])
def test_stopped_at_every_third_step_and_resumed_decides_as_one_that_was_never_stopped(
    inputs: Path, tmp_path: Path, policy: str
) -> None:
    run(inputs, tmp_path / "unbroken", on_spike=policy)
    for _ in range(NUM_STEPS):
        try:
            run(inputs, tmp_path / "broken", on_spike=policy, stop_at_call=3)
            break
        except Interrupted:
            continue
    assert spikes_of(tmp_path / "unbroken")
    assert read_log(tmp_path / "broken" / EVENTS) == read_log(tmp_path / "unbroken" / EVENTS)
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))
    files = [sorted(path.name for path in (run_folder(tmp_path / name) / "spikes").iterdir()) for name in ("broken", "unbroken")]  # fmt: skip
    assert files[0] == files[1]


def test_a_change_of_mixture_is_told_once_and_empties_the_windows(logged: Path) -> None:
    (change,) = [event for event in read_events(logged / EVENTS) if isinstance(event, MixtureEvent)]
    assert change.since == 24
    assert change.sources.keys() == {"web", "code"}
    assert not [event for event in spikes_of(logged) if 24 < event.step <= 24 + 8]


# ── skip ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_update_of_a_skipped_step_is_left_out_and_every_other_one_is_made(inputs: Path, tmp_path: Path) -> None:
    """Weights and optimizer state after each step, from a training that is stopped after each."""
    states: dict[int, dict[str, torch.Tensor]] = {}
    out = tmp_path / "out"
    for _ in range(NUM_STEPS + 1):
        try:
            run(inputs, out, on_spike="skip", stop_at_call=1)
            break
        except Interrupted:
            newest = max((run_folder(out) / "checkpoints" / "pretrain").iterdir())
            states[int(newest.name)] = load_file(newest / "model.safetensors") | load_file(
                newest / "optimizer.safetensors"
            )
    skipped = {event.step for event in spikes_of(out)}
    assert skipped
    assert {step for step in states if step - 1 in states and same(states[step - 1], states[step])} == skipped
    assert not any(event.applied for event in spikes_of(out))
    lines = [line for line in read_log(out / METRICS) if line["kind"] == "train"]
    assert sum(line.get("train/skipped_steps", 0) for line in lines) == len(skipped) >= 3, "these never end it"


# ── rewind ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def asked_for(inputs: Path, out: Path, changes: list[dict[str, Any]]) -> PassOver | None:
    """The change that a training asks for; None when it ends without one."""
    try:
        run(inputs, out, on_spike="rewind", changes=changes)
    except PassOver as over:
        return over
    return None


def test_a_rewind_equals_a_training_that_passed_over_the_data_from_the_beginning(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spikes, "MAX_PASSED_OVER", 100)
    changes: list[dict[str, Any]] = []
    while (over := asked_for(inputs, tmp_path / "rewound", changes)) is not None:
        at = over.change["after_step"]
        assert over.noted["step"] == at
        assert SpikeEvent.from_json(over.noted["spike"], where="noted").step == at + 1
        assert str(over).startswith(f"Spike at step {at + 1}: ")
        changes.append(dict(over.change))
        saved = run_folder(tmp_path / "rewound") / "checkpoints" / "pretrain"
        assert int(max(saved.iterdir()).name) == at
    assert len(changes) >= 2
    run(inputs, tmp_path / "straight", changes=changes)
    assert same(weights(tmp_path / "rewound"), weights(tmp_path / "straight"))
    assert not spikes_of(tmp_path / "straight")
    events = [
        [{key: value for key, value in line.items() if key != "origin"} for line in read_log(tmp_path / name / EVENTS)]
        for name in ("rewound", "straight")
    ]
    assert events[0] == events[1]
    passed = [event for event in read_events(tmp_path / "straight" / EVENTS) if isinstance(event, PassedOverEvent)]
    skips: dict[int, int] = {}
    for change in changes:
        skips[change["after_step"]] = skips.get(change["after_step"], 0) + 1
    assert {event.step - 1: event.sequences for event in passed} == {at: 4 * count for at, count in skips.items()}


def test_where_much_was_passed_over_already_a_rewind_stops_instead(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spikes, "MAX_PASSED_OVER", 2)
    changes: list[dict[str, Any]] = []
    for _ in range(2):
        over = asked_for(inputs, tmp_path / "out", changes)
        assert over is not None
        changes.append(dict(over.change))
    with pytest.raises(
        TrainingSpiked, match=r"The data of 2 steps within the last 100 was passed over already, so it is"
    ):
        run(inputs, tmp_path / "out", on_spike="rewind", changes=changes)


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_says_what_to_do_and_the_state_before_the_step_is_there(
    inputs: Path, tmp_path: Path, logged: Path
) -> None:
    first = spikes_of(logged)[0].step
    words = (
        rf"(?s)^Spike at step {first}: .*The update was not applied.*{first:07d}-\d+\.jsonl\n"
        rf".*gristmill rewind RECIPE --to {first - 1} --skip 1 .*pretrain\.on_spike=log"
    )
    for _ in range(2):  # it stops there again
        with pytest.raises(TrainingSpiked, match=words) as raised:
            run(inputs, tmp_path / "out", on_spike="stop")
    assert raised.value.exit_code == 1
    assert spikes_of(tmp_path / "out") == []
    run(inputs, tmp_path / "out", on_spike="log")
    assert read_log(tmp_path / "out" / EVENTS) == read_log(logged / EVENTS)
    assert same(weights(tmp_path / "out"), weights(logged))


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_texts_are_bounded_in_number_and_size(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spikes, "MAX_TEXTS", 2)
    monkeypatch.setattr(spikes, "MAX_CHARACTERS", 30)
    run(inputs, tmp_path / "out")
    found = [event.text for event in spikes_of(tmp_path / "out")]
    assert all(found[:2])
    assert found[2:] == [None] * (len(found) - 2) != []
    assert len(list((run_folder(tmp_path / "out") / "spikes").iterdir())) == 2
    for text in found[:2]:
        assert text is not None
        parts = read_jsonl(run_folder(tmp_path / "out") / text)[1:]
        assert 0 < sum(len(part["text"]) for part in parts) <= 30


def poisoned_at(step: int) -> Callable[..., LossOutput]:
    """The loss, which is not finite in the step with this number."""
    calls = iter(range(1, 10**6))

    def loss(model: Any, batch: Any, source_names: Any, **options: Any) -> LossOutput:
        found = next_token_loss(model, batch, source_names, **options)
        factor = float("nan") if next(calls) == step else 1.0
        return LossOutput(loss_sum=found.loss_sum * factor, sums=found.sums)

    return loss


def test_a_step_that_is_not_finite_is_an_event_and_enters_no_window(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "next_token_loss", poisoned_at(12))
    monkeypatch.setattr(stability, "SIGMAS", 1e9)
    run(inputs, tmp_path / "out", on_spike="stop")
    line = read_log(tmp_path / "out" / EVENTS)[0]
    assert (line["kind"], line["step"], line["loss"]) == ("not_finite", 12, None)
    assert (run_folder(tmp_path / "out") / line["text"]).is_file()
    state = run_folder(tmp_path / "out") / "checkpoints" / "pretrain" / "0000024" / "state.json"
    windows = json.loads(state.read_text())["notes"]["stability"]["rule"]["windows"]
    assert len(windows["loss"]) == 23
