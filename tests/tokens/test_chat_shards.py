"""A chat shard gives the batches that its conversations give, is made once, and is made again where anything differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.errors import ArtifactError, DataError, Interrupted, ResourceError
from gristmill.store.durable import read_json, write_json
from gristmill.store.jsonl import write_jsonl
from gristmill.tokens import chat_shards
from gristmill.tokens.chat import chat_batch, encode_conversations
from gristmill.tokens.chat_shards import ChatShard, encode_once
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

FILES = ["chats.json", "kinds.bin", "mask.bin", "tokens.bin", "tokens.blocks", "tokens.index", "tokens.json"]
KINDS = ("sum", "chat", "code")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(["user\nWhat is 1 + 2?", "assistant\n3"] * 3, 280))


def conversation(number: int, words: int, turns: int = 1) -> dict[str, Any]:
    messages = [
        {"role": role, "content": "x" * (words + turn)} for turn in range(turns) for role in ("user", "assistant")
    ]
    return {"id": f"c-{number}", "kind": KINDS[number % 3], "messages": messages}


ROWS = [conversation(number, words=number % 7 + 1, turns=number % 3 + 1) for number in range(23)]


def encode(folder: Path, rows: list[dict[str, Any]], tokenizer: Tokenizer, **others: Any) -> ChatShard:
    write_jsonl(folder / "rows.jsonl", rows)
    settings = {"tokenizer_sha256": "f" * 64, "seq_len": 1000, **others}
    return encode_once(folder / "rows.jsonl", folder / "chats", tokenizer=tokenizer, **settings)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 3)), min_size=1, max_size=12),
    together=st.integers(1, 5),
    data=st.data(),
)
def test_batches_are_those_of_the_conversations_in_memory(
    tmp_path: Path, tokenizer: Tokenizer, sizes: list[tuple[int, int]], together: int, data: st.DataObject
) -> None:
    rows = [conversation(number, words, turns) for number, (words, turns) in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_shards, "_ROWS", together)
        shard = encode(tmp_path, rows, tokenizer)
    chats = encode_conversations(tokenizer, [(row["id"], row["messages"]) for row in rows])
    numbers = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    found, expected = shard.batch(np.array(numbers)), chat_batch([chats[number] for number in numbers])
    kinds = np.repeat([shard.kinds.index(rows[number]["kind"]) for number in numbers], expected.document_lengths)
    assert found.source_N.tolist() == kinds.tolist()
    for name in ("tokens_N", "targets_N", "positions_N", "document_lengths", "loss_mask_N"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name


def test_conversations_that_are_too_long_are_left_out_and_counted(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_shards, "_ROWS", 4)
    chats = encode_conversations(tokenizer, [(row["id"], row["messages"]) for row in ROWS])
    lengths = sorted(chat.num_tokens for chat in chats)
    shard = encode(tmp_path, ROWS, tokenizer, seq_len=lengths[10])
    fitting = [chat for chat in chats if chat.num_tokens <= lengths[10]]
    assert (shard.num_conversations, shard.too_long) == (len(fitting), 23 - len(fitting))
    found = shard.batch(np.arange(len(fitting)))
    assert found.tokens_N.tolist() == chat_batch(fitting).tokens_N.tolist()
    kinds = [row["kind"] for row, chat in zip(ROWS, chats) if chat.num_tokens <= lengths[10]]
    of_kinds = np.repeat([shard.kinds.index(kind) for kind in kinds], found.document_lengths)
    assert found.source_N.tolist() == of_kinds.tolist()


def test_a_finished_shard_is_used_again_and_not_encoded(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(tmp_path, ROWS, tokenizer)
    monkeypatch.setattr(chat_shards, "encode_conversations", None)
    second = encode(tmp_path, ROWS, tokenizer)
    every = np.arange(len(ROWS))
    assert second.batch(every).tokens_N.tolist() == first.batch(every).tokens_N.tolist()


@pytest.mark.parametrize("others", [{"seq_len": 999}, {"tokenizer_sha256": "e" * 64}])
def test_a_shard_of_another_tokenizer_or_length_is_not_used(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any]
) -> None:
    encode(tmp_path, ROWS, tokenizer)
    monkeypatch.setattr(chat_shards, "encode_conversations", None)
    with pytest.raises(TypeError):
        encode(tmp_path, ROWS, tokenizer, **others)


def test_other_rows_are_encoded_anew(tmp_path: Path, tokenizer: Tokenizer) -> None:
    encode(tmp_path, ROWS, tokenizer)
    assert encode(tmp_path, ROWS[:5], tokenizer).num_conversations == 5


@pytest.mark.parametrize("other", [{}, {"origin": {"packed": True}}])
def test_a_shard_whose_sidecar_has_another_form_is_encoded_anew(
    tmp_path: Path, tokenizer: Tokenizer, other: dict[str, Any]
) -> None:
    encode(tmp_path, ROWS, tokenizer)
    sidecar = tmp_path / "chats" / "chats.json"
    facts = read_json(sidecar)
    write_json(sidecar, other)
    encode(tmp_path, ROWS, tokenizer)
    assert read_json(sidecar) == facts


def test_a_shard_knows_the_bytes_of_its_text(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_shards, "_ROWS", 4)
    encode(tmp_path, ROWS, tokenizer)
    chats = encode_conversations(tokenizer, [(row["id"], row["messages"]) for row in ROWS])
    tokens = TokenShard(tmp_path / "chats" / "tokens")
    assert tokens.num_bytes == sum(tokenizer.num_bytes(chat.ids) for chat in chats)


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in FILES for damage in ("absent", "truncated", "flipped")
     if (name, damage) != ("tokens.blocks", "absent")],
)  # fmt: skip
def test_a_damaged_shard_is_made_again(tmp_path: Path, tokenizer: Tokenizer, name: str, damage: str) -> None:
    encode(tmp_path, ROWS, tokenizer)
    path = tmp_path / "chats" / name
    whole = {file: (tmp_path / "chats" / file).read_bytes() for file in FILES}
    if damage == "absent":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(whole[name][:-1].rstrip(b"}\n"))
    else:
        path.write_bytes(bytes([whole[name][0] ^ 1]) + whole[name][1:])
    with pytest.raises((ArtifactError, KeyError)):
        ChatShard(tmp_path / "chats")
    encode(tmp_path, ROWS, tokenizer)
    assert sorted(file.name for file in (tmp_path / "chats").iterdir()) == FILES
    assert {file: (tmp_path / "chats" / file).read_bytes() for file in FILES} == whole


def test_encoding_that_is_stopped_leaves_no_shard_not_even_the_one_before(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_shards, "_ROWS", 4)
    encode(tmp_path, ROWS[:5], tokenizer)
    calls = iter([False, False, True])
    with pytest.raises(Interrupted):
        encode(tmp_path, ROWS, tokenizer, should_stop=lambda: next(calls))
    assert not (tmp_path / "chats" / "chats.json").exists()
    assert encode(tmp_path, ROWS, tokenizer).num_conversations == len(ROWS)


def test_a_bad_conversation_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    bad = {"id": "c-bad", "kind": "sum", "messages": [{"role": "user", "content": "x"}]}
    with pytest.raises(DataError, match="'c-bad' has no assistant message"):
        encode(tmp_path, [*ROWS, bad], tokenizer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", ["mask.bin", "kinds.bin"])
def test_a_full_disk_is_a_resource_error(tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / name).symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="disk is full"):
        encode(tmp_path, ROWS, tokenizer)
