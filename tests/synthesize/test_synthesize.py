"""The synthesize step: nothing held out gets through, every conversation is accounted for, same inputs give the same files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gristmill.context import context_of
from gristmill.data.document import Document, shard_path, write_documents
from gristmill.data.ledger import read_ledger
from gristmill.data.packs import Item, write_pack
from gristmill.errors import DataError
from gristmill.graph.machine import Machine
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.jsonl import read_jsonl
from gristmill.synthesize import synthesize

CONTAMINATED = "Which of the seven old mills on the long river grinds the finest flour today?"


def document(id: str, text: str) -> Document:
    return Document(id=id, source="glosses", text=text, license="none", origin="x#0", bytes_in=len(text))


def hold_out_sums(pack: Path, sums: Iterable[tuple[int, int]]) -> None:
    items = [
        Item(
            id=f"sum/{a}+{b}",
            prompt=f"What is {a} + {b}?",
            choices=(f" {a + b}", " 1"),
            answer=0,
            ids=(f"sum/{a}+{b}",),
        )
        for a, b in sums
    ]
    write_pack(pack, name="sums", version=1, kind="multiple_choice", metric="acc", chance=0.5, items=items)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two packs (sums, a long question), hand-written conversations, a source of dictionary entries."""
    hold_out_sums(tmp_path / "sums", [(12, 34), (50, 50), (3, 4)])
    long = [Item(id="q", prompt=CONTAMINATED, target="The third one.")]
    write_pack(tmp_path / "long", name="long", version=1, kind="generate", metric="acc", chance=0.0, items=long)
    rows = [
        {
            "id": "a",
            "topic": "greeting",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
        },
        {
            "id": "b",
            "topic": "mills",
            "messages": [{"role": "user", "content": CONTAMINATED}, {"role": "assistant", "content": "The third one."}],
        },
    ]
    (tmp_path / "everyday.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = [document(f"w/{n}", f"term{n} (noun): a word made for test number {n}") for n in range(9)]
    (tmp_path / "select" / "glosses").mkdir(parents=True)
    write_documents(
        shard_path(tmp_path / "select" / "glosses", 0, stem="train"), [*entries, document("w/x", "no entry")]
    )
    hidden = [document("w/v", "hidden (noun): only in the validation text")]
    write_documents(shard_path(tmp_path / "select" / "glosses", 0, stem="validation"), hidden)
    return tmp_path


CHAT = {
    "conversations": ["everyday.jsonl"],
    "conversation_copies": 2,
    "sums_up_to": 9,
    "two_digit_sums": 20,
    "definitions_from": "glosses",
    "num_definitions": 5,
}


def run(folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    stage = {"name": "s", "tokens": 64, "seq_len": 16, "mixture": {"glosses": 1.0}}
    recipe = Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "tiny",
            "seed": 3,
            "packs": {"sums": {"path": "sums"}, "long": {"path": "long"}},
            "sources": {"glosses": {"read": {"format": "text", "paths": ["x"]}, "license": "none"}},
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
                "optimizer": {"peak_lr": 0.01},
                "watch": {"every_tokens": 64},
                "checkpoint_every_tokens": 64,
            },
            "chat": {**CHAT, **changes},
        }
    )
    out.mkdir()
    return synthesize.run(
        context_of(
            recipe,
            "synthesize",
            folders={"select": folder / "select"},
            recipe_dir=folder,
            out=out,
            machine=Machine(processes=1, threads=1),
        )
    )


def test_ledger_adds_up_and_agrees_with_the_files(folder: Path, tmp_path: Path) -> None:
    counts = run(folder, tmp_path / "out")
    ledger = read_ledger(tmp_path / "out" / "ledger.json")
    ledger.check()
    rows, rejected = read_jsonl(tmp_path / "out" / "sft.jsonl"), read_jsonl(tmp_path / "out" / "rejected.jsonl")
    prompts = read_jsonl(tmp_path / "out" / "prompts.jsonl")
    for kind in ("everyday", "sum", "definition"):
        own = ledger.source(kind)
        assert own.total("kept").documents == sum(row["kind"] == kind for row in rows) == counts["by_kind"][kind]
        assert own.total("dropped").documents == sum(row["kind"] == kind for row in rejected)
    assert ledger.source("prompt").total("kept").documents == len(prompts)
    assert len({row["id"] for row in rows}) == len(rows)


