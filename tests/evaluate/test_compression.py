"""Laws of the yardstick: what was read before costs next to nothing, noise costs all its bits, limits are told."""

from __future__ import annotations

import lzma
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import DataError
from gristmill.evaluate.compression import LEAST_CUT_BYTES, PrimedXz, xz_size


def prose(seed: int, num_words: int) -> str:
    draw = random.Random(seed)
    words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9))) for _ in range(300)]
    return " ".join(draw.choices(words, k=num_words))


def test_held_out_text_that_repeats_the_training_text_costs_near_zero_bits() -> None:
    text = prose(1, 4000)
    primed = PrimedXz([prose(2, 4000), text, prose(3, 4000)])
    assert 0 <= primed.score([text]).value < 0.1
    assert primed.score([prose(4, 4000)]).value > 1.0


def test_a_repeat_is_found_across_the_whole_training_text() -> None:
    """The dictionary is as large as the text: a repeat from the far front costs no more than one from the end."""
    text = "".join(random.Random(5).choices(string.printable, k=20_000))
    filler = "".join(random.Random(6).choices(string.printable, k=1_100_000))
    assert PrimedXz([text, filler]).score([text]).value < 0.1


def test_random_bytes_cost_their_entropy() -> None:
    text = "".join(random.Random(6).choices(string.printable[:64], k=50_000))
    assert PrimedXz([prose(1, 2000)]).score([text]).value == pytest.approx(6.0, rel=0.03)


def test_without_training_text_it_is_plain_xz_of_the_held_out_text() -> None:
    text = prose(7, 5000)
    plain = 8 * len(lzma.compress(text.encode(), preset=9)) / len(text)
    assert PrimedXz([]).score([text]).value == pytest.approx(plain, rel=0.02)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=200), max_size=30), st.integers(min_value=0, max_value=3000))
def test_priming_never_takes_more_than_the_limit_and_says_what_it_took(texts: list[str], limit: int) -> None:
    primed = PrimedXz(texts, max_training_bytes=limit)
    assert primed.all_training_bytes == sum(len(text.encode()) for text in texts)
    assert primed.training_bytes <= limit
    assert primed.training_bytes == primed.all_training_bytes or primed.all_training_bytes > limit


def test_a_limit_leaves_out_documents_at_even_distances() -> None:
    primed = PrimedXz(["x" * 100] * 50, max_training_bytes=1000)
    assert primed.training_bytes == 1000
    assert xz_size(b"x" * 1000) < 200


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 400_000), min_size=1, max_size=6), st.integers(70_000, 300_000))
def test_long_documents_are_read_in_part_so_that_the_limit_is_used(sizes: list[int], limit: int) -> None:
    primed = PrimedXz(["x" * size for size in sizes], max_training_bytes=limit)
    assert min(sum(sizes), limit - LEAST_CUT_BYTES) <= primed.training_bytes <= limit


def test_nothing_held_out_is_an_error() -> None:
    with pytest.raises(DataError, match="2 documents"):
        PrimedXz(["text"]).score(["", ""])
