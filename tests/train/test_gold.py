"""Bits per byte of right answers, against likelihoods token by token; and what guessing scores."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from gristmill.data.packs import Item, Pack, write_pack
from gristmill.errors import DataError
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer
from gristmill.train.watch.gold import check_gold, continuation_of, gold_bits_per_byte, guessing_level


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(["one two three four five six seven"] * 4, 276))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Llama:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        rope_theta=10_000.0, rms_norm_eps=1e-5, initializer_range=0.3, tie_word_embeddings=True, max_position_embeddings=32,
        vocab_size=tokenizer.vocab_size, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    return init_weights(Llama(config), seed=1)


def pack(folder: Path, *items: Item, kind: str = "generate") -> Pack:
    return write_pack(folder, name="p", version=1, kind=kind, metric="m", chance=0.0, items=items)


def nats_of(model: Llama, tokenizer: Tokenizer, prompt: str, answer: str) -> float:
    """Token by token, each by a forward pass over all that comes before it."""
    ids, start = tokenizer.encode(prompt + answer), len(tokenizer.encode(prompt))
    total = 0.0
    for at in range(start, len(ids)):
        tokens = torch.tensor(ids[:at])
        with torch.no_grad():
            logits = model.logits(model.hidden(tokens, torch.arange(at), [at]))[-1].double()
        total -= float(torch.log_softmax(logits, 0)[ids[at]])
    return total


def test_gold_bits_are_those_of_each_token_of_the_answer_over_its_bytes(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    items = [Item(id="a", prompt="one two", target="three"), Item(id="b", prompt="four\n", target="five six seven")]
    found = gold_bits_per_byte(model, tokenizer, pack(tmp_path, *items))
    nats = nats_of(model, tokenizer, "one two", " three") + nats_of(model, tokenizer, "four", "\nfive six seven")
    assert found is not None
    assert found.value == pytest.approx(nats / math.log(2) / len(" three\nfive six seven"), rel=1e-5)
    assert found.num_documents == 2


def test_of_choices_the_right_one_is_the_answer() -> None:
    chosen = Item(id="c", prompt="one", choices=(" two", " three"), answer=1)
    assert continuation_of(chosen) == ("one", " three")


def test_items_without_an_answer_and_answers_that_do_not_fit_are_left_out(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    bare = Item(id="a", prompt="one")
    long = Item(id="b", prompt="one", target="seven " * 60)
    short = Item(id="c", prompt="one", target="two")
    found = gold_bits_per_byte(model, tokenizer, pack(tmp_path / "some", bare, long, short, kind="unscored"))
    only = gold_bits_per_byte(model, tokenizer, pack(tmp_path / "one", short))
    assert found is not None
    assert only is not None
    assert found.value == only.value
    assert gold_bits_per_byte(model, tokenizer, pack(tmp_path / "none", long)) is None
    by_tokens = {len(tokenizer.encode(" " + "y" * size)): "y" * size for size in range(1, 60)}
    fits, does_not = (Item(id=f"{tokens}", prompt="one", target=by_tokens[tokens]) for tokens in (32, 33))
    assert gold_bits_per_byte(model, tokenizer, pack(tmp_path / "fits", fits)) is not None, "the context is 32 tokens"
    assert gold_bits_per_byte(model, tokenizer, pack(tmp_path / "not", does_not)) is None
    with pytest.raises(DataError, match="the pack 'code' has no answers"):
        check_gold(pack(tmp_path / "bare", bare, kind="unscored"), "code")


def test_who_names_the_most_frequent_place_does_no_better_than_guessing() -> None:
    """Of ten answers six are D: a model that always answers D has .6 and knows nothing."""
    choices = (" A", " B", " C", " D")
    items = [Item(id=str(n), prompt="?", choices=choices, answer=3 if n < 6 else n % 3) for n in range(10)]
    assert guessing_level(items, 0.25) == 0.6
    even = [Item(id=str(n), prompt="?", choices=choices, answer=n % 4) for n in range(8)]
    assert guessing_level(even, 0.25) == 0.25
    assert guessing_level([], 0.25) == 0.25
