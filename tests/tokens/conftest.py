"""A small tokenizer and small shards for the tests of tokens/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

SAMPLE = [
    "The mill stands by the river, and the river turns the wheel. The wheel turns the stone.",
    "It's the miller's grist: 12 sacks in 2024, 345 sacks in 2025, don't you know?",
    "def grind(grain):\n    return [flour for flour in grain if flour]\n\n\ndef sieve(flour):\n    return flour\n",
    "user\nassistant\nsystem\nHello! How are you? I am fine. Größe, naïve, 😀 and 水車.",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(SAMPLE * 3, 400))


@pytest.fixture
def make_shard(tmp_path: Path) -> Callable[..., TokenShard]:
    """make_shard("web", [[5, 6], [7]]) writes the documents (eos 0 is appended) and opens them."""

    def make(name: str, documents: Sequence[Sequence[int]], *, tokenizer_sha256: str = "a" * 64) -> TokenShard:
        with ShardWriter(tmp_path / name, tokenizer_sha256=tokenizer_sha256, vocab_size=1000, eos_id=0) as writer:
            for document in documents:
                writer.add(document, num_bytes=len(document))
        return TokenShard(tmp_path / name)

    return make
