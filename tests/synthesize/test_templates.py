"""Chat data by rule: right by arithmetic, apart from what is held out, and a pure function of its arguments."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.align.pairs import judge_sum
from gristmill.synthesize.templates import (
    SUM_ANSWERS,
    SUM_QUESTIONS,
    Entry,
    definition_row,
    is_held_out_sum,
    parse_entry,
    pick_entries,
    small_sums,
    sum_id,
    sum_prompt,
    sum_rows,
    two_digit_sums,
)

terms = st.integers(0, 99)


@given(terms, terms, st.integers(1, 9), st.integers(0, 2**40))
def test_every_answer_of_every_wording_is_right(a: int, b: int, num_wordings: int, seed: int) -> None:
    rows = sum_rows(a, b, num_wordings=num_wordings, seed=seed)
    assert len(rows) == min(num_wordings, len(SUM_QUESTIONS))
    assert len({row.messages[0]["content"] for row in rows}) == len(rows)
    for row in rows:
        question, answer = row.messages
        assert re.findall("[0-9]+", question["content"]) == [str(a), str(b)]
        assert judge_sum(a, b, answer["content"])
        assert row.trained_item == sum_id(a, b)


def test_small_sums_are_all_hundred() -> None:
    assert len(set(small_sums(9))) == 100
    assert small_sums(0) == []


@settings(deadline=None, max_examples=7)
@given(st.sets(st.tuples(st.integers(10, 99), st.integers(10, 99)), max_size=50), st.integers(0, 2**40))
def test_two_digit_sums_leave_out_held_out_ones_and_their_mirrors(held: set[tuple[int, int]], seed: int) -> None:
    held_out = frozenset(sum_id(a, b) for a, b in held)
    found = two_digit_sums(8100, held_out=held_out, seed=seed)
    mirrored = held | {(b, a) for a, b in held}
    assert set(found) == {(a, b) for a in range(10, 100) for b in range(10, 100)} - mirrored
    assert len(found) == len(set(found)) == 8100 - len(mirrored)
    assert not any(is_held_out_sum(a, b, held_out) for a, b in found)


def test_more_sums_begin_with_the_same_sums() -> None:
    assert two_digit_sums(50, held_out=frozenset(), seed=3)[:20] == two_digit_sums(20, held_out=frozenset(), seed=3)
    assert two_digit_sums(20, held_out=frozenset(), seed=3) != two_digit_sums(20, held_out=frozenset(), seed=4)


def test_prompt_holds_the_question_alone() -> None:
    (message,) = sum_prompt(12, 34, seed=1)
    assert message["role"] == "user"
    assert "46" not in message["content"]


@pytest.mark.parametrize(
    ("text", "term", "definition"),
    [
        (
            "photosynthesis (noun): synthesis of compounds by plants; uses light",
            "photosynthesis",
            "synthesis of compounds by plants",
        ),
        ('able (adj): having the needed skill; "able to swim"', "able", "having the needed skill"),
        ("entity, thing (noun): that which is seen to exist\nmore", "entity", "that which is seen to exist"),
        ("plain: a word without its class", "plain", "a word without its class"),
    ],
)
def test_entry_is_read_from_the_first_line(text: str, term: str, definition: str) -> None:
    assert parse_entry("w/1", text) == Entry(id="w/1", term=term, definition=definition)


@pytest.mark.parametrize("text", ["", "no colon here", "x (noun): a b c d", "word (noun): short one", ":::", "a" * 500])
def test_what_is_no_entry_gives_none(text: str) -> None:
    assert parse_entry("w/1", text) is None


@given(st.text(max_size=300))
def test_any_text_gives_a_verdict(text: str) -> None:
    parse_entry("w/1", text)


def test_picked_entries_do_not_depend_on_the_order_and_have_one_entry_a_term() -> None:
    entries = [Entry(id=f"w/{number}", term=f"term{number % 30}", definition="some words here") for number in range(60)]
    picked = pick_entries(entries, 20, seed=5)
    assert picked == pick_entries(list(reversed(entries)), 20, seed=5)
    assert len({entry.term for entry in picked}) == 20


def test_definition_row_asks_for_the_term_and_answers_with_a_sentence() -> None:
    row = definition_row(Entry(id="w/7", term="grist", definition="grain that is to be milled"), seed=0)
    assert "grist" in row.messages[0]["content"]
    assert row.messages[1]["content"] == "Grain that is to be milled."
    assert row.trained_item == "w/7"


def test_all_wordings_are_met() -> None:
    rows = [row for a, b in small_sums(9) for row in sum_rows(a, b, num_wordings=2, seed=9)]
    questions = {re.sub("[0-9]+", "N", row.messages[0]["content"]) for row in rows}
    answers = {re.sub("[0-9]+", "N", row.messages[1]["content"]) for row in rows}
    assert (len(questions), len(answers)) == (len(SUM_QUESTIONS), len(SUM_ANSWERS))
