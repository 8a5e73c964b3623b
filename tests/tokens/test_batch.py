"""Flat batches are cut at document ends and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.tokens.batch import Batch, concatenate, empty_batch, positions_within

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def numbered(document_lengths: list[int]) -> Batch:
    """Tokens 0, 1, 2, …, targets one more, every third target masked."""
    batch = empty_batch(np.array(document_lengths, dtype=np.int64))
    count = sum(document_lengths)
    batch.tokens_N[:] = np.arange(count)
    batch.targets_N[:] = np.arange(count) + 1
    batch.positions_N[:] = positions_within(batch.document_lengths)
    batch.loss_mask_N[:] = np.arange(count) % 3 != 0
    batch.source_N[:] = np.arange(count) % 2
    return batch


def same(a: Batch, b: Batch) -> bool:
    names = ("tokens_N", "targets_N", "positions_N", "document_lengths", "loss_mask_N", "source_N")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_positions_restart_in_each_document() -> None:
    assert positions_within(np.array([3, 1, 2])).tolist() == [0, 1, 2, 0, 0, 1]


def test_micro_batches_of_a_hand_made_batch() -> None:
    pieces = numbered([2, 3, 7, 1, 1]).micro_batches(5)
    assert [piece.document_lengths.tolist() for piece in pieces] == [[2, 3], [7], [1, 1]]
    assert pieces[2].tokens_N.tolist() == [12, 13]


@settings(deadline=None, max_examples=100)
@given(document_lengths=lengths, max_tokens=st.integers(1, 30))
def test_micro_batches_together_are_the_batch_and_obey_the_limit(document_lengths: list[int], max_tokens: int) -> None:
    batch = numbered(document_lengths)
    pieces = batch.micro_batches(max_tokens)
    assert same(concatenate(pieces), batch)
    assert sum(piece.num_units for piece in pieces) == batch.num_units
    for piece in pieces:
        assert piece.num_tokens == piece.document_lengths.sum()
        assert piece.num_tokens <= max_tokens or len(piece.document_lengths) == 1
        assert all(piece.positions_N[: piece.document_lengths[0]] == np.arange(piece.document_lengths[0]))


def test_a_micro_batch_of_no_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        numbered([2]).micro_batches(0)
