"""Held-out texts: what resembles one is found as by comparing every pair."""

from dataclasses import replace
from unittest import mock

import numpy as np
import oracle
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searched import quick_folder, write_corpus

from conftest import at_length
from gristmill.data.executor import InProcess
from gristmill.errors import Interrupted
from gristmill.recipe.schema.curation import NearDuplicates
from gristmill.select import resemblance
from gristmill.select.resemblance import HeldOutTexts, neighbours_of
from gristmill.select.rules import MIN_CONTAINMENT
from gristmill.select.select import duplicate_rules
from gristmill.select.sets import ngram_set, overlap

DEFAULT = duplicate_rules(NearDuplicates())
RULES = replace(DEFAULT, ngram=2, min_jaccard=0.5)
texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=30).map(" ".join), max_size=8)


def by_pairs(text, held, rules):
    """(Jaccard, containment either way) of each held-out text that the rule of deduplication calls alike."""
    mine, found = ngram_set(text, rules.ngram), {}
    for d, other in held:
        theirs = ngram_set(other, rules.ngram)
        jaccard, containment = overlap(mine, theirs)
        containment = max(containment, overlap(theirs, mine)[1])
        alike = jaccard >= rules.min_jaccard or containment >= MIN_CONTAINMENT
        if alike and oracle.same_order_of(text, other, rules):
            found[d] = (jaccard, containment)
    return found


@settings(max_examples=70, deadline=None)
@given(texts, texts)
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


test_the_closest_of_all_that_resemble_is_found_as_by_comparing_every_pair_at_length = at_length(
    test_the_closest_of_all_that_resemble_is_found_as_by_comparing_every_pair, given(texts, texts), max_examples=600
)


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


def asked_and_held(folder, documents, held):
    """Masks of a corpus in which all that is not held out is asked."""
    is_held = np.isin(np.arange(len(documents)), held)
    np.save(folder / "held.npy", is_held)
    np.save(folder / "asked.npy", ~is_held)
    return {"held": folder / "held.npy", "asked": folder / "asked.npy"}


def neighbours(corpus, folder, masks, **options):
    path = neighbours_of(corpus, **masks, rules=RULES, work=folder, executor=InProcess(), **options)
    return pq.read_table(path).to_pylist()


corpora = st.lists(st.lists(st.sampled_from("abcde"), max_size=9).map(" ".join), min_size=1, max_size=20)


@settings(max_examples=10, deadline=None)
@given(corpora, st.data())
def test_a_corpus_is_searched_as_every_pair_is_however_the_index_and_the_shards_are_cut(texts, data):
    documents = [oracle.Document(id=f"d{d}", source="web", text=text) for d, text in enumerate(texts)]
    held = data.draw(st.lists(st.integers(0, len(texts) - 1), unique=True), label="held")
    part_bytes, max_pairs, shard_size = (data.draw(st.integers(1, 60)) for _ in range(3))
    with quick_folder() as folder, mock.patch.object(resemblance, "MAX_PAIRS", max_pairs):
        corpus = write_corpus(folder, documents, rules=RULES, shard_size=shard_size)
        found = neighbours(corpus, folder, asked_and_held(folder, documents, held), part_bytes=part_bytes)
        assert {path.name for path in folder.glob("held*")} == {"held.npy"}
    expected = []
    for d in sorted(set(range(len(texts))) - set(held)):
        alike = by_pairs(texts[d], [(h, texts[h]) for h in held], RULES)
        if alike:
            closest = max(alike, key=lambda h: (*alike[h], -h))
            jaccard, containment = alike[closest]
            expected.append((d, closest, pytest.approx(jaccard), pytest.approx(containment)))
    assert [(row["document"], row["held"], row["jaccard"], row["containment"]) for row in found] == expected


test_a_corpus_is_searched_as_every_pair_is_however_the_index_and_the_shards_are_cut_at_length = at_length(
    test_a_corpus_is_searched_as_every_pair_is_however_the_index_and_the_shards_are_cut,
    given(corpora, st.data()),
    max_examples=75,
)


def test_a_killed_search_resumes_with_what_is_left(tmp_path):
    rng = np.random.default_rng(4)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 4, 12)) for _ in range(60)]
    documents = [oracle.Document(id=f"d{d}", source="web", text=text) for d, text in enumerate(texts)]
    corpus = write_corpus(tmp_path, documents, rules=RULES)
    masks = asked_and_held(tmp_path, documents, [3, 20, 41, 55])
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = neighbours(corpus, tmp_path / "whole", masks, part_bytes=80)
    stops = iter([False, False, False, False, True])
    with pytest.raises(Interrupted):
        neighbours_of(
            corpus, **masks, rules=RULES, work=tmp_path / "killed",
            executor=InProcess(should_stop=lambda: next(stops)), part_bytes=80,
        )  # fmt: skip
    assert (tmp_path / "killed" / "held-00001.bin").is_file()
    assert neighbours(corpus, tmp_path / "killed", masks, part_bytes=80) == whole
    assert whole
