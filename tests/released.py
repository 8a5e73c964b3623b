"""A tiny released model: a folder as transformers saves it, with its tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "rope_theta": 50_000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
}  # fmt: skip
VOCAB_SIZE = 300


@cache
def small_tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(["The cat sat on the mat. Hello! Ünïcode — 数学 🙂 and so on"] * 4, VOCAB_SIZE))


def save_released(folder: Path, *, context: int = 32) -> Path:
    """Returns the folder."""
    small_tokenizer().save(folder)
    torch.manual_seed(7)
    config = LlamaConfig(**SHAPE, vocab_size=VOCAB_SIZE, max_position_embeddings=context, initializer_range=0.3)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
