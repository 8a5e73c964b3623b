"""Samples in which an item is as likely as it is large."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.data.by_size import SampleBySize

SIZES = st.lists(st.integers(0, 1000), max_size=40)


def drawn(sizes: dict[str, float], num_items: int) -> SampleBySize[str]:
    sample: SampleBySize[str] = SampleBySize(num_items)
    for key, size in sizes.items():
        sample.add(key, size, key)
    return sample


@given(SIZES, st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_order_of_the_stream_changes_nothing(sizes: list[int], num_items: int, rng: random.Random) -> None:
    named = {str(number): float(size) for number, size in enumerate(sizes)}
    other = dict(rng.sample([*named.items()], len(named)))
    assert sorted(drawn(named, num_items).weighted()) == sorted(drawn(other, num_items).weighted())


@given(SIZES, st.integers(1, 40))
def test_what_fits_stays_with_its_own_size_and_what_has_none_is_not_drawn(sizes: list[int], num_items: int) -> None:
    sample = drawn({str(number): float(size) for number, size in enumerate(sizes)}, num_items)
    real = sum(size > 0 for size in sizes)
    stayed = sample.weighted()
    assert len(stayed) == min(real, num_items)
    assert sample.is_whole == (real <= num_items)
    assert all(weight >= size > 0 for weight, size, _ in stayed)
    if sample.is_whole:
        assert sum(weight for weight, _, _ in stayed) == sum(sizes)


def test_weights_add_up_to_any_part_on_average_though_one_item_is_half_of_all() -> None:
    rng = random.Random(1)
    sizes = {f"{number}": rng.paretovariate(1.5) for number in range(400)}
    sizes["large"] = sum(sizes.values())
    part = {key for number, key in enumerate(sizes) if number % 3 == 0} - {"large"}
    told = []
    for salt in range(400):
        sample = drawn({f"{salt}/{key}": size for key, size in sizes.items()}, 40)
        names = {name.partition("/")[2]: weight for weight, _, name in sample.weighted()}
        assert names["large"] == pytest.approx(sizes["large"], rel=0.2)
        told.append(sum(weight for name, weight in names.items() if name in part))
    truth = sum(sizes[key] for key in part)
    assert fmean(told) == pytest.approx(truth, abs=3 * stdev(told) / 20)
    assert stdev(told) < 0.3 * truth
