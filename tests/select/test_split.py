"""The validation split: clusters stay whole, sizes keep their bounds, order does not matter."""

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.recipe.schema.curation import Validation
from gristmill.select import split as split_module
from gristmill.select.split import MAX_SHARE, choose_validation, document_names, split_report

RULES = Validation(fraction=0.1, min_bytes=500, max_bytes=3000)
documents = st.lists(
    st.tuples(st.integers(0, 15), st.sampled_from(["web", "code"]), st.integers(1, 400)), min_size=1, max_size=80
)


def split(rows, seed=0, rules=RULES, block=7):
    """Which rows are held out: those of the clusters that any source chooses."""
    clusters = np.array([cluster for cluster, _, _ in rows])
    chosen = [
        choose_validation(blocks_of(rows, source, block), rules=rules, seed=seed) for source in {s for _, s, _ in rows}
    ]
    return np.isin(clusters, np.concatenate(chosen))


def blocks_of(rows, source, block):
    """A source's documents, `block` at a time."""
    mine = [(cluster, size) for cluster, theirs, size in rows if theirs == source]

    def blocks():
        for first in range(0, len(mine), block):
            some = mine[first : first + block]
            yield np.array([cluster for cluster, _ in some]), np.array([size for _, size in some])

    return blocks


def walk_all(rows, source, rules, seed):
    """The rule in one pass over all clusters of a source, in the order of their hashes."""
    sizes = {}
    for cluster, theirs, size in rows:
        if theirs == source:
            sizes[cluster] = sizes.get(cluster, 0) + size
    most = min(rules.max_bytes, int(MAX_SHARE * sum(sizes.values())))
    wanted = min(max(rules.fraction * sum(sizes.values()), rules.min_bytes), most)
    taken, chosen = 0, []
    for cluster in sorted(sizes, key=lambda c: (xxhash.xxh3_64_intdigest(c.to_bytes(8, "little"), seed=seed), c)):
        if taken >= wanted:
            break
        if taken + sizes[cluster] <= most:
            chosen.append(cluster)
            taken += sizes[cluster]
    return sorted(chosen)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.just("web"), st.integers(1, 900)), min_size=1, max_size=400),
    st.integers(0, 99),
    st.integers(1, 50),
    st.sampled_from(
        [RULES, Validation(fraction=0.001, min_bytes=1, max_bytes=10**9), Validation(fraction=0.4, min_bytes=1)]
    ),
)
@settings(max_examples=80, deadline=None)
def test_blocks_and_the_bound_on_hashes_choose_what_a_walk_over_all_clusters_chooses(rows, seed, block, rules):
    chosen = choose_validation(blocks_of(rows, "web", block), rules=rules, seed=seed)
    assert chosen.tolist() == walk_all(rows, "web", rules, seed)


def test_few_clusters_are_collected_of_many(monkeypatch):
    """What is held is about what is chosen, not what there is."""
    rows = [(k * 7919, "web", 100) for k in range(50_000)]
    held = []
    ranked = split_module._ranked
    monkeypatch.setattr(split_module, "_ranked", lambda *a, **k: held.append(ranked(*a, **k)) or held[-1])
    rules = Validation(fraction=0.01, min_bytes=1)
    chosen = choose_validation(blocks_of(rows, "web", 4096), rules=rules, seed=1)
    assert len(chosen) == 500
    assert max(map(len, held)) < 1500


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


def test_a_document_s_name_is_of_its_source_and_id():
    names = [*document_names("a", ["x", "y"]), *document_names("b", ["x"])]
    assert len({*names}) == 3
    assert min(names) >= 0
    assert document_names("a", ["y"]) == [names[1]]


def test_the_report_says_when_held_out_text_is_too_little():
    report = split_report({"a": {"train": (1, 90), "validation": (1, 10)}}, {"a": 0.25}, rules=RULES)
    assert report["a"]["validation"] == {"documents": 1, "bytes": 10}
    assert report["a"]["enough"] is False
