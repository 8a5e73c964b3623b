"""Batches made ahead are those that were asked for, and what goes wrong with one is told when its turn comes."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.train.next_batch import NextBatch


@settings(deadline=None, max_examples=60)
@given(asked=st.lists(st.integers(0, 9), max_size=12))
def test_each_call_gives_what_was_asked_whatever_was_made_ahead(asked: list[int]) -> None:
    with NextBatch(lambda number: number * number, end=10) as batches:
        assert [batches(number) for number in asked] == [number * number for number in asked]


def test_the_next_one_is_made_before_it_is_asked_for_and_none_beyond_the_end() -> None:
    made: list[int] = []
    second = threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 1:
            second.set()
        return number

    with NextBatch(make, end=3) as batches:
        batches(0)
        assert second.wait(10), "1 is made though only 0 was asked for"
        assert [batches(1), batches(2)] == [1, 2]
    assert made == [0, 1, 2]


def test_an_error_is_raised_when_the_turn_of_its_batch_has_come() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("block 7")
        return number

    with NextBatch(make, end=9) as batches:
        assert [batches(0), batches(1)] == [0, 1]
        with pytest.raises(ValueError, match="block 7"):
            batches(2)
    with NextBatch(make, end=9) as batches:
        assert [batches(1), batches(3)] == [1, 3], "a batch that is passed over does not matter"


def test_two_are_never_made_at_the_same_time_even_where_one_that_was_not_expected_is_asked_for() -> None:
    """They share the memory that is kept between batches."""
    at_work, most = 0, 0

    def make(number: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.02)
        at_work -= 1
        return number

    with NextBatch(make, end=100) as batches:
        assert [batches(number) for number in (0, 10, 20, 21, 40)] == [0, 10, 20, 21, 40]
    assert most == 1


def test_beyond_the_end_nothing_is_begun() -> None:
    begun = threading.Event()

    def make(number: int) -> int:
        if number == 3:
            begun.set()
        return number

    with NextBatch(make, end=3) as batches:
        assert [batches(number) for number in range(3)] == [0, 1, 2]
        assert not begun.wait(0.1)
