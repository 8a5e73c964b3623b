"""Units of texts: where they are, when two are the same, and what is left of a text without some of them."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.select import units
from gristmill.select.units import num_words, unit_hashes, units_of, without

TEXTS = st.text(alphabet="ab \n\r\t\u00a0é", max_size=40)
KINDS = st.sampled_from(["paragraph", "line"])


def as_text(text, unit):
    return [text[first:end] for first, end in units_of(text, unit)]


def test_paragraphs_are_lines_without_a_blank_one_between_them_and_lines_are_those_that_are_not_blank():
    text = "\n a\nb \n \t\nc\r\n\r\nd\n"
    assert as_text(text, "paragraph") == [" a\nb ", "c\r", "d"]
    assert as_text(text, "line") == [" a", "b ", "c\r", "d"]
    assert units_of(" \n\n", "line") == units_of("", "paragraph") == []


@given(TEXTS, KINDS)
def test_only_blank_lines_lie_outside_of_units_and_no_unit_has_one(text, unit):
    spans = units_of(text, unit)
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    between = [text[first:end] for first, end in zip(edges[::2], edges[1::2], strict=True)]
    assert all(not gap.strip() for gap in between)
    assert all("\n" in gap for gap in between[1:-1])
    pattern = r"\n[^\S\n]*\n" if unit == "paragraph" else r"\n"
    assert all(text[first:end].strip() and not re.search(pattern, text[first:end]) for first, end in spans)


@given(TEXTS, KINDS, st.sets(st.integers(0, 9)))
def test_what_is_left_has_the_other_units_in_order_and_nothing_else(text, unit, gone):
    spans = units_of(text, unit)
    left = without(text, spans, gone)
    assert as_text(left, unit) == [one for number, one in enumerate(as_text(text, unit)) if number not in gone]
    assert (left == text) == (not gone & set(range(len(spans))))


def test_of_the_white_space_around_what_goes_the_larger_break_stays():
    text = "one\ntwo\n\nthree\nfour\n"
    spans = units_of(text, "line")
    assert without(text, spans, {1}) == "one\n\nthree\nfour\n"
    assert without(text, spans, {1, 2}) == "one\n\nfour\n"
    assert without(text, spans, {3}) == "one\ntwo\n\nthree"
    assert without(text, spans, {0, 1, 2, 3}) == ""


def test_units_are_the_same_by_their_words_alone():
    hashes_U2, words_U = unit_hashes(
        [
            "The  caf\u00e9, 7 steps.",
            "the CAFE\u0301\n7 (steps)",
            "the cafe 7 steps",
            "the café 8 steps",
            "café the 7 steps",
            "…!",
        ]
    )
    assert words_U.tolist() == [4, 4, 4, 4, 4, 0]
    assert hashes_U2[0].tolist() == hashes_U2[1].tolist()
    assert len({tuple(row) for row in hashes_U2.tolist()}) == 5


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_a_unit_has_the_same_hash_in_batches_of_any_size(monkeypatch, batch):
    found = [" ".join(f"w{n * k}" for n in range(k)) for k in range(1, 12)]
    hashes_U2, words_U = unit_hashes(found)
    monkeypatch.setattr(units, "BATCH_BYTES", batch)
    monkeypatch.setattr("gristmill.select.corpus.BATCH_BYTES", batch)
    again_U2, again_U = unit_hashes(found)
    np.testing.assert_array_equal(hashes_U2, again_U2)
    assert words_U.tolist() == again_U.tolist() == [num_words(one) for one in found]
