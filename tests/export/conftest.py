"""A model to export."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.model.transformer import Llama, LlamaConfig
from gristmill.model.weights import init_weights, save_model
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 2 layers that has seen nothing, as training leaves it."""
    folder = tmp_path_factory.mktemp("source")
    tokenizer = Tokenizer(train_tokenizer(["The cat sat on the mat.", "What is 2 + 3? It is 5."] * 4, 290))
    tokenizer.save(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        rope_theta=100_000.0,
        initializer_range=0.3,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    save_model(folder, init_weights(Llama(config), 5), folder)
    return folder
