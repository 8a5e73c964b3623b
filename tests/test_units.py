"""Numbers as people read them."""

from __future__ import annotations

import pytest

from gristmill.units import counted, in_bytes, megabytes, on_axis, passes, scale, seconds


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (999, "999"), (1_631_872, "1.63M"), (2.6e6, "2.6M"), (1.1e13, "11T"), (999_700, "1M"), (-2e6, "-2M")],
)
def test_counts_have_three_digits_and_a_letter(value: float, words: str) -> None:
    assert scale(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (1_234_000, "1.234M"), (2e9, "2B"), (-1500, "-1.5k"), (0.25, "0.25"), (5e-4, "5e-04")],
)
def test_marks_of_an_axis_keep_their_digits(value: float, words: str) -> None:
    assert on_axis(value) == words


@pytest.mark.parametrize(("number", "words"), [(0, "0 items"), (1, "1 item"), (1200, "1,200 items")])
def test_what_is_counted_is_one_or_many(number: int, words: str) -> None:
    assert counted(number, "item") == words


@pytest.mark.parametrize(
    ("value", "words"), [(12, "12 s"), (90, "1.5 min"), (5400, "1.5 h"), (200_000, "2.3 days"), (1e10, "316.9 years")]
)
def test_durations_in_the_unit_a_person_would_use(value: float, words: str) -> None:
    assert seconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0 B"), (999.6, "1 kB"), (1.2e9, "1.2 GB"), (-3.5e6, "-3.5 MB"), (5e20, "500 EB")]
)
def test_bytes_have_one_prefix_and_one_unit(value: float, words: str) -> None:
    assert in_bytes(value) == words


def test_a_column_of_megabytes() -> None:
    assert [megabytes(value) for value in (0, 1_234_567, 2e9)] == ["0.00", "1.23", "2,000.00"]


@pytest.mark.parametrize(
    ("value", "words"), [(2.5, "2.5 passes"), (1, "1.0 passes"), (0.041, "0.041 passes"), (0.5, "0.5 passes")]
)
def test_a_part_of_a_pass_is_not_none(value: float, words: str) -> None:
    assert passes(value) == words
