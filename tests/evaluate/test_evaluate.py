"""The step on a tiny run: every figure has its n and interval, a killed run goes on, grey tasks decide nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gristmill.context import context_of
from gristmill.data.packs import Item, write_pack
from gristmill.errors import Interrupted
from gristmill.evaluate import evaluate
from gristmill.evaluate.compare import LEVEL, ItemScores, compare
from gristmill.evaluate.compression import PrimedXz
from gristmill.evaluate.outputs import Figure
from gristmill.graph.machine import Machine
from gristmill.graph.progress import Position
from gristmill.graph.step import StepContext
from gristmill.model.weights import save_model
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import read_json
from gristmill.tokens.shards import ShardWriter
from gristmill.tokens.tokenizer import Tokenizer
from models import random_llama

TRAINING = ["The cat sat on the mat.", "A mill grinds grain into flour.", "Rivers run to the sea."]
HELD_OUT = ["The dog lay by the door.", "", "Flour becomes bread, and bread is good.", "The sea is not full."]

MODELS = ("pretrain", "sft", "dpo")

RECIPE: dict[str, Any] = {
    "schema_version": 1,
    "name": "tiny",
    "seed": 1,
    "packs": {"words": {"path": "packs/words"}, "sums": {"path": "packs/sums"}},
    "sources": {
        "book": {"read": {"format": "text", "paths": ["book.txt"]}, "license": "public domain"},
        "silent": {"read": {"format": "text", "paths": ["silent.txt"]}, "license": "public domain"},
    },
    "tokenizer": {"vocab_size": 300},
    "model": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "max_position_embeddings": 128,
    },
    "pretrain": {
        "stages": [{"name": "only", "tokens": 64, "seq_len": 64, "mixture": {"book": 1.0}}],
        "global_batch_tokens": 64,
        "warmup_tokens": 0,
        "decay_tokens": 64,
        "optimizer": {"peak_lr": 1e-3},
        "watch": {"every_tokens": 64},
        "checkpoint_every_tokens": 64,
    },
    "chat": {"conversations": ["everyday.jsonl"]},
    "sft": {"epochs": 1, "batch_conversations": 1, "seq_len": 64, "optimizer": {"peak_lr": 1e-3}},
    "evaluate": {"packs": ["words", "sums"], "validation_bytes": 40},
}


@pytest.fixture
def ctx(tmp_path: Path, tokenizer: Tokenizer) -> StepContext:
    words = [f" {word}" for word in ("cat", "dog", "sea", "mill")]
    write_pack(
        tmp_path / "packs" / "words",
        name="words",
        version=1,
        kind="multiple_choice",
        metric="acc_norm",
        chance=0.25,
        items=[Item(id=f"w{n}", prompt=f"{n} the", choices=tuple(words), answer=n % 4) for n in range(8)],
    )
    write_pack(
        tmp_path / "packs" / "sums",
        name="sums",
        version=1,
        kind="generate",
        metric="number_match",
        chance=0.0,
        items=[Item(id="s", prompt="11 + 12 =", target="23", ids=("sum/11+12",))],
    )
    inputs = {name: tmp_path / "run" / name for name in ("tokenizer", "tokenize", "synthesize", "pretrain", "sft")}
    tokenizer.save(inputs["tokenizer"])
    for seed, name in enumerate(("pretrain", "sft")):
        save_model(inputs[name] / "model", random_llama(tokenizer, seed=seed, context=128), inputs["tokenizer"])
    for source, texts in (
        ("book", {"train": TRAINING, "validation": HELD_OUT}),
        ("silent", {"train": [], "validation": []}),
    ):
        for split, documents in texts.items():
            path = inputs["tokenize"] / source / split
            with ShardWriter(path, tokenizer_sha256="", vocab_size=tokenizer.vocab_size, eos_id=0) as writer:
                for text in documents:
                    writer.add(tokenizer.encode(text), num_bytes=len(text.encode()))
    rows = [
        {"id": id, "kind": kind, "trained_item": item, "messages": [
            {"role": "user", "content": question}, {"role": "assistant", "content": "Good day."}]}
        for id, kind, item, question in (
            ("everyday/g", "everyday", None, "Hello!"),
            ("everyday/n", "everyday", None, "Name?"),
            ("s", "sum", "sum/1+2", "1 + 2 = ?"),
            ("long", "everyday", None, "word " * 200),
        )
    ]  # fmt: skip
    (tmp_path / "everyday.jsonl").write_text('{"id": "g", "topic": "greeting"}\n{"id": "n", "topic": "name"}\n')
    inputs["synthesize"].mkdir()
    (inputs["synthesize"] / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return context(tmp_path)


def context(tmp_path: Path, stop: Callable[[], bool] = lambda: False) -> StepContext:
    """The step over what lies in tmp_path/run; it writes into tmp_path/out."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    return context_of(
        Recipe.model_validate(RECIPE),
        "evaluate",
        folders={path.name: path for path in (tmp_path / "run").iterdir()},
        recipe_dir=tmp_path,
        out=out,
        machine=Machine(threads=1, device="cpu"),
        should_stop=stop,
    )


