"""The fast measures equal the plain definitions, written out."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.extract.english_words import english_words
from gristmill.extract.measures import Measures

TEXTS = st.lists(st.sampled_from(["a", "b", "cc", "d.", "3.14", "don't", "...", "\n"]), max_size=60).map(" ".join)


@given(TEXTS, st.integers(2, 4))
@settings(deadline=None)
def test_top_ngram_share_by_its_definition(text: str, n: int) -> None:
    tokens = english_words(text)
    grams = [" ".join(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]
    expected = 0.0
    if grams:
        gram, count = Counter(grams).most_common(1)[0]
        expected = len(gram) * count / len(text)
    assert Measures(text).top_ngram_share(n) == pytest.approx(expected)


@given(TEXTS, st.integers(5, 10))
@settings(deadline=None)
def test_duplicated_ngram_share_by_its_definition(text: str, n: int) -> None:
    tokens = english_words(text)
    seen: set[tuple[str, ...]] = set()
    characters = place = 0
    while place + n <= len(tokens):
        gram = tuple(tokens[place : place + n])
        if gram in seen:
            characters += len("".join(gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    assert Measures(text).duplicated_ngram_share(n) == pytest.approx(characters / max(1, len(text)))


def test_tokens_and_words_of_a_sentence() -> None:
    measures = Measures('"Don\'t," she said... 3.14 is π_1! ___')
    tokens = ['"', "Do", "n't", ",", '"', "she", "said", "...", "3.14", "is", "π_1", "!", "_", "_", "_"]
    assert measures.num_tokens == len(tokens)
    assert measures.num_words == 7
    assert measures.mean_word_length == pytest.approx((2 + 3 + 3 + 4 + 4 + 2 + 3) / 7)
    assert measures.share_with_letter == pytest.approx(6 / 15)


def test_tokens_may_be_cut_by_another() -> None:
    assert Measures("a-b c", str.split).num_tokens == 2


def test_nothing_is_measured_as_zero() -> None:
    empty = Measures("")
    assert (empty.num_tokens, empty.num_words, empty.mean_word_length, empty.share_with_letter) == (0, 0, 0.0, 0.0)
    assert (empty.top_ngram_share(2), empty.duplicated_ngram_share(5), empty.repeated_line_share) == (0.0, 0.0, 0.0)
