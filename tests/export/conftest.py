"""A model to export."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer
from models import random_llama, save


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base model as training leaves it, with a rotary base that is not the default."""
    tokenizer = Tokenizer(train_tokenizer(["The cat sat on the mat.", "What is 2 + 3? It is 5."] * 4, 290))
    return save(
        tmp_path_factory.mktemp("source"), random_llama(tokenizer, seed=5, context=256, rope_theta=100_000.0), tokenizer
    )