def test_every_figure_names_model_task_items_interval_chance_and_pack(ctx: StepContext) -> None:
    counts = evaluate.run(ctx)
    results = read_json(ctx.out / "results.json")
    found = {(record["model"], record["task"], record["metric"]) for record in results}
    recalled = ("trained_greetings", "trained_everyday", "trained_single_digit_sums", "held_out_sums_asked")
    assert found == {
        *((model, task, metric) for model in ("pretrain", "sft") for task, metric in (
            ("words", "acc_norm"), ("sums", "number_match"), ("book", "bits_per_byte"))),
        *(("sft", task, metric) for task in recalled for metric in ("right", "stop_rate")),
        ("xz", "book", "bits_per_byte"),
    }  # fmt: skip
    assert counts["figures"] == len(results) == 15
    for record in results:
        assert record["n"] > 0
        assert record["kind"] == ("recall" if record["task"].startswith("trained_") else "held_out")
        if record["model"] == "xz":
            assert record["interval"] is None
        elif record["interval"] is None:  # of two documents, in which it would reach below 0
            assert (record["metric"], record["n"]) == ("bits_per_byte", 2)
            assert record["value"] < stats.t.ppf(0.975, record["degrees"]) * record["stderr"]
        if record["interval"]:
            assert record["interval"][0] <= record["value"] <= record["interval"][1]
        if record["task"] in ("words", "sums"):
            assert len(record["pack_sha256"]) == 64
            lines = (ctx.out / "items" / record["model"] / f"{record['task']}.jsonl").read_text().splitlines()
            assert len(lines) == record["n"]
    everyday = next(record for record in results if record["task"] == "trained_everyday")
    assert (everyday["n"], everyday["too_long"]) == (1, 1)


def test_xz_is_given_the_documents_that_the_models_are_scored_on(ctx: StepContext) -> None:
    evaluate.run(ctx)
    records = [record for record in read_json(ctx.out / "results.json") if record["metric"] == "bits_per_byte"]
    assert {record["num_bytes"] for record in records} == {len(HELD_OUT[0]) + len(HELD_OUT[2])}
    of_models = [record for record in records if record["model"] != "xz"]
    assert {record["window"] for record in of_models} == {RECIPE["pretrain"]["stages"][-1]["seq_len"]}
    xz = next(record for record in records if record["model"] == "xz")
    assert xz["value"] == PrimedXz(TRAINING).score([HELD_OUT[0], HELD_OUT[2]]).value
    assert xz["all_training_bytes"] == sum(map(len, TRAINING))


