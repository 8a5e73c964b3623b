"""Text that two shards share: held-out text judges nothing that was trained on it."""

from __future__ import annotations

import numpy as np

from gristmill.tokens.shards import TokenShard


def shared_documents(training: TokenShard, held_out: TokenShard) -> list[int]:
    """The documents of `held_out`, by number, whose ids a document of `training` has too, all of them and no others.

    Of the training documents only those are read that are as long as a held-out one. Empty documents are none.
    """
    asked: dict[bytes, list[int]] = {}
    for number in range(held_out.num_documents):
        asked.setdefault(held_out.document(number).tobytes(), []).append(number)
    lengths = training.document_lengths()
    alike = np.flatnonzero(np.isin(lengths, held_out.document_lengths()) & (lengths > 1))
    found = {number for row in alike.tolist() for number in asked.get(training.document(row).tobytes(), ())}
    return sorted(found)
