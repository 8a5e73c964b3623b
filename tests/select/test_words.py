"""Words: what separates, what stays, and that the batch has no influence."""

import sys
import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.select import words as w


def spelled(text):
    words = w.split_words([text])
    return [words.buffer[a:b].decode() for a, b in zip(words.starts_W, words.ends_W, strict=True)]


def test_case_and_punctuation_do_not_count_but_digits_do():
    assert spelled("The Cat's x=10, y=3.5!") == ["the", "cat", "s", "x", "10", "y", "3", "5"]


def test_curly_quotes_dashes_and_no_break_spaces_separate():
    assert spelled("“Don’t” — a\u00a0b…c") == ["don", "t", "a", "b", "c"]


def test_letters_beyond_ascii_are_lowered_and_stay_whole():
    assert spelled("ÉTÉ Ärger ПРИВЕТ") == ["été", "ärger", "привет"]


def test_scripts_without_spaces_give_one_word_a_character():
    assert spelled("ab漢字。xyかな ภา") == ["ab", "漢", "字", "xy", "か", "な", "ภ", "า"]


def test_equal_words_have_equal_hashes_wherever_they_stand():
    words = w.split_words(["cat dog cat", "a cat"])
    cat, dog, again = words.of(0)
    assert cat == again == words.of(1)[1]
    assert cat != dog


def test_lower_case_is_that_of_the_language_with_as_many_characters():
    others = []
    for code in range(sys.maxunicode + 1):
        lower = w.lowered(chr(code))
        assert len(lower) == 1
        if lower != chr(code).lower():
            others.append(code)
    assert others == [0x130]
    assert w.lowered("İİ X") == "ii x"


@given(st.lists(st.sampled_from(["ΟΔΟΣ", "Σ", "İstanbul", "İ", "ΝΌΜΟΣ.", "ΣΣ'Σ", "word"]), min_size=1, max_size=8))
def test_words_are_the_same_alone_and_beside_any_others(spelling):
    whole = w.split_words([" ".join(spelling)]).hashes_W.tolist()
    assert whole == [value for word in spelling for value in w.split_words([word]).hashes_W.tolist()]


@given(st.lists(st.text(), min_size=1, max_size=5))
@settings(max_examples=80, deadline=None)
def test_a_text_hashes_alike_alone_and_in_a_batch(texts):
    batch = w.split_words(texts)
    for d, text in enumerate(texts):
        assert np.array_equal(batch.of(d), w.split_words([text]).of(0))


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=1, max_size=4), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_ngrams_never_cross_texts_and_are_equal_exactly_when_their_words_are(texts, n):
    batch = w.split_words([" ".join(words) for words in texts])
    flat, offsets = w.ngrams_per_text(batch, n)
    seen = {}
    for d, words in enumerate(texts):
        mine = flat[offsets[d] : offsets[d + 1]]
        expected = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        assert len(mine) == len(expected)
        for value, gram in zip(mine.tolist(), expected, strict=True):
            assert seen.setdefault(value, gram) == gram
    assert len(set(seen)) == len(set(seen.values()))


@given(st.lists(st.text("ab", min_size=1, max_size=20) | st.text("ab", min_size=250, max_size=270), max_size=40))
@settings(max_examples=60, deadline=None)
def test_word_hashes_are_equal_exactly_when_the_words_are(words):
    hashes = w.split_words([" ".join(words)]).hashes_W.tolist()
    assert len(hashes) == len(words)
    assert len(set(hashes)) == len(set(words)) == len(set(zip(words, hashes, strict=True)))


@given(st.text(), st.text())
@settings(max_examples=60, deadline=None)
def test_spans_point_at_the_characters_of_the_words(before, after):
    text = unicodedata.normalize("NFC", f"{before} Needle {after}")
    words = w.split_words(["first text", text])
    place = words.of(1).tolist().index(w.split_words(["needle"]).of(0)[0])
    start, end = words.characters(1, place, place + 1)
    assert text[start:end].lower() == "needle"


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_text_has_the_same_words_composed_and_decomposed(text):
    one, other = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert w.split_words([one]).hashes_W.tolist() == w.split_words([other]).hashes_W.tolist()
    assert w.split_words([text]).hashes_W.tolist() == w.split_words([one]).hashes_W.tolist()


def test_positions_are_those_in_the_composed_text():
    text = unicodedata.normalize("NFD", "un éléphant à l'orée")
    words = w.split_words([text])
    start, end = words.characters(0, 3, 5)
    assert w.composed(text)[start:end] == "l'orée"


def mixed(value):
    """splitmix64 by the numbers of its paper, for one value."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


@given(st.lists(st.text("abé", min_size=1, max_size=30), max_size=12))
@settings(max_examples=60, deadline=None)
def test_word_hashes_are_those_of_a_plain_loop_over_eight_bytes_at_a_time(words):
    expected = []
    for word in map(str.encode, words):
        value = len(word)
        for first in range(0, len(word), 8):
            value = mixed(value ^ int.from_bytes(word[first : first + 8].rjust(8, b"\0"), "little"))
        expected.append(value)
    assert w.split_words([" ".join(words)]).hashes_W.tolist() == expected


@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.integers(1, 45))
@settings(max_examples=100, deadline=None)
def test_ngram_hashes_are_those_of_the_polynomial_in_the_words(words, n):
    expected = []
    for first in range(len(words) - n + 1):
        value = 0
        for word in words[first : first + n]:
            value = (value * 0x9E3779B97F4A7C15 + word) % 2**64
        expected.append(mixed(value))
    assert w.ngram_hashes(np.array(words, dtype=np.uint64), n).tolist() == expected


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_text_in_utf8_is_folded_as_the_text_is(text):
    assert w.folded_utf8(text.encode("utf-8", "surrogatepass")) == w.folded(text)


@given(st.text(st.characters(max_codepoint=0x7F), max_size=80))
@settings(max_examples=200, deadline=None)
def test_ascii_letters_and_digits_make_words_and_the_rest_of_ascii_parts_them(text):
    assert spelled(text) == "".join(each if each.isalnum() else " " for each in text).lower().split()