def test_killed_run_goes_on_with_the_next_model_and_ends_the_same(ctx: StepContext, tmp_path: Path) -> None:
    seen: list[Position] = []
    evaluate.run(replace(ctx, progress=seen.append))
    assert [(where.done, where.total) for where in seen] == [(done, len(seen)) for done in range(len(seen))]
    works = [where.work for where in seen if where.work is not None]
    assert len({total for _, total in works}) == 1
    assert all(one < next_one for (one, _), (next_one, _) in pairwise(works)), "each piece has its time"
    assert 0 == works[0][0] < works[-1][0] < works[-1][1]
    whole = read_json(ctx.out / "results.json")
    (ctx.out / "results.json").unlink()
    (ctx.out / "models" / "sft.json").unlink()
    with pytest.raises(Interrupted, match="finished are kept"):
        evaluate.run(context(tmp_path, stop=lambda: True))
    first = (ctx.out / "models" / "pretrain.json").stat().st_mtime_ns
    again: list[Position] = []
    evaluate.run(replace(context(tmp_path), progress=again.append))
    assert again == [where for where in seen if not where.part.startswith("pretrain")]
    assert (ctx.out / "models" / "pretrain.json").stat().st_mtime_ns == first
    assert read_json(ctx.out / "results.json") == whole


def of_pack(model: str, *, grey: bool) -> Figure:
    return evaluate.figure(
        model=model, task="t", metric="acc", value=0.5, stderr=0.1, interval=(0.3, 0.7), n=9, kind="held_out",
        chance=0.4 if grey else 0.2, prompting="plain",
    )  # fmt: skip


def scored(amounts: Sequence[float], sizes: Sequence[int] | None = None) -> ItemScores:
    return {"amounts": list(amounts), "sizes": None if sizes is None else list(sizes)}


