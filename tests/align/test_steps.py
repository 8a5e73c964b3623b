"""The steps sft, pairs and dpo on a tiny model: one after another, stopped and resumed, with files that others can read."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.align import dpo, make_pairs, reference, sft
from gristmill.align.epochs import Passes
from gristmill.align.losses import pair_logps
from gristmill.align.pairs import NoUsablePairs
from gristmill.context import context_of
from gristmill.data.packs import Item, write_pack
from gristmill.errors import DataError, Interrupted
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights, load_model, save_model
from gristmill.recipe.schema.curation import PackRef
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import file_sha256
from gristmill.store.jsonl import read_jsonl, read_log, write_jsonl
from gristmill.synthesize.templates import exchange, small_sums, sum_id, sum_prompt
from gristmill.tokens import chat_shards
from gristmill.tokens.chat import encode_chat, encode_conversations
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer
from gristmill.train.loop import Progress
from gristmill.train.monitor import METRICS, SAMPLES, Monitor
from gristmill.train.ranks.launch import run_on_ranks
from gristmill.train.session import Session
from gristmill.units import counted

OPTIMIZER = {"peak_lr": 0.01}
GOLDEN_ORDERS = [[6, 3, 7, 0, 1, 5, 4, 8, 2, 9], [4, 3, 9, 0, 1, 8, 2, 5, 7, 6]]


def recipe(**changes: Any) -> Recipe:
    stage = {"name": "s", "tokens": 64, "seq_len": 16, "mixture": {"web": 1.0}}
    sections: dict[str, Any] = {
        "chat": {"sums_up_to": 3},
        "sft": {
            "epochs": 10,
            "batch_conversations": 6,
            "seq_len": 60,
            "optimizer": {"peak_lr": 0.03},
            "sample_prompts": ["Hi"],
        },
        "pairs": {"num_prompts": 12, "samples_per_prompt": 6, "max_new_tokens": 4, "max_pairs_per_prompt": 2},
        "dpo": {"epochs": 2, "batch_pairs": 4, "seq_len": 60, "optimizer": OPTIMIZER},
    }
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "tiny",
            "seed": 3,
            "sources": {"web": {"read": {"format": "text", "paths": ["x"]}, "license": "none"}},
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
            "pretrain": {
                "stages": [stage],
                "global_batch_tokens": 16,
                "warmup_tokens": 0,
                "decay_tokens": 16,
                "optimizer": OPTIMIZER,
                "watch": {"every_tokens": 64},
                "checkpoint_every_tokens": 64,
            },
            **{name: {**section, **changes.get(name, {})} for name, section in sections.items()},
        }
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer, pretrained model and chat data: answers to sums are a digit, right or wrong by chance of training."""
    folder = tmp_path_factory.mktemp("run")
    texts = ["user\nWhat is 1 + 2?", "assistant\n3"] * 3
    tokenizer = Tokenizer(train_tokenizer(texts, 280))
    tokenizer.save(folder / "tokenizer")
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.1,
        eos_token_id=tokenizer.eos_id,
    )
    save_model(folder / "pretrain" / "model", init_weights(Llama(config), 0), folder / "tokenizer")
    rows = [
        {
            "id": f"{sum_id(a, b)}#{copy}",
            "kind": "sum",
            "messages": exchange("?", str(a + b)),
            "trained_item": sum_id(a, b),
        }
        for a, b in small_sums(3)
        for copy in range(2)
    ]
    rows.append({"id": "long", "kind": "everyday", "messages": exchange("x " * 60, "y"), "trained_item": None})
    prompts = [
        {"id": sum_id(a, b), "kind": "sum", "group": "small", "messages": exchange("?", "0")[:1], "a": a, "b": b}
        for a, b in small_sums(3)
    ]
    prompts.append(
        {"id": "d", "kind": "definition", "group": "none", "messages": list(sum_prompt(1, 1, seed=0)), "a": 0, "b": 0}
    )
    (folder / "synthesize").mkdir()
    write_jsonl(folder / "synthesize" / "sft.jsonl", rows)
    write_jsonl(folder / "synthesize" / "prompts.jsonl", prompts)
    return folder


def context(
    name: str,
    folder: Path,
    out: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
    recipe: Recipe | None = None,
) -> StepContext:
    out.mkdir(exist_ok=True, parents=True)
    return context_of(
        recipe or globals()["recipe"](),
        name,
        folders={path.name: path for path in folder.iterdir()},
        recipe_dir=folder,
        out=out,
        machine=Machine(processes=1, threads=1, device="cpu", micro_batch_tokens=40),
        say=say,
        should_stop=should_stop,
    )


