"""A tokenizer of a few sentences, a random Llama, and a Llama whose answers are known: shared by the tests of evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from gristmill.model.transformer import Llama, LlamaConfig
from gristmill.model.weights import init_weights, save_model
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

SENTENCES = [
    "The cat sat on the mat and the dog lay by the door.",
    "What is the sum of two and two? The sum is four.",
    "Rivers run to the sea; the sea is not full.",
    "A mill grinds grain into flour, and flour becomes bread.",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(SENTENCES * 4, 300))


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Llama:
    """Random, but with weights large enough that choices differ clearly."""
    return _random_llama(tokenizer, seed=1)


@pytest.fixture(scope="session")
def random_llama() -> Callable[..., Llama]:
    return _random_llama


@pytest.fixture(scope="session")
def next_token_llama() -> Callable[..., Llama]:
    return _next_token_llama


@pytest.fixture(scope="session")
def folder(model: Llama, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model as a Hugging Face folder."""
    path = tmp_path_factory.mktemp("model")
    tokenizer.save(path)
    save_model(path, model, path)
    return path


def _random_llama(tokenizer: Tokenizer, *, seed: int, context: int = 96) -> Llama:
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    return init_weights(Llama(config), seed)


def _next_token_llama(tokenizer: Tokenizer, following: Mapping[int, int], *, context: int = 64) -> Llama:
    """A Llama that looks at the last token alone: after `token` it says `following[token]`, else the end-of-text token.

    Attention and feed-forward write nothing, the embedding is the identity and the head is the table.
    """
    size = tokenizer.vocab_size
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=size // 2,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
    )
    model = init_weights(Llama(config), 0)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        table = torch.zeros(size, size)
        for token in range(size):
            table[following.get(token, tokenizer.eos_id), token] = 1.0
        model.lm_head.weight.copy_(table)
    return model
