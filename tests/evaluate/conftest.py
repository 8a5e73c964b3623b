"""A tokenizer of a few sentences and a random Llama, shared by the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.model.transformer import Llama
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer
from models import random_llama, save

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
    return random_llama(tokenizer, seed=1, context=96)


@pytest.fixture(scope="session")
def folder(model: Llama, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model as a Hugging Face folder."""
    return save(tmp_path_factory.mktemp("model"), model, tokenizer)
