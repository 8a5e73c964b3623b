"""Documents that two shards share: all of them, and no others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gristmill.tokens.shards import TokenShard
from gristmill.tokens.shared_text import shared_documents


def test_held_out_text_in_training_text_is_found_and_nothing_else(make_shard: Callable[..., TokenShard]) -> None:
    """Against a plain comparison of all documents with all."""
    rng = np.random.default_rng(3)
    documents = [rng.integers(1, 4, size=length).tolist() for length in rng.integers(0, 6, size=400)]
    training, held_out = make_shard("training", documents[:300]), make_shard("held", documents[300:])
    expected = [
        number for number in range(100) if documents[300 + number] and documents[300 + number] in documents[:300]
    ]
    assert expected
    assert len(expected) < 100
    assert shared_documents(training, held_out) == expected
