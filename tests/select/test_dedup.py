"""Deduplication: one survivor each, no order, nothing left for a second pass, no strangers merged."""

import dataclasses
import itertools
import tracemalloc

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.recipe.schema.curation import NearDuplicates
from gristmill.select import dedup
from gristmill.select.in_memory import Fingerprints, Keys, find_duplicates, fingerprint_texts
from gristmill.select.select import duplicate_rules
from gristmill.select.sets import ngram_set

RULES = duplicate_rules(NearDuplicates())
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prst"]


def sentence(rng, words):
    return " ".join(rng.choice(VOCABULARY, words))


def altered(text, rng, changes):
    words = text.split()
    for place in rng.choice(len(words), changes, replace=False):
        words[place] = f"x{rng.integers(10, 100)}"
    return " ".join(words)


def keys_of(texts, **columns):
    count = len(texts)
    return Keys(
        ids=columns.get("ids", [f"d{i:03d}" for i in range(count)]),
        sources=columns.get("sources", ["web"] * count),
        priority_D=np.array(columns.get("priority", [0] * count)),
        score_D=np.array(columns.get("score", [0.0] * count), dtype=np.float32),
        num_bytes_D=np.array([len(text.encode()) for text in texts], dtype=np.int64),
    )


def deduplicate(texts, rules=RULES, **columns):
    prints = fingerprint_texts(texts, rules=rules, seed=1)
    return find_duplicates(
        prints,
        keys_of(texts, **columns),
        rules=rules,
        ngrams_of=lambda wanted: {int(d): ngram_set(texts[d], rules.ngram) for d in wanted},
    )


def clusters(found, texts):
    return dedup.components(len(texts), found.links_E2)


def one_bucket(texts):
    """As deduplicate, with every document a candidate of every other: only verification can tell them apart."""
    prints = fingerprint_texts(texts, rules=RULES, seed=1)
    same = dataclasses.replace(prints, keys_DB=np.ones_like(prints.keys_DB))
    return find_duplicates(
        same,
        keys_of(texts),
        rules=RULES,
        ngrams_of=lambda wanted: {int(d): ngram_set(texts[d], RULES.ngram) for d in wanted},
    )


def corpus(seed):
    """Some originals, exact copies, near copies, chains of changes, short texts."""
    rng = np.random.default_rng(seed)
    texts = [sentence(rng, int(rng.integers(40, 90))) for _ in range(8)]
    for _ in range(20):
        texts.append(altered(texts[rng.integers(len(texts))], rng, int(rng.integers(0, 4))))
    return [*texts, "one two", "One  two", "", " "]


def test_an_exact_copy_in_other_case_and_spacing_goes_and_names_its_survivor():
    found = deduplicate(["Salt is  white.", "salt is white.", "salt is green."])
    assert list(found.copies) == [1]
    assert (found.copies[1].survivor, found.copies[1].exact) == (0, True)


def test_a_near_copy_goes_with_its_similarity_as_evidence():
    rng = np.random.default_rng(0)
    text = sentence(rng, 200)
    copy = deduplicate([text, altered(text, rng, 1)]).copies[1]
    assert copy.survivor == 0
    assert copy.jaccard == pytest.approx(191 / 201, abs=0.03)
    assert not copy.exact


def test_an_exact_copy_of_a_near_copy_is_a_near_copy_of_the_one_that_is_left():
    rng = np.random.default_rng(3)
    text = sentence(rng, 200)
    near = altered(text, rng, 1)
    copies = deduplicate([text, near, near.upper()]).copies
    assert [(copies[d].survivor, copies[d].exact) for d in (1, 2)] == [(0, False), (0, False)]
    assert copies[2].jaccard == copies[1].jaccard < 1


@pytest.mark.parametrize("remove_near", [True, False])
def test_a_survivor_that_a_longer_document_holds_shares_its_cluster_so_that_the_split_does_not_part_them(remove_near):
    rng = np.random.default_rng(2)
    text = sentence(rng, 200)
    longer = f"{sentence(rng, 100)} {text} {sentence(rng, 100)}"
    rules = dataclasses.replace(RULES, rows_per_band=1, remove_near=remove_near)
    found = deduplicate([text, longer, sentence(rng, 200)], rules, priority=[0, 1, 2])
    assert found.copies == {}
    assert clusters(found, [text, longer, text]).tolist() == [0, 0, 2]


def test_survivor_by_priority_then_score_then_length_then_id():
    text = sentence(np.random.default_rng(1), 120)
    longer = text + " more words at the very end"
    order = [
        ("b", 1, 5.0, longer),
        ("c", 0, 1.0, text),
        ("a", 0, 2.0, text),
        ("e", 0, 2.0, longer),
        ("d", 0, 2.0, longer),
    ]
    ids, priority, score, texts = zip(*order, strict=True)
    found = deduplicate(list(texts), ids=list(ids), priority=priority, score=score)
    assert {ids[d]: ids[copy.survivor] for d, copy in found.copies.items()} == dict.fromkeys("bcae", "d")


def test_one_very_long_id_does_not_cost_its_length_for_every_document():
    ids = [f"d{i:04d}" for i in range(1999)] + ["d" + "x" * 20_000]
    keys = keys_of(["text"] * len(ids), ids=ids[::-1])
    tracemalloc.start()
    order = keys.order()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [ids[::-1][d] for d in order.tolist()] == sorted(ids)
    assert peak < 10_000_000


