"""Two tiny models of random weights, and one real server over them for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gristmill.model.transformer import Llama
from gristmill.tokens.tokenizer import Tokenizer
from models import random_llama, save, small_tokenizer
from served import CONTEXT, ENDLESS, Server, start, stop


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Llama, Tokenizer]:
    """A folder with `talker`, a chat model, and `writer`, a base model, of the same weights."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = small_tokenizer()
    chat = random_llama(tokenizer, seed=11, context=CONTEXT, is_chat=True)
    with torch.no_grad():  # answers go on until they are stopped
        chat.model.embed_tokens.weight[[tokenizer.eos_id, tokenizer.im_end_id]] = 0
    save(folder / "talker", chat, tokenizer)
    writer = Llama(replace(chat.config, eos_token_id=tokenizer.eos_id, max_position_embeddings=ENDLESS))
    writer.load_state_dict(chat.state_dict())
    save(folder / "writer", writer, tokenizer)
    return folder, chat, tokenizer


@pytest.fixture(scope="session")
def server(models: tuple[Path, Llama, Tokenizer]) -> Iterator[Server]:
    folder, chat, tokenizer = models
    process, url = start(folder / "talker", folder / "writer", "--max-waiting", 2, "--max-active", 8)
    yield Server(url=url, process=process, chat=chat, tokenizer=tokenizer)
    assert stop(process) == 0
