"""The exact hash: of the text in one form, whatever lies beside it."""

from __future__ import annotations

import sys
import unicodedata

import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.select.exact import exact_hash, exact_hashes
from gristmill.select.words import folded, joined

SPACES = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]


TEXTS = st.lists(st.sampled_from([*SPACES, "a", "É", "Σ", "漢", "\u0301", "\ud800"]), max_size=40).map("".join)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_the_exact_hash_is_that_of_the_words_with_one_space_between(text: str) -> None:
    plain = " ".join(unicodedata.normalize("NFC", text).lower().split())
    high, low = exact_hash(text)
    assert (high << 64) + low == xxhash.xxh3_128_intdigest(plain.encode("utf-8", "surrogatepass"))


@given(st.lists(TEXTS, max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_text_has_the_same_hash_beside_others(texts: list[str]) -> None:
    hashes_D2 = exact_hashes(*joined([folded(text) for text in texts]))
    assert [tuple(row) for row in hashes_D2.tolist()] == [exact_hash(text) for text in texts]