@pytest.mark.parametrize(
    ("a", "b", "grey", "verdict"),
    [
        ([1.0] * 30, [0.0] * 29 + [1.0], False, "better"),
        ([0.0] * 29 + [1.0], [1.0] * 30, False, "worse"),
        ([1.0, 0.0] * 15, [0.0, 1.0] * 15, False, "no evidence either way"),
        ([1.0] * 30, [0.0] * 29 + [1.0], True, "at or below chance, no verdict"),
        ([1.0], [0.0], False, "no evidence either way"),
    ],
)
def test_later_model_is_held_against_the_earlier_one_item_by_item(
    a: list[float], b: list[float], grey: bool, verdict: str
) -> None:
    results = [of_pack("pretrain", grey=grey), of_pack("sft", grey=grey)]
    (found,) = compare({"pretrain": {"t": scored(b)}, "sft": {"t": scored(a)}}, results)
    assert (found.a, found.b, found.n, found.verdict) == ("sft", "pretrain", len(a), verdict)
    assert found.difference == pytest.approx(sum(a) / len(a) - sum(b) / len(b))
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("passages", [3, 12])
def test_the_same_difference_on_every_passage_proves_as_much_as_there_are_passages(passages: int) -> None:
    """All questions wrong before and right after: a sign test of the passages, not a p-value of zero."""
    clusters = [number // 4 for number in range(4 * passages)]
    scores: dict[str, dict[str, ItemScores]] = {
        name: {"t": {"amounts": [right] * len(clusters), "sizes": None, "clusters": clusters}}
        for name, right in (("pretrain", 0.0), ("sft", 1.0))
    }
    [found] = compare(scores, [of_pack("pretrain", grey=False), of_pack("sft", grey=False)])
    assert found.p_value == pytest.approx(stats.binomtest(0, passages).pvalue)


def test_fewer_bits_are_better() -> None:
    results = [replace(of_pack(model, grey=False), metric="bits_per_byte") for model in ("pretrain", "sft")]
    sizes = [10, 20, 30, 40] * 5
    scores = {"pretrain": {"t": scored([20, 42, 57, 88] * 5, sizes)}, "sft": {"t": scored([18, 40, 54, 80] * 5, sizes)}}
    assert compare(scores, results)[0].verdict == "better"


def of_two_equals(rng: np.random.Generator, models: Sequence[str], count: int) -> dict[str, ItemScores]:
    """Bits of models that are equally good in truth, on documents of log-normal size whose noise depends on the size."""
    sizes = np.round(rng.lognormal(7, 1.25, size=count)) + 1
    hardness = 2 + 0.3 * rng.normal(size=count)

    def bits() -> list[float]:
        own = 0.05 * rng.normal(size=count) + 0.1 * rng.normal(size=count) * np.sqrt(1000 / sizes)
        return (sizes * (hardness + own)).tolist()

    return {model: scored(bits(), sizes.astype(int).tolist()) for model in models}


@pytest.mark.parametrize("count", [7, 13, 15, 100])
def test_equals_are_told_apart_no_more_often_than_the_level_says(count: int) -> None:
    draws, rng = 2500, np.random.default_rng(count)
    results = [replace(of_pack(model, grey=False), metric="bits_per_byte") for model in ("pretrain", "sft")]
    verdicts = []
    for _ in range(draws):
        scores = {model: {"t": found} for model, found in of_two_equals(rng, ("pretrain", "sft"), count).items()}
        verdicts += [row.verdict for row in compare(scores, results)]
    false = sum(verdict in ("better", "worse") for verdict in verdicts)
    assert false / draws < LEVEL + 4 * math.sqrt(LEVEL * (1 - LEVEL) / draws)
    assert false / draws > 0.01  # it can still tell two models apart


def test_many_comparisons_of_equals_hold_a_false_verdict_no_more_often_than_one() -> None:
    draws, rng = 600, np.random.default_rng(0)
    tasks = {"few": 7, "some": 15, "many": 60}
    results = [
        replace(of_pack(model, grey=False), task=task, metric="bits_per_byte") for model in MODELS for task in tasks
    ]
    false = 0
    for _ in range(draws):
        drawn = {task: of_two_equals(rng, MODELS, count) for task, count in tasks.items()}
        scores = {model: {task: drawn[task][model] for task in tasks} for model in MODELS}
        false += any(row.verdict in ("better", "worse") for row in compare(scores, results))
    assert false / draws < LEVEL + 4 * math.sqrt(LEVEL * (1 - LEVEL) / draws)


def test_models_are_compared_on_the_same_held_out_documents(ctx: StepContext) -> None:
    evaluate.run(ctx)
    bits = {
        record["model"]: record["value"]
        for record in read_json(ctx.out / "results.json")
        if record["metric"] == "bits_per_byte"
    }
    (found,) = [row for row in read_json(ctx.out / "comparisons.json") if row["metric"] == "bits_per_byte"]
    assert (found["a"], found["b"], found["task"], found["n"]) == ("sft", "pretrain", "book", 2)
    assert found["difference"] == pytest.approx(bits["sft"] - bits["pretrain"])


def test_interval_of_few_documents_is_students(ctx: StepContext) -> None:
    evaluate.run(ctx)
    record = next(one for one in read_json(ctx.out / "results.json") if one["metric"] == "bits_per_byte")
    sizes = [len(HELD_OUT[0]), len(HELD_OUT[2])]
    assert record["n"] == 2
    assert record["degrees"] == pytest.approx(sum(sizes) ** 2 / sum(size**2 for size in sizes) - 1)
    half = stats.t.ppf(0.975, record["degrees"]) * record["stderr"]
    if record["interval"] is None:
        assert half > record["value"], "it would reach below 0"
    else:
        assert record["interval"][1] - record["value"] == pytest.approx(half)


def test_a_score_below_chance_decides_nothing_either() -> None:
    shown = {
        interval: evaluate.figure(
            model="m",
            task="t",
            metric="acc",
            value=0.2,
            stderr=0.0,
            interval=interval,
            n=9,
            kind="held_out",
            chance=0.25,
        ).at_or_below_chance
        for interval in ((0.1, 0.2), (0.2, 0.3), (0.26, 0.3))
    }
    assert list(shown.values()) == [True, True, False]
