"""Small Llamas: of random weights, for tests that do not care which model they get, and one whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights, save_model
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer


@cache
def small_tokenizer() -> Tokenizer:
    """290 entries, among them pieces of several scripts."""
    return Tokenizer(train_tokenizer(["Hello! The cat sat on the mat. Ünïcode — 数学 🙂"] * 4, 290))


def random_llama(
    tokenizer: Tokenizer, *, seed: int, context: int, is_chat: bool = False, rope_theta: float = 10_000.0
) -> Llama:
    """Two layers, 32 wide, with weights large enough that the likeliest token is clear. A chat model ends with its turn."""
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=context,
        rope_theta=rope_theta,
        initializer_range=0.3,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.im_end_id if is_chat else tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    return init_weights(Llama(config), seed)


def next_token_llama(tokenizer: Tokenizer, following: Mapping[int, int], *, context: int = 64) -> Llama:
    """A Llama that looks at the last token only: after `token` it says `following[token]`, else the end-of-text token.

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


def save(folder: Path, model: Llama, tokenizer: Tokenizer) -> Path:
    """The model as a Hugging Face folder, as training leaves it."""
    tokenizer.save(folder)
    save_model(folder, model, folder)
    return folder
