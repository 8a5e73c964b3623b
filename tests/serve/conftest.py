"""Two tiny models of random weights, and one real server over them for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gristmill.model.transformer import Llama, LlamaConfig
from gristmill.model.weights import init_weights, save_model
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer
from served import CONTEXT, ENDLESS, Server, start, stop


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Llama, Tokenizer]:
    """A folder with `talker`, a chat model, and `writer`, a base model, of the same weights."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer(train_tokenizer(["Hello! The cat sat on the mat. Ünïcode — 数学 🙂"] * 4, 290))
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        eos_token_id=tokenizer.im_end_id,
    )
    chat = init_weights(Llama(config), 11)
    with torch.no_grad():  # answers go on until they are stopped
        chat.model.embed_tokens.weight[[tokenizer.eos_id, tokenizer.im_end_id]] = 0
    for name, end, context in (("talker", tokenizer.im_end_id, CONTEXT), ("writer", tokenizer.eos_id, ENDLESS)):
        tokenizer.save(folder / name)
        chat.config = replace(config, eos_token_id=end, max_position_embeddings=context)
        save_model(folder / name, chat, None)
    chat.config = config
    return folder, chat, tokenizer


@pytest.fixture(scope="session")
def server(models: tuple[Path, Llama, Tokenizer]) -> Iterator[Server]:
    folder, chat, tokenizer = models
    process, url = start(folder / "talker", folder / "writer", "--max-waiting", 2, "--max-active", 8)
    yield Server(url=url, process=process, chat=chat, tokenizer=tokenizer)
    assert stop(process) == 0
