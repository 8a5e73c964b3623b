"""Forms of text that hide words, undone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.select.plain import NO_WIDTH, origin, plain
from gristmill.select.words import composed, split_words

LETTERS = st.text("abcdefgnrtuXYZéßжπ ", min_size=1, max_size=60)


def words_of(text):
    return split_words([plain(text)]).hashes_W.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exam-\nple", "example"),
        ("exam-\r\n   ple", "example"),
        ("from 3-\n4 and -\nx", "from 3-\n4 and -\nx"),
        ("a\u200bb\ufeffc\u00add", "abcd"),
        (r"one\ntwo\\nthree\tfour", "one two three four"),
        (r"caf\u00e9 \\u00e9", "café é"),
        (r"\ud83d\ude00 x", "😀 x"),
        (
            r"\nu \nabla \neq \theta \text{x} \times \rho \right) \to",
            r"\nu \nabla \neq \theta \text{x} \times \rho \right) \to",
        ),
        (r"C:\users \underline", r"C:\users \underline"),
    ],
)
def test_plain_text(text, expected):
    assert plain(text) == expected


@given(st.lists(LETTERS, min_size=1, max_size=5), st.integers(1, 3))
def test_json_and_its_json_have_the_words_of_the_text(lines, depth):
    text = escaped = "\n".join(f"The {line}" for line in lines)  # a line "ne" reads as the LaTeX command
    for _ in range(depth):
        escaped = json.dumps(escaped)
    assert words_of(escaped) == words_of(text)


@given(LETTERS, st.lists(st.integers(0, 60), max_size=10))
def test_characters_of_no_width_change_nothing(text, places):
    hidden = text
    for k, place in enumerate(places):
        hidden = hidden[:place] + NO_WIDTH[k % len(NO_WIDTH)] + hidden[place:]
    assert plain(hidden) == plain(text)


@given(
    st.lists(st.sampled_from(["a", "b-\nc", "\u200b", r"\n", r"\\t", r"\u00e9", "-", "\n", "é", "x y"]), max_size=30)
)
def test_every_character_is_where_origin_says(parts):
    text = "".join(parts)
    before = composed(text)
    for place, character in enumerate(plain(text)):
        there = before[origin(text, place)]
        assert there == character or (there == "\\" and character in " é")


@given(st.lists(st.sampled_from(["e\u200b\u0301", "x", "a\u200b", r"e\u0301"]), max_size=12))
def test_places_hold_where_letters_and_accents_come_together(parts):
    text = "".join([*parts, "|"])
    assert composed(text)[origin(text, plain(text).index("|"))] == "|"
    assert plain(text) == composed(plain(text))


@given(st.text(st.sampled_from("ab\\\\nu0d83e-\n\r \u200b\u0301é\ud83d\ude00가ᄀ"), max_size=40))
def test_any_text_has_a_plain_form_in_nfc_and_every_place_of_it_an_origin(text):
    origins = [origin(text, place) for place in range(len(plain(text)))]
    assert plain(text) == composed(plain(text))
    assert origins == sorted(origins)
    assert all(0 <= place < len(composed(text)) for place in origins)


def test_a_long_run_of_backslashes_is_read_once():
    """As in art made of characters; a search from each of them to the end of the run would take a minute."""
    assert plain("\\" * 200_000 + " x" + r"\n") == "\\" * 200_000 + " x "
