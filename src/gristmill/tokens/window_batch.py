"""Batches of whole windows: the ids of seq_len inputs and one more, as bytes, to one flat batch.

A batch and what is needed to make it lie in one block of memory, which the next batch takes over once nobody looks at it any more:
to ask the system for fresh pages costs ten times as much as to fill them.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.tokens.batch import Batch


class WindowBatches:
    """Makes the batches of one tokenizer's windows. dtype: of the ids in the shards."""

    def __init__(self, dtype: np.dtype[Any], eos_id: int) -> None:
        self._dtype, self._eos_id = dtype, eos_id
        self._free: list[bytearray] = []
        self._ones = np.ones(0, dtype=np.float32)
        self._arange: NDArray[np.signedinteger] = np.arange(0)

    def make(self, windows: Sequence[memoryview | bytes], seq_len: int, source_S: NDArray[np.int16]) -> Batch:
        """Each of S windows has seq_len + 1 ids; source_S: the number of its source."""
        num, width, small = len(windows), seq_len + 1, position_dtype(seq_len)
        count, shape, row_bytes = num * seq_len, (num, seq_len), width * self._dtype.itemsize
        # Tokens, targets, positions, sources. While the windows lie where positions and sources come last, what is found in them lies
        # where tokens come: the less memory is touched, the more of it is in the cache.
        read, sources = 8 * count, (8 + small.itemsize) * count
        end = max(sources + 2 * count, read + num * row_bytes)
        block = self._take(end)
        room = block[read:end].data
        for row, window in enumerate(windows):
            room[row * row_bytes : (row + 1) * row_bytes] = window
        ids_SW = block[read : read + num * row_bytes].view(self._dtype).reshape(num, width)
        begins_SW = block[: num * width].view(np.bool_).reshape(num, width)
        columns, document_lengths = segments(ids_SW, self._eos_id, begins_SW)
        batch = Batch(
            tokens_N=block[: 4 * count].view(np.int32),
            targets_N=block[4 * count : read].view(np.int32),
            positions_N=block[read:sources].view(small),
            document_lengths=document_lengths,
            loss_mask_N=self._all_count(count),
            source_N=block[sources : sources + 2 * count].view(np.int16),
        )
        batch.tokens_N.reshape(shape)[:] = ids_SW[:, :-1]
        batch.targets_N.reshape(shape)[:] = ids_SW[:, 1:]
        began = columns.astype(small).repeat(document_lengths).reshape(shape)
        np.subtract(self._columns(seq_len), began, out=batch.positions_N.reshape(shape))
        batch.source_N.reshape(shape)[:] = source_S[:, None]
        return batch

    def _take(self, num_bytes: int) -> NDArray[np.uint8]:
        """A block of memory, which comes back when the last view of it is gone."""
        memory = self._free.pop() if self._free else bytearray()
        if len(memory) < num_bytes:
            memory = bytearray(num_bytes)
        block = np.frombuffer(memory, dtype=np.uint8, count=num_bytes)
        weakref.finalize(block, self._free.append, memory).atexit = False
        return block

    def _columns(self, seq_len: int) -> NDArray[np.signedinteger]:
        if len(self._arange) != seq_len:
            self._arange = np.arange(seq_len, dtype=position_dtype(seq_len))
        return self._arange

    def _all_count(self, count: int) -> NDArray[np.float32]:
        """A loss mask in which all of `count` targets count: a view of one array."""
        if len(self._ones) < count:
            self._ones = np.ones(count, dtype=np.float32)
        return self._ones[:count]


def position_dtype(seq_len: int) -> np.dtype[Any]:
    """The least signed integers that hold every position of a window."""
    return np.min_scalar_type(-seq_len)


def segments(
    windows: NDArray[np.integer], eos_id: int, begins: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The attention documents of (sequences, seq_len + 1) ids, whose last column is a target only: (first columns, lengths).

    One begins at each window and at each eos id. With eos 0, [[5, 6, 0, 7, 0], [0, 8, 9, 0, 4]] gives columns [0, 2, 0, 3] and
    lengths [2, 2, 3, 1]. begins: memory to work in, of the shape of `windows`.
    """
    num_sequences, width = windows.shape
    np.equal(windows, eos_id, out=begins)
    begins[:, -1] = False
    begins[:, 0] = True
    (found,) = begins.ravel().nonzero()
    rows, columns = np.divmod(found, width)
    lengths = np.empty_like(found)
    starts = found - rows
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1] = num_sequences * (width - 1) - starts[-1]
    return columns, lengths
