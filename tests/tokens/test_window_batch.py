"""Batches of windows equal a plain making of them, and stay as they are for as long as somebody looks at them."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gristmill.tokens.batch import Batch
from gristmill.tokens.window_batch import WindowBatches, position_dtype

ARRAYS = ("tokens_N", "targets_N", "positions_N", "document_lengths", "loss_mask_N", "source_N")


def windows_of(num: int, seq_len: int, dtype: str, seed: int) -> NDArray[Any]:
    """A third of the ids end a document."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 60_000, size=(num, seq_len + 1)) * (rng.random((num, seq_len + 1)) > 1 / 3)).astype(dtype)


def make(batches: WindowBatches, ids: NDArray[Any]) -> Batch:
    sources = np.arange(len(ids), dtype=np.int16) % 7
    return batches.make([row.tobytes() for row in ids], ids.shape[1] - 1, sources)


@settings(deadline=None, max_examples=100)
@given(
    num=st.integers(1, 6),
    seq_len=st.integers(1, 40),
    dtype=st.sampled_from(["<u2", "<u4"]),
    seed=st.integers(0, 1 << 20),
)
def test_a_batch_is_what_a_loop_over_tokens_makes(num: int, seq_len: int, dtype: str, seed: int) -> None:
    ids = windows_of(num, seq_len, dtype, seed)
    batch = make(WindowBatches(np.dtype(dtype), 0), ids)
    tokens, targets, positions, lengths, sources = [], [], [], [], []
    for row, window in enumerate(ids.tolist()):
        for column in range(seq_len):
            if column == 0 or window[column] == 0:
                lengths.append(0)
            tokens.append(window[column])
            targets.append(window[column + 1])
            positions.append(lengths[-1])
            sources.append(row % 7)
            lengths[-1] += 1
    assert batch.tokens_N.tolist() == tokens
    assert batch.targets_N.tolist() == targets
    assert batch.positions_N.tolist() == positions
    assert batch.document_lengths.tolist() == lengths
    assert batch.source_N.tolist() == sources
    assert batch.loss_mask_N.tolist() == [1.0] * len(tokens)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_batch_stays_as_it_is_while_any_part_of_it_is_kept(data: st.DataObject) -> None:
    batches = WindowBatches(np.dtype("<u2"), 0)
    kept: list[tuple[Any, bytes]] = []
    for number in range(data.draw(st.integers(2, 12))):
        ids = windows_of(data.draw(st.integers(1, 5)), data.draw(st.sampled_from([3, 8, 17])), "<u2", number)
        batch = make(batches, ids)
        pieces = batch.micro_batches(data.draw(st.integers(1, 20)))
        array = getattr(data.draw(st.sampled_from([batch, *pieces])), data.draw(st.sampled_from(ARRAYS)))
        if data.draw(st.booleans()):
            kept.append((array, array.tobytes()))
        if kept and data.draw(st.booleans()):
            kept.pop(0)
        del batch, pieces, array
    assert all(array.tobytes() == content for array, content in kept)


def test_memory_is_used_again_once_nobody_looks_at_it() -> None:
    batches = WindowBatches(np.dtype("<u2"), 0)
    ids = windows_of(4, 64, "<u2", 0)
    places = []
    for _ in range(5):
        batch = make(batches, ids)
        places.append(batch.tokens_N.ctypes.data)
        del batch
        gc.collect()
    assert len(set(places)) == 1
    held = [make(batches, ids) for _ in range(3)]
    assert len({batch.tokens_N.ctypes.data for batch in held}) == 3


@pytest.mark.parametrize(("seq_len", "size"), [(32_768, 2), (32_769, 4), (256, 2), (128, 1)])
def test_every_position_of_a_window_fits_its_integers(seq_len: int, size: int) -> None:
    assert position_dtype(seq_len).itemsize == size
    assert np.iinfo(position_dtype(seq_len)).max >= seq_len - 1
