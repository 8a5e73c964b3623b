"""The validation split: clusters stay whole, sizes keep their bounds, order does not matter."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.recipe.schema.curation import Validation
from gristmill.select.split import MAX_SHARE, choose_validation, cluster_ids, split_report

RULES = Validation(fraction=0.1, min_bytes=500, max_bytes=3000)
documents = st.lists(
    st.tuples(st.integers(0, 15), st.sampled_from(["web", "code"]), st.integers(1, 400)), min_size=1, max_size=80
)


def split(rows, seed=0, rules=RULES):
    clusters, sources, sizes = zip(*rows, strict=True)
    return choose_validation(np.array(clusters), sources, np.array(sizes), rules=rules, seed=seed)


@given(documents, st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_no_cluster_is_on_both_sides(rows, seed):
    held = split(rows, seed)
    sides = {}
    for (cluster, _, _), side in zip(rows, held.tolist(), strict=True):
        assert sides.setdefault(cluster, side) == side


@given(documents, st.integers(0, 99), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_documents_does_not_matter(rows, seed, random):
    mixed = list(rows)
    random.shuffle(mixed)
    sides = dict(zip((row[0] for row in rows), split(rows, seed).tolist(), strict=True))
    assert split(mixed, seed).tolist() == [sides[row[0]] for row in mixed]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=300), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_one_source_gets_its_share_within_its_bounds(sizes, seed):
    rows = [(i, "web", size) for i, size in enumerate(sizes)]
    held = sum(size for size, side in zip(sizes, split(rows, seed).tolist(), strict=True) if side)
    most = min(RULES.max_bytes, MAX_SHARE * sum(sizes))
    assert held <= most
    wanted = max(RULES.fraction * sum(sizes), RULES.min_bytes)
    if wanted + max(sizes) <= most:
        assert wanted <= held < wanted + max(sizes)


def test_another_seed_holds_out_other_documents():
    rows = [(i, "web", 100) for i in range(200)]
    assert not np.array_equal(split(rows, 0), split(rows, 1))


def test_a_new_document_moves_no_other_where_the_fraction_decides():
    rows = [(i, "web", 1) for i in range(2000)]
    loose = Validation(fraction=0.1, min_bytes=1, max_bytes=10**9)
    before, after = split(rows, rules=loose), split([*rows, (5000, "web", 1)], rules=loose)[:-1]
    assert (before != after).sum() <= 1


def test_cluster_names_depend_on_members_alone():
    names = cluster_ids(np.array([0, 0, 2]), ["a", "b", "a"], ["x", "y", "z"])
    mixed = cluster_ids(np.array([0, 1, 1]), ["a", "b", "a"], ["z", "y", "x"])
    assert names.tolist() == [mixed[1], mixed[1], mixed[0]]
    assert names.min() >= 0


def test_the_report_says_when_held_out_text_is_too_little():
    report = split_report(np.array([True, False]), ["a", "a"], np.array([10, 90]), rules=RULES)
    assert report["a"]["validation"] == {"documents": 1, "bytes": 10}
    assert report["a"]["enough"] is False
