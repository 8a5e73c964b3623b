"""Held-out texts: what resembles one is found as by comparing every pair."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.recipe.schema.curation import NearDuplicates
from gristmill.select.resemblance import HeldOutTexts
from gristmill.select.rules import MIN_CONTAINMENT
from gristmill.select.select import duplicate_rules
from gristmill.select.sets import ngram_set, overlap

DEFAULT = duplicate_rules(NearDuplicates())
RULES = replace(DEFAULT, ngram=2, min_jaccard=0.5)
texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join), max_size=8)


def by_pairs(text, held, rules):
    """(containment either way, Jaccard) of each held-out text that the rule of deduplication calls alike."""
    mine, found = ngram_set(text, rules.ngram), {}
    for d, other in held:
        theirs = ngram_set(other, rules.ngram)
        jaccard, containment = overlap(mine, theirs)
        containment = max(containment, overlap(theirs, mine)[1])
        if jaccard >= rules.min_jaccard or containment >= MIN_CONTAINMENT:
            found[d] = (jaccard, containment)
    return found


@given(texts, texts)
@settings(max_examples=200, deadline=None)
def test_the_closest_of_all_that_resemble_is_found_as_by_comparing_every_pair(held, others):
    held, others = list(enumerate(held, start=100)), list(enumerate(others))
    index = HeldOutTexts([held[:3], held[3:]], RULES)
    found = index.find(others)
    for d, text in others:
        alike = by_pairs(text, held, RULES)
        assert (d in found) == bool(alike)
        if alike:
            one = found[d]
            assert (one.jaccard, one.containment) == pytest.approx(alike[one.held])
            assert one.jaccard == pytest.approx(max(jaccard for jaccard, _ in alike.values()))


def test_a_short_text_is_found_inside_a_long_one_and_around_it():
    rng = np.random.default_rng(0)
    words = [str(number) for number in rng.integers(0, 10**9, 1000)]
    short, long = " ".join(words[500:520]), " ".join(words)
    rules = DEFAULT
    for one, other in ((short, long), (long, short)):
        assert (
            HeldOutTexts([[(7, one)]], rules)
            .find([(0, other), (1, "other words, but as many as an n-gram has")])[0]
            .held
            == 7
        )
