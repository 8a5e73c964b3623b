"""The keyed permutation is one, for every size and key, and shuffles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gristmill.tokens.permutation import key_of, left_size, mix, permute, unpermute


def whole(size: int, key: int) -> NDArray[np.uint64]:
    """The permutation of 0 … size-1."""
    index = np.arange(size, dtype=np.uint64)
    return permute(
        index,
        size=np.full(size, size, dtype=np.uint64),
        left=np.full(size, left_size(size), dtype=np.uint64),
        key=np.full(size, key, dtype=np.uint64),
    )


@settings(deadline=None, max_examples=200)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_every_size_and_key_gives_a_permutation(size: int, key: int) -> None:
    assert sorted(whole(size, key).tolist()) == list(range(size))


@settings(deadline=None, max_examples=200)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_the_inverse_finds_the_index_of_each_place(size: int, key: int) -> None:
    shape = {"size": size, "left": left_size(size), "key": key}
    arrays = {name: np.full(size, value, dtype=np.uint64) for name, value in shape.items()}
    assert unpermute(whole(size, key), **arrays).tolist() == list(range(size))


@settings(deadline=None, max_examples=100)
@given(parts=st.lists(st.tuples(st.integers(1, 2**40), st.integers(0, 2**64 - 1), st.integers(0, 2**40)), min_size=1))
def test_elements_of_different_permutations_do_not_disturb_each_other(parts: list[tuple[int, int, int]]) -> None:
    def arrays(rows: list[tuple[int, int, int]]) -> NDArray[np.uint64]:
        size = np.array([row[0] for row in rows], dtype=np.uint64)
        return permute(
            np.array([row[2] % row[0] for row in rows], dtype=np.uint64),
            size=size,
            left=np.array([left_size(row[0]) for row in rows], dtype=np.uint64),
            key=np.array([row[1] for row in rows], dtype=np.uint64),
        )

    together = arrays(parts)
    assert together.tolist() == [arrays([part])[0] for part in parts]
    assert all(value < part[0] for value, part in zip(together.tolist(), parts, strict=True))


def test_different_keys_give_different_orders_and_neighbours_part() -> None:
    orders = [whole(1000, key_of("k", number)) for number in range(20)]
    for a, b in pairwise(orders):
        assert (a == b).sum() < 20  # one agreement is expected by chance
    steps = np.concatenate([np.abs(np.diff(order.astype(np.int64))) for order in orders])
    assert 300 < steps.mean() < 370  # a third of 1,000 for random neighbours


def test_each_place_is_uniform_over_keys() -> None:
    """Chi-square over 4,000 keys for a domain of 10: mean 9, and 45 is far out in the tail (p < 1e-6)."""
    keys = np.array([key_of("place", number) for number in range(4000)], dtype=np.uint64)
    for place in range(10):
        found = permute(
            np.full(4000, place, dtype=np.uint64),
            size=np.full(4000, 10, dtype=np.uint64),
            left=np.full(4000, left_size(10), dtype=np.uint64),
            key=keys,
        )
        counts = np.bincount(found.astype(np.int64), minlength=10)
        assert ((counts - 400) ** 2 / 400).sum() < 45


def test_golden_values() -> None:
    """A change here reorders the data of every run that exists."""
    assert key_of("window order", 1, "web", None, 2048) == 16709696269003234852
    assert whole(10, 12345).tolist() == [6, 9, 7, 3, 8, 1, 4, 5, 2, 0]
    assert mix(np.zeros(1, dtype=np.uint64)).tolist() == [0xE220A8397B1DCDAF]  # splitmix64's first output for seed 0