def stop_at_call(number: int) -> Callable[[], bool]:
    calls = iter(range(1, 10**6))
    return lambda: next(calls) == number


def in_pieces(name: str, folder: Path, out: Path, *, every: int = 7) -> dict[str, Any]:
    """The step, stopped the `every`-th time that it asks, again and again until it ends."""
    for _ in range(50):
        try:
            return {"sft": sft, "dpo": dpo}[name].run(context(name, folder, out, should_stop=stop_at_call(every)))
        except Interrupted:
            continue
    raise AssertionError("the step never ended")


def diary(out: Path) -> list[dict[str, Any]]:
    lines = read_log(out / METRICS) + read_log(out / SAMPLES)
    return [{key: value for key, value in line.items() if not key.startswith("throughput/")} for line in lines]


@pytest.fixture(scope="module")
def with_sft(run_folder: Path) -> tuple[Path, dict[str, Any]]:
    counts = sft.run(context("sft", run_folder, run_folder / "sft"))
    return run_folder, counts


@pytest.fixture(scope="module")
def with_pairs(with_sft: tuple[Path, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    folder, _ = with_sft
    return folder, make_pairs.run(context("pairs", folder, folder / "pairs"))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**40))
def test_each_pass_meets_every_example_once_in_an_order_of_its_own(num_items: int, batch_size: int, seed: int) -> None:
    passes = Passes(num_items=num_items, batch_size=batch_size, epochs=2, seed=seed)
    orders: list[list[int]] = [[], []]
    sample = 0
    for step in range(passes.num_steps):
        epoch = step // passes.steps_per_epoch
        found = passes.items(sample).tolist()
        assert len(found) == batch_size or len(orders[epoch]) + len(found) == num_items
        orders[epoch] += found
        sample = passes.next_sample(sample)
    assert sample == 2 * num_items
    for order in orders:
        assert sorted(order) == list(range(num_items))
    if num_items > 12:
        assert orders[0] != orders[1]
        assert orders[0] != Passes(num_items=num_items, batch_size=num_items, epochs=1, seed=seed + 1).items(0).tolist()


def test_the_order_of_a_pass_does_not_depend_on_the_batch_and_is_the_golden_one() -> None:
    """The order decides the weights: where it changes, the versions of sft and dpo rise."""
    whole = Passes(num_items=10, batch_size=10, epochs=2, seed=7)
    assert [whole.items(0).tolist(), whole.items(10).tolist()] == GOLDEN_ORDERS
    thirds = Passes(num_items=10, batch_size=3, epochs=2, seed=7)
    assert np.concatenate([thirds.items(sample) for sample in (10, 13, 16, 19)]).tolist() == GOLDEN_ORDERS[1]


def test_sft_learns_counts_and_tells_where_a_turn_ends(with_sft: tuple[Path, dict[str, Any]]) -> None:
    folder, counts = with_sft
    assert (counts["conversations"], counts["too_long"], counts["epochs"], counts["steps"]) == (32, 1, 10, 60)
    assert counts["tokens_per_second"] == counts["tokens"] / counts["training_seconds"]
    lines = read_log(folder / "sft" / METRICS)
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    assert lines[-1]["train/lr"] < lines[0]["train/lr"]
    assert lines[-1]["train/sum/loss"] == lines[-1]["train/loss"]
    model = load_model(folder / "sft" / "model")
    assert counts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert model.config.eos_token_id == Tokenizer.load(folder / "sft" / "model").im_end_id
    assert [line["prompt"] for line in read_log(folder / "sft" / SAMPLES)] == ["Hi"]


def test_sft_rate_is_a_cosine_over_steps_that_ends_at_zero(with_sft: tuple[Path, dict[str, Any]]) -> None:
    folder, counts = with_sft
    warmup = round(recipe().sft.warmup_frac * counts["steps"])  # type: ignore[union-attr]
    rates = [0.03 * step / warmup for step in range(1, warmup + 1)]
    rest = counts["steps"] - warmup
    rates += [0.015 * (1 + math.cos(math.pi * step / rest)) for step in range(1, rest + 1)]
    lines = [line for line in read_log(folder / "sft" / METRICS) if line["kind"] == "train"]
    assert warmup > 1
    assert [line["train/lr"] for line in lines] == pytest.approx(
        [sum(rates[line["step"] - 5 : line["step"]]) / 5 for line in lines], abs=1e-9
    )


