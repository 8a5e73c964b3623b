"""Deduplication on disk: as the oracle in memory, one survivor each, no order, nothing left for a second pass, no strangers merged."""

import dataclasses
import itertools

import networkx as nx
import numpy as np
import oracle
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from searched import expected, quick_folder, search, write_corpus

from gristmill.data.executor import LocalProcesses
from gristmill.errors import ArtifactError
from gristmill.recipe.schema.curation import NearDuplicates
from gristmill.select import dedup, order
from gristmill.select.components import components
from gristmill.select.dedup import SearchMemory
from gristmill.select.minhash import chance_found
from gristmill.select.rules import DuplicateRules
from gristmill.select.select import duplicate_rules
from gristmill.select.sets import ngram_set, num_shared, overlap

RULES = duplicate_rules(NearDuplicates())
PAIRS = DuplicateRules(num_bands=3, rows_per_band=1, ngram=2, min_jaccard=0.6, remove_near=True)
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prst"]


def sentence(rng, words):
    return " ".join(rng.choice(VOCABULARY, words))


def altered(text, rng, changes):
    words = text.split()
    for place in rng.choice(len(words), changes, replace=False):
        words[place] = f"x{rng.integers(10, 100)}"
    return " ".join(words)


def planted(seed, count=40, words=30, sources=("web", "books")):
    """Documents of few words in common: originals, exact copies, near copies, parts and wholes, templates, ones of few words
    in many orders, short and empty ones."""
    rng = np.random.default_rng(seed)
    frame = [f"f{n}" for n in range(words // 2)]
    texts = []
    for _ in range(count):
        fresh = [f"w{n}" for n in rng.integers(0, 40, rng.integers(0, words))]
        old = texts[rng.integers(len(texts))].split() if texts else fresh
        kind = rng.integers(7)
        if kind == 1:
            texts.append("  ".join(old).upper())
        elif kind == 2:
            for place in rng.integers(0, max(1, len(old)), rng.integers(1, 4)):
                old[place : place + 1] = [f"w{rng.integers(40)}"]
            texts.append(" ".join(old))
        elif kind == 3:
            texts.append(" ".join(old + fresh[:8]))
        elif kind == 4:
            texts.append(" ".join(frame + fresh[: words // 3]))
        elif kind == 5:
            texts.append(" ".join(rng.choice(["go", "on", "up"], rng.integers(1, 3 * words))))
        else:
            texts.append(" ".join(fresh))
    return [
        oracle.Document(
            id=f"d{rng.integers(count)}",
            source=sources[d * len(sources) // count],
            priority=d * len(sources) // count,
            score=float(rng.integers(3)),
            text=text,
            passed=bool(rng.random() < 0.9),
        )
        for d, text in enumerate(texts)
    ]


def documents_of(texts, **columns):
    """One source; other columns as lists."""
    return [
        oracle.Document(
            id=columns.get("ids", [f"d{i:03d}" for i in range(len(texts))])[d],
            source="web",
            text=text,
            priority=0,
            score=columns.get("score", [0.0] * len(texts))[d],
        )
        for d, text in enumerate(texts)
    ]


def deduplicate(documents, rules=RULES, *, keys=None, memory=None, executor=None, shard_size=7):
    """What the search finds; also checks that it is what the oracle finds."""
    with quick_folder() as folder:
        corpus = write_corpus(folder, documents, rules=rules, keys=keys, shard_size=shard_size)
        found = search(corpus, folder / "work", rules=rules, memory=memory, executor=executor)
        assert found == expected(corpus, documents, rules)
        assert {path.name for path in (folder / "work").iterdir()} == {
            "copies.parquet",
            "links.parquet",
            "duplicates.json",
        }
    return found


def one_bucket(texts, rules=RULES):
    """As deduplicate, with every document a candidate of every other: only verification can tell them apart."""
    return deduplicate(documents_of(texts), rules, keys=[[1] * rules.num_bands] * len(texts))


def survivors(found):
    return {copy.document: copy.survivor for copy in found.copies}


def clusters(found, count):
    return components(count, np.array(found.links, dtype=np.int64).reshape(-1, 2))


memories = st.builds(
    SearchMemory,
    worker_bytes=st.integers(4_000, 60_000),
    walk_bytes=st.sampled_from([0, 200, 10**6]),
    block_ngrams=st.integers(1, 300),
    window_ranks=st.integers(1, 50),
)
rule_sets = st.builds(
    DuplicateRules,
    num_bands=st.just(3),
    rows_per_band=st.just(1),
    ngram=st.sampled_from([1, 2]),
    min_jaccard=st.sampled_from([0.5, 0.6, 0.7]),
    remove_near=st.booleans(),
    max_comparisons=st.integers(1, 6),
    max_listed=st.integers(1, 8),
)


@given(st.integers(0, 10_000), st.integers(2, 60), rule_sets, memories, st.integers(4, 20))
@settings(max_examples=25, deadline=None)
def test_the_search_finds_what_the_oracle_finds_however_work_is_cut(seed, count, rules, memory, shard_size):
    deduplicate(planted(seed, count), rules, memory=memory, shard_size=shard_size)


@given(st.integers(0, 10_000), st.integers(2, 40), rule_sets, memories, st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_the_bands_say_the_search_finds_what_the_oracle_finds(seed, count, rules, memory, data):
    """Keys of few values: lists are full, documents have more candidates than are compared."""
    keys = [[data.draw(st.integers(0, 2)) for _ in range(rules.num_bands)] for _ in range(count)]
    found = deduplicate(planted(seed, count), rules, keys=keys, memory=memory)
    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(survivors(found).items())
    cluster_D = clusters(found, count)
    for component in nx.connected_components(graph):
        assert len({int(cluster_D[d]) for d in component}) == 1
        assert sum(d not in survivors(found) for d in component) == 1


def test_the_laws_reach_full_lists_and_more_candidates_than_are_compared():
    rules = dataclasses.replace(PAIRS, max_comparisons=2, max_listed=3)
    found = deduplicate(planted(1, 60), rules, keys=[[1, 1, d % 2] for d in range(60)])
    unlimited = deduplicate(planted(1, 60), PAIRS, keys=[[1, 1, d % 2] for d in range(60)])
    assert found.counts["capped"] > 10
    assert found.counts["compared_pairs"] < unlimited.counts["compared_pairs"] / 3
    assert found.copies != unlimited.copies


@pytest.mark.parametrize("remove_near", [True, False])
def test_many_documents_with_the_real_bands_are_found_as_by_the_oracle(remove_near):
    rng = np.random.default_rng(7)
    texts = [sentence(rng, int(rng.integers(60, 120))) for _ in range(120)]
    frame = sentence(rng, 70)
    texts += [altered(texts[rng.integers(120)], rng, int(rng.integers(0, 6))) for _ in range(120)]
    texts += [f"{frame} {sentence(rng, 20)}" for _ in range(60)]
    rules = dataclasses.replace(RULES, remove_near=remove_near, max_comparisons=5, max_listed=9)
    found = deduplicate(documents_of(texts), rules, shard_size=50, memory=SearchMemory(block_ngrams=2000))
    assert found.counts["links"] > 60
    assert found.counts["refused_pairs"] > 100


def test_processes_find_the_same_bytes(tmp_path, monkeypatch):
    documents = planted(5, 60)
    corpus = write_corpus(tmp_path, documents, rules=PAIRS, shard_size=30)
    memory = SearchMemory(window_ranks=16)
    search(corpus, tmp_path / "one", rules=PAIRS, memory=memory)
    monkeypatch.setattr(dedup, "MAX_IN_LINE", 0)
    search(corpus, tmp_path / "two", rules=PAIRS, memory=memory, executor=LocalProcesses(processes=2))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@given(st.integers(0, 10_000), st.randoms(use_true_random=False), st.integers(1, 30))
@settings(max_examples=10, deadline=None)
def test_order_does_not_matter(seed, random, shard_size):
    documents = [
        dataclasses.replace(d, id=f"d{n:03d}", priority=0, source="web") for n, d in enumerate(planted(seed, 40))
    ]
    mixed = random.sample(documents, len(documents))
    one, other = deduplicate(documents, PAIRS), deduplicate(mixed, PAIRS, shard_size=shard_size)
    assert {mixed[d].id: mixed[s].id for d, s in survivors(other).items()} == {
        documents[d].id: documents[s].id for d, s in survivors(one).items()
    }
    joined, joined_other = clusters(one, 40), clusters(other, 40)
    places = {document.id: place for place, document in enumerate(mixed)}
    for i, j in itertools.combinations(range(40), 2):
        same = joined_other[places[documents[i].id]] == joined_other[places[documents[j].id]]
        assert (joined[i] == joined[j]) == same


@pytest.mark.parametrize("seed", range(4))
def test_second_pass_removes_nothing(seed):
    documents = planted(seed, 60)
    first = survivors(deduplicate(documents, PAIRS))
    kept = [document for d, document in enumerate(documents) if d not in first and document.passed]
    assert len(kept) < sum(document.passed for document in documents)
    assert deduplicate(kept, PAIRS).copies == []


@pytest.mark.parametrize("seed", range(4))
def test_each_removed_document_names_a_kept_survivor_with_the_evidence(seed):
    documents = planted(seed, 60)
    found = deduplicate(documents, PAIRS)
    assert found.copies
    for copy in found.copies:
        assert copy.survivor not in survivors(found)
        if not copy.exact:
            mine, theirs = (ngram_set(documents[d].text, 2) for d in (copy.document, copy.survivor))
            assert overlap(mine, theirs) == (copy.jaccard, copy.containment)


@pytest.mark.parametrize("seed", range(4))
def test_a_late_source_changes_nothing_of_the_earlier_ones(seed):
    early = planted(seed, 40)
    late = [dataclasses.replace(d, source="late", priority=9, score=5.0) for d in planted(seed, 30)]
    before, after = deduplicate(early, PAIRS), deduplicate([*early, *late], PAIRS)
    assert [copy for copy in after.copies if copy.document < 40] == before.copies
    assert [link for link in after.links if link[0] < 40] == before.links
    assert any(copy.document >= 40 and copy.survivor < 40 for copy in after.copies)


def test_recall_lies_on_the_theory_curve_from_texts_to_copies():
    rng = np.random.default_rng(4)
    texts, chances = [], []
    for pair in range(400):
        words = [f"w{n}" for n in rng.integers(0, 10**6, 100)]
        copy = list(words)
        for place in rng.choice(100, 1 + pair % 4, replace=False):
            copy[place] = "other"
        one, other = (oracle.ngrams(" ".join(text), 5) for text in (words, copy))
        jaccard = len(one & other) / len(one | other)
        chances.append(chance_found(jaccard, num_bands=14, rows_per_band=8) if jaccard >= 0.7 else 0.0)
        texts += [" ".join(words), " ".join(copy)]
    with quick_folder() as folder:
        corpus = write_corpus(folder, documents_of(texts), rules=RULES, shard_size=300)
        found = search(corpus, folder / "work", rules=RULES)
    likely = np.array(chances)
    spread = np.sqrt((likely * (1 - likely)).sum())
    assert len(found.copies) == pytest.approx(likely.sum(), abs=4 * spread)
    assert likely.sum() < 399 - spread


def test_an_exact_copy_in_other_case_and_spacing_goes_and_names_its_survivor():
    found = deduplicate(documents_of(["Salt is  white.", "salt is white.", "salt is green."]))
    assert [(copy.document, copy.survivor, copy.exact) for copy in found.copies] == [(1, 0, True)]


def test_documents_that_differ_after_thousands_of_characters_are_no_exact_copies():
    rng = np.random.default_rng(0)
    beginning = sentence(rng, 1_300)
    assert len(beginning) > 5_000
    texts = [f"{beginning} {sentence(rng, 4_000)}" for _ in range(3)]
    assert deduplicate(documents_of([*texts, texts[1]])).copies == [
        oracle.Copy(document=3, survivor=1, exact=True, jaccard=1.0, containment=1.0)
    ]


def test_a_near_copy_goes_with_its_similarity_as_evidence():
    rng = np.random.default_rng(0)
    text = sentence(rng, 200)
    (copy,) = deduplicate(documents_of([text, altered(text, rng, 1)])).copies
    assert (copy.document, copy.survivor, copy.exact) == (1, 0, False)
    assert copy.jaccard == pytest.approx(191 / 201, abs=0.03)


@pytest.mark.parametrize(("shared", "goes"), [(14, True), (13, False)])
def test_the_limits_of_similarity_and_containment_are_inclusive(shared, goes):
    """14 of 20 words in common is Jaccard .7 to the last bit; 19 of 20 words that occur in a longer text are .95 of them."""
    rules = DuplicateRules(num_bands=1, rows_per_band=1, ngram=1, min_jaccard=0.7, remove_near=True)
    names = [f"w{n}" for n in range(200)]
    alike = documents_of([" ".join(names[:17]), " ".join([*names[:shared], *names[100 : 117 - shared]])])
    assert bool(deduplicate(alike, rules, keys=[[1], [1]]).copies) == goes
    part = [*names[: shared + 5], *names[150 : 165 - shared]]
    held = documents_of([" ".join(names[:100]), " ".join(part)], score=[1.0, 0.0])
    assert len(part) == 20
    assert bool(deduplicate(held, rules, keys=[[1], [1]]).copies) == goes


def test_a_document_that_is_a_little_longer_than_one_it_holds_is_no_copy_but_linked():
    rules = DuplicateRules(num_bands=1, rows_per_band=1, ngram=1, min_jaccard=0.97, remove_near=True)
    words = [f"w{n}" for n in range(40)]
    documents = documents_of([" ".join(words[:38]), " ".join(words)], score=[1.0, 0.0])
    found = deduplicate(documents, rules, keys=[[1], [1]])
    assert (found.copies, found.links) == ([], [(1, 0)])


def test_an_exact_copy_of_a_near_copy_is_a_near_copy_of_the_one_that_is_left():
    rng = np.random.default_rng(3)
    text = sentence(rng, 200)
    near = altered(text, rng, 1)
    copies = {copy.document: copy for copy in deduplicate(documents_of([text, near, near.upper()])).copies}
    assert [(copies[d].survivor, copies[d].exact) for d in (1, 2)] == [(0, False), (0, False)]
    assert copies[2].jaccard == copies[1].jaccard < 1


@pytest.mark.parametrize("remove_near", [True, False])
def test_a_survivor_that_a_longer_document_holds_shares_its_cluster_so_that_the_split_does_not_part_them(remove_near):
    rng = np.random.default_rng(2)
    text = sentence(rng, 200)
    longer = f"{sentence(rng, 100)} {text} {sentence(rng, 100)}"
    rules = dataclasses.replace(RULES, rows_per_band=1, remove_near=remove_near)
    found = deduplicate(documents_of([text, longer, sentence(rng, 200)], score=[2, 1, 0]), rules)
    assert found.copies == []
    assert clusters(found, 3).tolist() == [0, 0, 2]


def test_survivor_by_priority_then_score_then_length_then_id_then_the_hash_of_the_text():
    text = sentence(np.random.default_rng(1), 120)
    longer = text + " more words at the very end"
    rows = [
        ("b", 1, 5.0, longer),
        ("c", 0, 1.0, text),
        ("a", 0, 2.0, text),
        ("e", 0, 2.0, longer),
        ("d", 0, 2.0, longer),
    ]
    documents = sorted(
        (oracle.Document(id=i, source=f"s{p}", priority=p, score=s, text=t) for i, p, s, t in rows),
        key=lambda document: document.priority,
    )
    found = survivors(deduplicate(documents))
    assert {documents[d].id: documents[s].id for d, s in found.items()} == dict.fromkeys("bcae", "d")
    twins = documents_of([longer, longer.replace("end", "and")], ids=["same", "same"])
    for pair in (twins, twins[::-1]):
        (copy,) = deduplicate(pair).copies
        first = min((document.text for document in twins), key=lambda each: xxhash.xxh3_64_intdigest(each.encode()))
        assert pair[copy.survivor].text == first


def test_documents_of_one_template_stay_apart_for_verification_refuses_them():
    rng = np.random.default_rng(5)
    frame = sentence(rng, 60)
    found = one_bucket([f"{frame} {sentence(rng, 60)}" for _ in range(20)])
    assert found.copies == []
    assert found.counts["refused_pairs"] == 20 * 19 // 2


def test_a_chain_of_small_changes_does_not_join_its_ends():
    rng = np.random.default_rng(2)
    words = sentence(rng, 150).split()
    chain = [" ".join(words)]
    for step in range(5):
        words[step * 30 : step * 30 + 18] = sentence(rng, 18).split()
        chain.append(" ".join(words))
    documents = documents_of(chain, score=[6, 5, 4, 3, 2, 1])
    assert survivors(deduplicate(documents, keys=[[1] * 14] * 6)) == {1: 0, 3: 2, 5: 4}


def test_switched_off_near_copies_stay_but_share_a_cluster():
    rng = np.random.default_rng(3)
    text = sentence(rng, 100)
    texts = [text, altered(text, rng, 1), sentence(rng, 100), text]
    found = deduplicate(documents_of(texts, score=[3, 2, 1, 0]), dataclasses.replace(RULES, remove_near=False))
    assert list(survivors(found)) == [3]
    assert clusters(found, 4).tolist() == [0, 0, 2, 0]


def test_texts_below_one_ngram_are_never_near_copies():
    assert deduplicate(documents_of(["a b c d", "a b c e", "a, b, c d!"])).copies == []


def test_prints_of_another_number_of_bands_are_refused(tmp_path):
    corpus = write_corpus(tmp_path, documents_of(["a b c"]), rules=RULES)
    with pytest.raises(ArtifactError, match=r"prints-00000.parquet has keys of 14 bands, the rules ask for 3. Remake"):
        search(corpus, tmp_path / "work", rules=PAIRS)


def test_ranges_of_the_sort_follow_the_length_of_ids(tmp_path, monkeypatch):
    ranges = []
    sort = order.sort_corpus
    monkeypatch.setattr(
        order, "sort_corpus", lambda *a, num_ranges: ranges.append(num_ranges) or sort(*a, num_ranges=num_ranges)
    )
    for length in (10, 10_000):
        documents = documents_of(["a b c"] * 20, ids=[f"{n}".zfill(length) for n in range(20)])
        deduplicate(documents, memory=SearchMemory(worker_bytes=50_000))
    assert ranges[0] == 1
    assert 15 <= ranges[1] <= 18


def test_nothing_in_nothing_out():
    assert deduplicate([dataclasses.replace(d, passed=False) for d in documents_of(["a", "b"])]).copies == []
    assert deduplicate(documents_of([""])).copies == []


@given(st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_components_match_networkx(count, data):
    node = st.integers(0, count - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=60))
    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    labels = components(count, np.array(edges, dtype=np.int64).reshape(-1, 2))
    assert {d: int(labels[d]) for d in range(count)} == {
        d: min(component) for component in nx.connected_components(graph) for d in component
    }


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
@settings(max_examples=100, deadline=None)
def test_ngrams_in_common_are_those_of_both_sets(one, other):
    arrays = [np.array(sorted(each), dtype=np.uint64) for each in (one, other)]
    assert num_shared(*arrays) == len(one & other)