@pytest.mark.parametrize("seed", range(6))
def test_second_pass_removes_nothing(seed):
    texts = corpus(seed)
    first = deduplicate(texts)
    kept = [d for d in range(len(texts)) if d not in first.copies]
    assert len(kept) < len(texts)
    second = deduplicate([texts[d] for d in kept], ids=[f"d{d:03d}" for d in kept])
    assert second.copies == {}


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_order_does_not_matter(seed, random):
    texts = corpus(seed)
    names = [f"d{i:03d}" for i in range(len(texts))]
    places = list(range(len(texts)))
    random.shuffle(places)
    straight = deduplicate(texts, ids=names)
    mixed = deduplicate([texts[p] for p in places], ids=[names[p] for p in places])
    expected = {names[d]: names[copy.survivor] for d, copy in straight.copies.items()}
    assert {names[places[d]]: names[places[c.survivor]] for d, c in mixed.copies.items()} == expected
    one, other = clusters(straight, texts), clusters(mixed, texts)
    for i, j in itertools.combinations(range(len(texts)), 2):
        assert (one[places[i]] == one[places[j]]) == (other[i] == other[j])


@given(st.integers(2, 30), st.data())
@settings(max_examples=60, deadline=None)
def test_each_removed_document_is_a_copy_of_one_that_stays_and_clusters_are_components(count, data):
    """On random graphs: documents are copies when their sets overlap, whatever the bands say."""
    members = st.sets(st.integers(0, 12), min_size=1, max_size=6)
    sets = [np.array(sorted(data.draw(members)), dtype=np.uint64) for _ in range(count)]
    bands = np.array([[data.draw(st.integers(0, 3)) for _ in range(2)] for _ in range(count)], dtype=np.uint64)
    prints = Fingerprints(
        exact_D2=np.array([[0, data.draw(st.integers(0, count))] for _ in range(count)], dtype=np.uint64),
        keys_DB=bands,
        num_ngrams_D=np.array([len(members) for members in sets]),
    )
    found = find_duplicates(
        prints, keys_of(["x"] * count), rules=RULES, ngrams_of=lambda wanted: {int(d): sets[d] for d in wanted}
    )
    cluster_D = clusters(found, sets)
    edges = [(d, copy.survivor) for d, copy in found.copies.items()]
    assert all(survivor not in found.copies for _, survivor in edges)
    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    for component in nx.connected_components(graph):
        assert len({int(cluster_D[d]) for d in component}) == 1
        assert sum(d not in found.copies for d in component) == 1


@given(st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_components_match_networkx(count, data):
    node = st.integers(0, count - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=60))
    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    labels = dedup.components(count, np.array(edges, dtype=np.int64).reshape(-1, 2))
    assert {d: int(labels[d]) for d in range(count)} == {
        d: min(component) for component in nx.connected_components(graph) for d in component
    }


def test_documents_of_one_template_stay_apart_for_verification_refuses_them():
    rng = np.random.default_rng(5)
    frame = sentence(rng, 60)
    texts = [f"{frame} {sentence(rng, 60)}" for _ in range(20)]
    found = one_bucket(texts)
    assert found.copies == {}
    assert found.num_refused == 20 * 19 // 2


def test_a_chain_of_small_changes_does_not_join_its_ends():
    rng = np.random.default_rng(2)
    words = sentence(rng, 150).split()
    chain = [" ".join(words)]
    for step in range(5):
        words[step * 30 : step * 30 + 18] = sentence(rng, 18).split()
        chain.append(" ".join(words))
    found = one_bucket(chain)
    assert {d: copy.survivor for d, copy in found.copies.items()} == {1: 0, 3: 2, 5: 4}


def test_a_short_text_contained_in_a_longer_one_goes_when_it_is_a_candidate():
    mine = np.arange(40, dtype=np.uint64)
    theirs = np.arange(100, dtype=np.uint64)
    prints = Fingerprints(
        exact_D2=np.array([[0, 0], [0, 1]], dtype=np.uint64),
        keys_DB=np.ones((2, 1), dtype=np.uint64),
        num_ngrams_D=np.array([100, 40]),
    )
    found = find_duplicates(prints, keys_of(["long", "s"]), rules=RULES, ngrams_of=lambda _: {0: theirs, 1: mine})
    assert found.copies[1].containment == 1.0
    assert found.copies[1].jaccard == pytest.approx(0.4)


def test_switched_off_near_copies_stay_but_share_a_cluster():
    rng = np.random.default_rng(3)
    text = sentence(rng, 100)
    texts = [text, altered(text, rng, 1), sentence(rng, 100), text]
    found = deduplicate(texts, rules=dataclasses.replace(RULES, remove_near=False))
    assert list(found.copies) == [3]
    assert clusters(found, texts).tolist() == [0, 0, 2, 0]


def test_texts_below_one_ngram_are_never_near_copies():
    assert deduplicate(["a b c d", "a b c e", "a, b, c d!"]).copies == {}


def test_nothing_in_nothing_out():
    assert deduplicate([]).copies == {}