def test_sft_stopped_and_resumed_equals_never_stopped(with_sft: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = with_sft
    in_pieces("sft", folder, tmp_path / "sft")
    name = "model/model.safetensors"
    assert (tmp_path / "sft" / name).read_bytes() == (folder / "sft" / name).read_bytes()
    assert diary(tmp_path / "sft") == diary(folder / "sft")


def test_sft_without_a_fitting_conversation_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 33 conversations fits sft.seq_len 4"):
        sft.run(context("sft", run_folder, tmp_path / "sft", recipe=recipe(sft={"seq_len": 4})))


def test_pairs_are_one_right_and_one_wrong_answer_and_counts_add_up(with_pairs: tuple[Path, dict[str, Any]]) -> None:
    folder, counts = with_pairs
    rows = read_jsonl(folder / "pairs" / "pairs.jsonl")
    samples = read_jsonl(folder / "pairs" / "samples.jsonl")
    assert len(samples) == sum(counts["samples"].values()) == 12 * 6
    assert len(rows) == counts["pairs"] > 0
    fates = ("prompts_with_pairs", "prompts_all_right", "prompts_all_wrong", "prompts_other")
    assert sum(counts[fate] for fate in fates) == counts["prompts"] == 12
    assert json.loads((folder / "pairs" / "report.json").read_text()) == counts
    for row in rows:
        a, b = (int(term) for term in row["id"].split("#")[0].removeprefix("sum/").split("+"))
        right, wrong = (re.findall("[0-9]+", row[side][0]["content"]) for side in ("chosen", "rejected"))
        assert right[-1] == str(a + b)
        assert [number for number in wrong if number not in (str(a), str(b))] != [str(a + b)]
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"


def test_prompts_are_taken_from_all_groups_in_turn_and_never_held_out_ones(run_folder: Path, tmp_path: Path) -> None:
    sums = [*((a, 1) for a in range(9)), *((a, 20) for a in range(10, 12)), (50, 50)]
    rows = [
        {"id": sum_id(a, b), "kind": "sum", "group": "small" if a < 10 else "large", "messages": [], "a": a, "b": b}
        for a, b in sums
    ]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    item = Item(id="i", prompt="?", choices=("1", "2"), answer=0, ids=("sum/50+50",))
    write_pack(
        tmp_path / "held", name="held", version=1, kind="multiple_choice", metric="acc", chance=0.5, items=[item]
    )
    with_pack = recipe().model_copy(update={"packs": {"held": PackRef(path=str(tmp_path / "held"))}})
    (tmp_path / "synthesize").mkdir()
    (tmp_path / "prompts.jsonl").rename(tmp_path / "synthesize" / "prompts.jsonl")
    for name in ("tokenizer", "sft"):
        (tmp_path / name).symlink_to(run_folder / name)
    ctx = context("pairs", tmp_path, tmp_path / "out", recipe=with_pack)
    chosen = make_pairs.choose_prompts(ctx, ["sum"], 7)
    assert [prompt.a >= 10 for prompt in chosen] == [False, True, False, True, False, False, False]
    assert {prompt.id for prompt in chosen if prompt.a >= 10} == {"sum/10+20", "sum/11+20"}
    assert chosen[:3] == make_pairs.choose_prompts(ctx, ["sum"], 3)


@pytest.mark.parametrize("damage", ["torn", "hole"])
def test_pairs_stopped_torn_and_made_again_are_the_same_bytes(
    with_pairs: tuple[Path, dict[str, Any]], tmp_path: Path, damage: str
) -> None:
    folder, counts = with_pairs
    with pytest.raises(Interrupted, match="stopped after 4 of 12 prompts"):
        make_pairs.run(context("pairs", folder, tmp_path, should_stop=stop_at_call(5)))
    samples = tmp_path / "samples.jsonl"
    if damage == "torn":
        samples.write_text(samples.read_text() + '{"prompt_id": "sum/0+0", "ind')
    else:
        lines = samples.read_text().splitlines(keepends=True)
        samples.write_text("".join([*lines[:7], "\0" * 9 + lines[7][9:], *lines[8:]]))
    assert make_pairs.run(context("pairs", folder, tmp_path)) == counts
    for name in ("pairs.jsonl", "samples.jsonl", "report.json"):
        assert (tmp_path / name).read_bytes() == (folder / "pairs" / name).read_bytes()


def test_no_usable_pair_is_an_error_with_counts(with_sft: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = with_sft
    with pytest.raises(NoUsablePairs, match=r"none of 12 prompts .*unfinished"):
        make_pairs.run(context("pairs", folder, tmp_path, recipe=recipe(pairs={"max_new_tokens": 1})))


def test_dpo_widens_the_margin_from_nothing(with_pairs: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, counts = with_pairs
    done = dpo.run(context("dpo", folder, tmp_path / "dpo", recipe=recipe(dpo={"epochs": 6})))
    assert (done["pairs"], done["too_long"]) == (counts["pairs"], 0)
    assert (done["epochs"], done["beta"]) == (6, recipe().dpo.beta)  # type: ignore[union-attr]
    lines = [line for line in read_log(tmp_path / "dpo" / METRICS) if line["kind"] == "train"]
    assert lines[-1]["train/margin"] > lines[0]["train/margin"]
    assert lines[-1]["train/loss"] < 0.6931
    assert 0 <= lines[-1]["train/accuracy"] <= 1


def test_pairs_that_are_too_long_are_left_out_and_counted(
    with_pairs: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = with_pairs
    rows = read_jsonl(folder / "pairs" / "pairs.jsonl")
    rows[0]["rejected"][0]["content"] += " and 1 more"
    (tmp_path / "pairs").mkdir()
    write_jsonl(tmp_path / "pairs" / "pairs.jsonl", rows)
    for name in ("tokenizer", "sft"):
        (tmp_path / name).symlink_to(folder / name)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    lengths = [max(chat.num_tokens for chat in dpo.encode_pair_row(tokenizer, row)[1:]) for row in rows]
    assert min(lengths) < max(lengths)
    said: list[str] = []
    short = recipe(dpo={"seq_len": min(lengths), "epochs": 1})
    done = dpo.run(context("dpo", tmp_path, tmp_path / "dpo", recipe=short, say=said.append))
    fitting = lengths.count(min(lengths))
    assert (done["pairs"], done["too_long"]) == (fitting, len(rows) - fitting)
    assert f"left out: {counted(len(rows) - fitting, 'pair')} longer than dpo.seq_len {min(lengths)}" in said


def test_what_the_recipe_says_of_dpo_and_sampling_reaches_them(
    with_pairs: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = with_pairs
    asked: dict[str, Any] = {}

    class Seen(Exception):
        pass

    def look(*given: Any, **settings: Any) -> None:
        asked.update(settings, given=given)
        raise Seen

    monkeypatch.setattr(dpo, "train_epochs", look)
    monkeypatch.setattr(make_pairs, "draw_answers", look)
    optimizer = {"peak_lr": 0.02, "max_grad_norm": 0.3}
    changed = recipe(
        dpo={"beta": 0.7, "warmup_frac": 0.3, "epochs": 3, "batch_pairs": 2, "optimizer": optimizer},
        pairs={"temperature": 0.6},
    )
    with pytest.raises(Seen):
        dpo.run(context("dpo", folder, tmp_path / "dpo", recipe=changed))
    assert asked.pop("loss_fn").keywords == {"beta": 0.7}
    passes = asked["given"][1]
    assert (passes.epochs, passes.batch_size) == (3, 2)
    assert passes.seed == context("dpo", folder, tmp_path / "dpo", recipe=changed).seed
    assert (asked["optimizer"].peak_lr, asked["optimizer"].max_grad_norm, asked["warmup_frac"]) == (0.02, 0.3, 0.3)
    with pytest.raises(Seen):
        make_pairs.run(context("pairs", folder, tmp_path / "pairs", recipe=changed))
    assert (asked["temperature"], asked["num_samples"], asked["max_new_tokens"]) == (0.6, 6, 4)


def test_dpo_stopped_and_resumed_equals_never_stopped(with_pairs: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = with_pairs
    unbroken, pieces = tmp_path / "a" / "dpo", tmp_path / "b" / "dpo"  # a store of checkpoints beside each
    dpo.run(context("dpo", folder, unbroken))
    in_pieces("dpo", folder, pieces, every=2)
    name = "model/model.safetensors"
    assert (pieces / name).read_bytes() == (unbroken / name).read_bytes()
    assert diary(pieces) == diary(unbroken)
    kept = (pieces / dpo.REFERENCE).read_bytes()
    assert kept == (unbroken / dpo.REFERENCE).read_bytes()


def test_the_reference_is_asked_once_for_each_pair_however_often_dpo_is_stopped(
    with_pairs: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, counts = with_pairs
    asked: list[int] = []

    def counting(model: Llama, pairs: Any) -> Any:
        asked.append(len(pairs))
        return pair_logps(model, pairs)

    monkeypatch.setattr(reference, "pair_logps", counting)
    in_pieces("dpo", folder, tmp_path / "dpo", every=2)
    assert asked == [1] * counts["pairs"]
    question = json.loads((tmp_path / "dpo" / dpo.REFERENCE).read_text())["question"]
    assert question["seq_len"] == 60
    assert question["pairs_sha256"] == file_sha256(folder / "pairs" / "pairs.jsonl")
    assert question["tokenizer_sha256"] == file_sha256(folder / "tokenizer" / "tokenizer.json")
    assert question["model_sha256"]["model.safetensors"] == file_sha256(folder / "sft" / "model" / "model.safetensors")


def test_the_answers_of_the_reference_serve_every_dpo_of_the_store_that_asks_the_same(
    with_pairs: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = with_pairs
    changed = recipe(dpo={"beta": 0.3})
    for name in ("first", "alone"):
        dpo.run(context("dpo", folder, tmp_path / name, recipe=None if name == "first" else changed))
    for name in ("again", "other"):
        shutil.copytree(tmp_path / "first", tmp_path / f"{name}.runs" / ".store" / "dpo" / ("1" * 32))
    other = tmp_path / "with other weights"
    shutil.copytree(folder, other)
    save_model(other / "sft" / "model", load_model(folder / "pretrain" / "model"), folder / "tokenizer")

    def refuse(*asked: Any) -> Any:
        raise AssertionError("the reference was asked")

    monkeypatch.setattr(dpo, "reference_logps", refuse)
    dpo.run(context("dpo", folder, tmp_path / "again", recipe=changed))
    for file in (dpo.REFERENCE, "model/model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()
    with pytest.raises(AssertionError, match="the reference was asked"):
        dpo.run(context("dpo", other, tmp_path / "other", recipe=changed))


def test_a_resumed_sft_does_not_encode_again_and_the_result_holds_no_copy_of_the_conversations(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted, match="stopped after step 6"):
        sft.run(context("sft", run_folder, tmp_path / "sft", should_stop=stop_at_call(7)))
    encoded = chat_shards.ChatShard(tmp_path / "sft" / sft.CHATS)
    assert encoded.origin.tokenizer_sha256 == file_sha256(run_folder / "tokenizer" / "tokenizer.json")
    monkeypatch.setattr(chat_shards, "encode_conversations", None)
    assert sft.run(context("sft", run_folder, tmp_path / "sft"))["steps"] == 60
    assert not (tmp_path / "sft" / sft.CHATS).exists()


def test_earlier_assistant_turns_of_a_prompt_do_not_count(run_folder: Path) -> None:
    tokenizer = Tokenizer.load(run_folder / "tokenizer")
    prompt = [*exchange("What is 1 + 2?", "3"), {"role": "user", "content": "What is 1?"}]
    answers = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", "12"), ("rejected", "3"))}
    _, chosen, rejected = dpo.encode_pair_row(tokenizer, {"id": "p", "prompt": prompt, **answers})
    for chat, text in ((chosen, "12"), (rejected, "3")):
        counted = [int(token) for token, counts in zip(chat.ids, chat.mask) if counts]
        assert counted == [*tokenizer.encode(text), tokenizer.im_end_id]


def test_what_the_recipe_says_of_sft_reaches_the_passes(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class Seen(Exception):
        pass

    def look(session: Session, passes: Passes, **settings: Any) -> None:
        asked.update(settings, session=session, passes=passes)
        raise Seen

    monkeypatch.setattr(sft, "train_epochs", look)
    tokenizer = Tokenizer.load(run_folder / "tokenizer")
    talks = {"sum": exchange("?", "1"), "everyday": exchange("?", "1 2"), "code": exchange("?", "1 2 3")}
    (tmp_path / "synthesize").mkdir()
    write_jsonl(
        tmp_path / "synthesize" / "sft.jsonl",
        [{"id": kind, "kind": kind, "messages": talk, "trained_item": None} for kind, talk in talks.items()],
    )
    for name in ("tokenizer", "pretrain"):
        (tmp_path / name).symlink_to(run_folder / name)
    _, fitting, longer = (chat.num_tokens for chat in encode_conversations(tokenizer, list(talks.items())))
    assert fitting < longer
    optimizer = {"peak_lr": 0.02, "max_grad_norm": 0.3}
    settings = {"epochs": 3, "batch_conversations": 5, "optimizer": optimizer, "warmup_frac": 0.3}
    ctx = context("sft", tmp_path, tmp_path / "sft", recipe=recipe(sft={**settings, "seq_len": longer - 1}))
    with pytest.raises(Seen):
        sft.run(ctx)
    assert asked["passes"] == Passes(num_items=2, batch_size=5, epochs=3, seed=ctx.seed)
    assert (asked["optimizer"].max_grad_norm, asked["warmup_frac"]) == (0.3, 0.3)
    assert asked["loss_fn"].keywords == {"source_names": ["sum", "everyday"]}
    assert asked["session"].checkpoints.prefix_at(4) == {"identity": ctx.identity}
    ctx = context("sft", tmp_path, tmp_path / "sft", recipe=recipe(sft={**settings, "sample_prompts": ["1 " * 9999]}))
    with pytest.raises(DataError, match="prompt 0 has"):  # before any training
        sft.run(ctx)


@pytest.mark.parametrize(("room", "new_tokens"), [(1000, 64), (10, 10), (0, 1)])
def test_an_answer_follows_the_question_ends_with_its_turn_or_text_and_fits_the_context(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, new_tokens: int
) -> None:
    """One token is asked for at least: a question that fills the context is then refused, not left unanswered."""
    tokenizer = Tokenizer.load(run_folder / "tokenizer")
    ends = [tokenizer.im_end_id, tokenizer.eos_id]
    questions = ["1?", "What is 1 + 2?"]
    prompts = [
        encode_chat(tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True)[0]
        for question in questions
    ]
    asked: dict[str, Any] = {}

    def answer(model: Any, prompts: list[list[int]], **settings: Any) -> list[list[int]]:
        asked.update(settings, prompts=prompts)
        return [[*tokenizer.encode("3"), end] for end in ends]

    monkeypatch.setattr(sft, "generate", answer)
    config = SimpleNamespace(max_position_embeddings=len(prompts[1]) + room)
    session: Any = SimpleNamespace(
        model=SimpleNamespace(config=config), progress=Progress(step=5, tokens=70), monitor=Monitor(tmp_path)
    )
    sft.write_answers(session, tokenizer, questions)
    assert asked == {"prompts": prompts, "max_new_tokens": new_tokens, "stop_ids": ends}
    line = {"step": 5, "tokens": 70, "kind": "sample", "stage": "sft", "text": "3"}
    assert read_log(tmp_path / SAMPLES) == [{**line, "prompt": question} for question in questions]


def test_no_question_gets_no_answer(run_folder: Path, tmp_path: Path) -> None:
    tokenizer, model = Tokenizer.load(run_folder / "tokenizer"), load_model(run_folder / "pretrain" / "model")
    session: Any = SimpleNamespace(model=model, progress=Progress(), monitor=Monitor(tmp_path))
    sft.write_answers(session, tokenizer, [])
    assert not (tmp_path / SAMPLES).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), [("sft", "batch_conversations"), ("dpo", "batch_pairs")])
def test_three_ranks_train_as_one_process_does_also_where_a_batch_has_fewer_examples_than_ranks(
    with_pairs: tuple[Path, dict[str, Any]], tmp_path: Path, name: str, batch: str
) -> None:
    folder, made = with_pairs
    num_items = {"sft": 32, "dpo": made["pairs"]}[name]
    size = next(size for size in range(3, num_items) if 0 < num_items % size < 3)
    recipe_of = recipe(**{name: {batch: size}})
    alone = context(name, folder, tmp_path / "one", recipe=recipe_of)
    counts = {"sft": sft, "dpo": dpo}[name].run(alone)
    together = context(name, folder, tmp_path / "three", recipe=recipe_of)
    shared = run_on_ranks(f"gristmill.align.{name}", replace(together, machine=replace(together.machine, ranks=3)))
    assert counts["steps"] == shared["steps"]
    assert num_items == counts.get("conversations", counts.get("pairs"))
    one, three = diary(tmp_path / "one"), diary(tmp_path / "three")
    assert [line.keys() for line in one] == [line.keys() for line in three]
    for line, other in zip(one, three, strict=True):
        for key, value in line.items():
            expected = pytest.approx(value, rel=1e-4, abs=1e-7) if isinstance(value, float) else value
            assert other[key] == expected, key
