"""One flat batch: documents lie one after another in plain arrays, with no padding and no mask matrix.

    tokens     eos  a   b   c   eos  d   e   f        document_lengths = [4, 4]
    targets     a   b   c  eos   d   e   f   g        loss_mask        = 1 where the target counts
    positions   0   1   2   3    0   1   2   3        attention never crosses a document's end

Pretraining (stream.py), supervised fine-tuning and preference pairs (chat.py) all make this shape; the loop knows no other.
Nothing here imports a deep-learning framework: the loop moves the arrays to the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """N tokens in whole documents. Shapes: `*_N` are (N,); `document_lengths` sums to N and holds no zero.

    Nobody writes into a finished batch: arrays may be views, and shared with other batches. Ids have 4 bytes, positions 2 or 4: less
    than half of what would be moved otherwise; the loss widens its targets on the device. `source_N` indexes the maker's list of source names and is 0 everywhere where there is one source.
    """

    tokens_N: NDArray[np.int32]
    targets_N: NDArray[np.int32]
    positions_N: NDArray[np.signedinteger]
    document_lengths: NDArray[np.int64]
    loss_mask_N: NDArray[np.float32]
    source_N: NDArray[np.int16]

    @property
    def num_tokens(self) -> int:
        """N."""
        return len(self.tokens_N)

    @property
    def num_units(self) -> float:
        """The number of targets that count: the sum of the loss mask (float64, so exact for 0/1 masks)."""
        return float(self.loss_mask_N.sum(dtype=np.float64))

    def micro_batches(self, max_tokens: int) -> list[Batch]:
        """The same tokens in the same order, cut at document ends into batches of at most `max_tokens` tokens.

        Greedy from the front. A document longer than `max_tokens` is a batch of its own. The arrays are views, not copies.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; a micro-batch holds at least one token")
        ends = np.cumsum(self.document_lengths)
        pieces: list[Batch] = []
        first_document, first_token = 0, 0
        while first_document < len(ends):
            stop_document = int(np.searchsorted(ends, first_token + max_tokens, side="right"))
            stop_document = max(stop_document, first_document + 1)
            stop_token = int(ends[stop_document - 1])
            pieces.append(self._slice(first_document, stop_document, first_token, stop_token))
            first_document, first_token = stop_document, stop_token
        return pieces

    def _slice(self, first_document: int, stop_document: int, first_token: int, stop_token: int) -> Batch:
        tokens = slice(first_token, stop_token)
        return Batch(
            tokens_N=self.tokens_N[tokens],
            targets_N=self.targets_N[tokens],
            positions_N=self.positions_N[tokens],
            document_lengths=self.document_lengths[first_document:stop_document],
            loss_mask_N=self.loss_mask_N[tokens],
            source_N=self.source_N[tokens],
        )


def empty_batch(document_lengths: NDArray[np.int64]) -> Batch:
    """A batch of unset arrays in one block of memory.

    One block, because the C library gives several freed megabyte arrays back to the system each time, and asking for fresh
    pages costs several times more than filling them.
    """
    count = int(document_lengths.sum())
    block = np.empty(count * 18, dtype=np.uint8)
    return Batch(
        tokens_N=block[: 4 * count].view(np.int32),
        targets_N=block[4 * count : 8 * count].view(np.int32),
        positions_N=block[8 * count : 12 * count].view(np.int32),
        document_lengths=document_lengths,
        loss_mask_N=block[12 * count : 16 * count].view(np.float32),
        source_N=block[16 * count :].view(np.int16),
    )


def concatenate(batches: list[Batch]) -> Batch:
    """One batch that holds the documents of all, in order. `batches` must not be empty."""
    return Batch(
        tokens_N=np.concatenate([batch.tokens_N for batch in batches]),
        targets_N=np.concatenate([batch.targets_N for batch in batches]),
        positions_N=np.concatenate([batch.positions_N for batch in batches]),
        document_lengths=np.concatenate([batch.document_lengths for batch in batches]),
        loss_mask_N=np.concatenate([batch.loss_mask_N for batch in batches]),
        source_N=np.concatenate([batch.source_N for batch in batches]),
    )


def positions_within(document_lengths: NDArray[np.int64]) -> NDArray[np.int32]:
    """(N,) int32: 0, 1, 2, … restarting in each document."""
    starts = (np.cumsum(document_lengths) - document_lengths).astype(np.int32)
    return np.arange(int(document_lengths.sum()), dtype=np.int32) - np.repeat(starts, document_lengths)
