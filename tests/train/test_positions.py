"""Loss by position is the loss at each position, and needles are found by who looks, not by who guesses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from gristmill.model.transformer import Llama
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.watch import positions
from gristmill.train.watch.long_context import DIGITS
from gristmill.train.watch.positions import DEPTHS, edges_of, find_needles, read_long
from models import random_llama, save, small_tokenizer

OLD, NEW = 16, 64


@given(old=st.integers(1, 5000), factor=st.floats(1.01, 20))
def test_edges_rise_from_0_to_the_new_length_by_way_of_the_old_one(old: int, factor: float) -> None:
    new = max(old + 1, int(old * factor))
    edges = edges_of(old, new)
    assert (edges[0], edges[-1]) == (0, new)
    assert old in edges
    assert all(one < two for one, two in pairwise(edges))


@pytest.fixture
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture
def shards(tokenizer: Tokenizer, tmp_path: Path) -> dict[str, TokenShard]:
    rng = np.random.default_rng(1)
    lengths = {"long": [16, 17, 40, 200], "short": [3, 16], "other": [30]}
    return {
        source: shard_of(tmp_path / source, [rng.integers(20, 290, size).tolist() for size in sizes], tokenizer)
        for source, sizes in lengths.items()
    }


def shard_of(path: Path, documents: Sequence[list[int]], tokenizer: Tokenizer) -> TokenShard:
    with ShardWriter(
        path, tokenizer_sha256="0" * 64, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id
    ) as writer:
        for ids in documents:
            writer.add(ids, num_bytes=tokenizer.num_bytes(ids))
    return TokenShard(path)


def test_the_loss_between_two_edges_is_the_sum_that_transformers_computes(
    tokenizer: Tokenizer, shards: dict[str, TokenShard], tmp_path: Path
) -> None:
    model = random_llama(tokenizer, seed=2, context=NEW)
    peer = LlamaForCausalLM.from_pretrained(save(tmp_path / "peer", model, tokenizer))
    found = read_long(model, tokenizer, shards, old=OLD, new=NEW)
    assert [document.source for document in found] == ["long", "other", "long", "long"]
    texts = [
        shards["long"].document(1),
        shards["other"].document(0),
        shards["long"].document(2),
        shards["long"].document(3),
    ]
    for document, text in zip(found, texts, strict=True):
        ids = torch.tensor([[tokenizer.eos_id, *text[:-1][:NEW].tolist()]])
        with torch.no_grad():
            logps = torch.log_softmax(peer(ids[:, :-1]).logits[0].double(), dim=-1)
        nats = -logps.gather(1, ids[0, 1:, None])[:, 0]
        edges = edges_of(OLD, NEW)
        expected = [float(nats[begin:end].sum()) for begin, end in pairwise(edges)]
        assert document.nats == pytest.approx(expected, rel=1e-4)
        assert sum(document.tokens) == len(nats) == min(len(text) - 1, NEW)


class Reader:
    """Stands for a model that reads the needle, or always says one digit."""

    def __init__(self, tokenizer: Tokenizer, always: int | None = None) -> None:
        self.tokenizer, self.always, self.device = tokenizer, always, torch.device("cpu")
        self.lengths: list[int] = []

    def hidden(self, tokens_N: torch.Tensor, positions_N: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        text = self.tokenizer.decode(tokens_N[1:].tolist())
        self.lengths.append(len(tokens_N))
        asked = text[text.rindex("The number of the ") :].strip()
        hidden = text[text.index(asked + " ") + len(asked) + 1]
        return torch.full((1, 1), float(hidden if self.always is None else self.always))

    def logits(self, x_MD: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(1, self.tokenizer.vocab_size)
        logits[0, self.tokenizer.encode(str(int(x_MD[0, 0])))[0]] = 1
        return logits


@pytest.mark.parametrize("always", [None, 3])
def test_who_reads_the_needle_finds_all_and_who_always_says_the_same_finds_one_in_ten(
    tokenizer: Tokenizer, shards: dict[str, TokenShard], always: int | None
) -> None:
    reader = Reader(tokenizer, always)
    found = find_needles(reader, tokenizer, shards, old=256, new=1024, seed=1)  # type: ignore[arg-type]
    assert [(cell.length, cell.depth) for cell in found] == [(n, d) for n in (256, 512, 1024) for d in DEPTHS]
    assert {(cell.right, cell.asked) for cell in found} == {(DIGITS if always is None else 1, DIGITS)}
    assert [max(reader.lengths[k : k + 50]) for k in (0, 50, 100)] == [256, 512, 1024]
    assert min(reader.lengths) > 250


def test_needles_are_hidden_at_their_depth(tokenizer: Tokenizer, shards: dict[str, TokenShard]) -> None:
    rng, hay = np.random.default_rng(1), np.full(1000, tokenizer.encode("t")[0])
    for depth in DEPTHS:
        ids = positions._hidden_needle(tokenizer, hay, rng, digit=4, length=512, depth=depth)
        text = tokenizer.decode(ids[1:])
        before = text.index(" The number of the")
        assert before / text.rindex(" The number of the") == pytest.approx(depth, abs=0.12)


def test_without_long_documents_nothing_is_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = random_llama(tokenizer, seed=2, context=NEW)
    shard = shard_of(tmp_path / "short", [[30] * 5], tokenizer)
    assert read_long(model, tokenizer, {"short": shard}, old=OLD, new=NEW) == ()


def test_needles_are_not_asked_where_a_digit_after_a_blank_is_another_token(
    shards: dict[str, TokenShard], tmp_path: Path
) -> None:
    """As in GPT-2's tokenizer, where " 7" is one token, and "7" by itself another."""
    raw = json.loads(small_tokenizer().to_json())
    raw["pre_tokenizer"] = raw["pre_tokenizer"]["pretokenizers"][-1]
    for digit in range(DIGITS):
        if f"Ġ{digit}" not in raw["model"]["vocab"]:
            raw["model"]["vocab"][f"Ġ{digit}"] = len(raw["model"]["vocab"])
        raw["model"]["merges"].insert(0, ["Ġ", str(digit)])
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    fused = Tokenizer.load(tmp_path)
    assert len(fused.encode("7")) == 1 == len(fused.encode(" 7"))
    model = random_llama(fused, seed=2, context=1024)
    assert find_needles(model, fused, shards, old=256, new=512, seed=1) == ()


def test_needles_that_would_not_fit_are_not_asked(tokenizer: Tokenizer, shards: dict[str, TokenShard]) -> None:
    model: Llama = random_llama(tokenizer, seed=2, context=NEW)
    assert find_needles(model, tokenizer, shards, old=OLD, new=NEW, seed=1) == ()