def test_held_out_sums_and_their_mirrors_are_in_no_file(folder: Path, tmp_path: Path) -> None:
    """Of the sums of two digits only those with a 20 are left, and all that there are is asked for."""
    held_out = [(3, 4), *((a, b) for a in range(10, 100) for b in range(a, 100) if 20 not in (a, b))]
    shutil.rmtree(tmp_path / "sums")
    hold_out_sums(tmp_path / "sums", held_out)
    run(folder, tmp_path / "out", two_digit_sums=4050)
    held = {f"sum/{one}+{other}" for a, b in held_out for one, other in ((a, b), (b, a))}
    rows = read_jsonl(tmp_path / "out" / "sft.jsonl")
    prompts = read_jsonl(tmp_path / "out" / "prompts.jsonl")
    assert not held & {row["trained_item"] for row in rows}
    assert not held & {prompt["id"] for prompt in prompts}
    assert len({row["trained_item"] for row in rows if row["kind"] == "sum"}) == 98 + 179
    reasons = {(row["reason"], row["detail"]) for row in read_jsonl(tmp_path / "out" / "rejected.jsonl")}
    assert {("held_out", "sum/3+4"), ("held_out", "sum/4+3")} <= reasons


def test_contaminated_conversation_is_left_out_with_its_reason(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out")
    rows = read_jsonl(tmp_path / "out" / "sft.jsonl")
    assert [row["id"] for row in rows if row["kind"] == "everyday"] == ["everyday/a", "everyday/a#2"]
    rejected = [row for row in read_jsonl(tmp_path / "out" / "rejected.jsonl") if row["kind"] == "everyday"]
    assert [(row["id"], row["reason"]) for row in rejected] == [
        ("everyday/b", "contaminated"),
        ("everyday/b#2", "contaminated"),
    ]
    assert "long/q" in rejected[0]["detail"]


def test_definitions_come_from_training_documents_alone(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out", num_definitions=1000)
    rows = [row for row in read_jsonl(tmp_path / "out" / "sft.jsonl") if row["kind"] == "definition"]
    assert {row["trained_item"] for row in rows} == {f"w/{n}" for n in range(9)}


def test_prompts_have_sums_that_sft_trains_and_as_many_that_it_never_saw(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out")
    trained = {row["trained_item"] for row in read_jsonl(tmp_path / "out" / "sft.jsonl")}
    prompts = read_jsonl(tmp_path / "out" / "prompts.jsonl")
    assert all((prompt["id"] in trained) == (prompt["group"] != "unseen") for prompt in prompts)
    assert [sum(prompt["group"] == group for prompt in prompts) for group in ("small", "large", "unseen")] == [
        98,
        20,
        20,
    ]
    assert all(int(prompt["target"]) == prompt["a"] + prompt["b"] for prompt in prompts)


def test_same_inputs_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(folder, tmp_path / name)
    for file in ("sft.jsonl", "prompts.jsonl", "rejected.jsonl", "ledger.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "messages": []}', "messages is"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "the id is None, expected a text"),
        ('{"id": "a", "messages": [{"role": "user", "content": "x"}]}', "no message is the assistant's"),
        ('{"id": "a", "messages": [{"role": "bot", "content": "x"}]}', "'role': 'bot'"),
        ('{"id": "a"', "everyday.jsonl:1 is not JSON"),
        ("[1]", "everyday.jsonl:1: expected an object, found list"),
    ],
)
def test_malformed_conversation_is_named(folder: Path, tmp_path: Path, line: str, message: str) -> None:
    (folder / "everyday.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        run(folder, tmp_path / "out")


def test_nothing_asked_for_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no conversation is left"):
        run(
            folder,
            tmp_path / "out",
            conversations=[],
            sums_up_to=0,
            two_digit_sums=0,
            definitions_from=None,
            num_definitions=0,
        )
