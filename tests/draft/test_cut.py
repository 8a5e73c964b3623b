"""Enough is held out for an error bar, and no more than a small share of the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gristmill.cautions import FEWEST_FOR_MEAN, mean_half_width, what_a_mean_tells
from gristmill.commands.init_count import held_out
from gristmill.draft.folder import PASSAGE_CHARS, FolderSource
from gristmill.draft.held_out import FEWEST_CHARS, FEWEST_LONG_CHARS, passage_chars, validation_for
from gristmill.draft.size import SHAPES, Wish, shape_for


@given(num_bytes=st.integers(10_000, 10**9), least=st.sampled_from([FEWEST_CHARS, FEWEST_LONG_CHARS]))
def test_of_long_documents_thirty_passages_are_held_out_or_a_tenth_of_the_text(num_bytes: int, least: int) -> None:
    chars = passage_chars(num_bytes, least=least)
    assert least <= chars <= PASSAGE_CHARS
    passages = num_bytes / chars
    share = validation_for({"text": num_bytes}, {"text": passages}).fraction
    assert 0.02 <= share <= 0.1
    held = share * passages
    assert held >= 29 or (share == 0.1 and chars == least)
    if num_bytes > 30 * least / 0.05:
        assert share <= 0.06, "a twentieth is enough where there is that much"


def test_short_documents_hold_out_as_much_as_an_error_bar_takes() -> None:
    """Of a million documents two in a hundred; the source with the most text decides, not the one with the most documents."""
    assert validation_for({"rows": 1e9}, {"rows": 1e6}).fraction == 0.02
    assert validation_for({"rows": 1e5, "books": 1e7}, {"rows": 1e4, "books": 1000}).fraction == 0.03
    assert validation_for({"books": 1e6}, {"books": 50}).fraction == 0.1
    assert validation_for({"few": 400_000}, {"few": 10_000}).fraction == 0.05, "20 kB at least"
    assert validation_for({}, {}).fraction == 0.1


def test_replayed_text_does_not_decide_how_much_of_ones_own_is_held_out() -> None:
    own = FolderSource(name="own", kind="text", files=(), read={})
    general = FolderSource(name="general", kind="text", files=(), read={}, is_replayed=True)
    text_bytes, documents = {"own": 4e5, "general": 1e9}, {"own": 500.0, "general": 1e6}
    assert held_out([own, general], text_bytes, documents) == held_out([own], {"own": 4e5}, documents)
    assert held_out([own, general], text_bytes, documents).fraction == 0.06


@given(num_bytes=st.integers(100_000, 10**10))
def test_a_passage_holds_more_than_the_context_of_a_model_for_so_much_text(num_bytes: int) -> None:
    shape = shape_for(num_bytes, Wish())
    assert shape in SHAPES
    assert passage_chars(num_bytes) / 6 >= shape.seq_len


@given(count=st.integers(FEWEST_FOR_MEAN, 10**6))
def test_a_mean_is_as_sure_as_the_t_distribution_has_it(count: int) -> None:
    expected = stats.t.interval(0.95, count - 1, scale=count**-0.5)[1]
    assert mean_half_width(count) == pytest.approx(expected, rel=0.003)


def test_too_few_for_an_error_bar_have_none() -> None:
    assert what_a_mean_tells(4) == "fewer than 5 have no error bar of use"
    assert what_a_mean_tells(31).endswith("the mean over 31 is sure to ± 0.37 x, 95 times in 100")
