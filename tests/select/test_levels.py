"""Late sources: nothing that was decided before changes, and none of their training text resembles held-out text."""

from dataclasses import replace
from functools import cache

import numpy as np
import oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.recipe.schema.curation import NearDuplicates, Validation
from gristmill.select.catalogue import SourceRange, levels_of, survivor_ranks
from gristmill.select.duplicates import duplicate_rules
from gristmill.select.levels import (
    NEXT_SURVIVOR,
    RESEMBLANCE,
    RESEMBLES,
    TRAIN,
    VALIDATION,
    Duplicates,
    Members,
    Searches,
    Split,
    split_by_level,
)
from gristmill.select.resemblance import HeldOutTexts
from gristmill.select.rules import MIN_CONTAINMENT
from gristmill.select.sets import ngram_set, overlap
from gristmill.select.signatures import print_texts, text_hash
from gristmill.select.split import document_names

RULES = duplicate_rules(NearDuplicates())
SPLIT = Validation(fraction=0.3, min_bytes=1, max_bytes=10_000)
EARLY, LATE = ("web", "books"), ("later", "latest")


def select(corpus, *, rules, seed=0):
    """(source, text) → what became of it: its cluster and side, or why it left. Texts of a source are its ids as well."""
    late = [source for source in corpus if source in LATE]
    early = [source for source in corpus if source not in LATE]
    ranks, levels = survivor_ranks(EARLY, late, ["web"]), levels_of(early, late)
    rows = [(source, text) for source in (*early, *late) for text in corpus[source]]
    documents = [
        oracle.Document(id=text, source=source, text=text, priority=ranks[source], score=0.0, passed=True)
        for source, text in rows
    ]
    prints = print_texts([text.encode() for _, text in rows], bands=rules.bands, seed=seed)
    hashes = [text_hash(text.encode()) for _, text in rows]
    answer = oracle.find_duplicates(documents, prints.keys_DB.tolist(), hashes, rules)
    copies = {copy.document: copy.survivor for copy in answer.copies}
    count = len(rows)
    ranges, first = [], 0
    for source in (*early, *late):
        ranges.append(SourceRange(name=source, level=levels[source], first=first, end=first + len(corpus[source])))
        first = ranges[-1].end

    def resembling(first, end, side_D, held, sides):
        asked = [d for d in range(first, end) if side_D[d] in sides]
        found = HeldOutTexts([[(int(d), rows[d][1]) for d in held]], rules).find([(d, rows[d][1]) for d in asked])
        return np.array([(d, r.held, r.jaccard, r.containment) for d, r in sorted(found.items())], dtype=RESEMBLANCE)

    def again(first, side_D, freed):
        turns = [2 if d in freed else int(side_D[d] == TRAIN) for d in range(count)]
        some = [
            replace(one, passed=turn > 0, priority=one.priority + 99 * turn)
            for one, turn in zip(documents, turns, strict=True)
        ]
        found = oracle.find_duplicates(some, prints.keys_DB.tolist(), hashes, rules).copies
        rows = [(c.document, c.survivor, c.exact, c.jaccard, c.containment) for c in found if c.document in freed]
        return np.array(rows, NEXT_SURVIVOR)

    split = split_by_level(
        Members(
            sources=ranges,
            name_D=np.concatenate([document_names(source, [text]) for source, text in rows]),
            num_bytes_D=np.array([len(text) for _, text in rows], dtype=np.int64),
            kept_D=np.array([d not in copies for d in range(count)], dtype=bool),
        ),
        Duplicates(
            links_E2=np.array(answer.links, dtype=np.int64).reshape(-1, 2),
            document_C=np.array(sorted(copies), dtype=np.int64),
            survivor_C=np.array([copies[d] for d in sorted(copies)], dtype=np.int64),
        ),
        Split(
            cluster_D=np.zeros(count, np.int64),
            side_D=np.zeros(count, np.int8),
            resembling=np.empty(0, RESEMBLANCE),
            freed=np.empty(0, NEXT_SURVIVOR),
        ),
        rules=SPLIT,
        seed=seed,
        searches=Searches(resembling=resembling, again=again),
    )
    assert set(split.freed["document"].tolist()) <= copies.keys()
    copies |= {int(row["document"]): int(row["survivor"]) for row in split.freed}
    copies = {document: survivor for document, survivor in copies.items() if survivor >= 0}
    held_by = {int(row["document"]): int(row["held"]) for row in split.resembling}
    assert sorted(held_by) == np.flatnonzero(split.side_D == RESEMBLES).tolist()
    sides = {}
    for d, row in enumerate(rows):
        if d in copies:
            assert split.side_D[copies[d]] in (TRAIN, VALIDATION), "what it names is kept"
            sides[row] = ("copy", rows[copies[d]])
        elif d in held_by:
            assert split.side_D[held_by[d]] == VALIDATION
            assert d not in copies
            sides[row] = ("resembles", rows[held_by[d]])
        else:
            sides[row] = ("validation" if split.side_D[d] == VALIDATION else "train", int(split.cluster_D[d]))
    return sides


def sides_of(fates, sources):
    return {row: fate for row, fate in fates.items() if row[0] in sources}


ngrams = cache(ngram_set)


def resemble(one, other, rules):
    mine, theirs = ngrams(one, rules.ngram), ngrams(other, rules.ngram)
    jaccard, containment = overlap(mine, theirs)
    return jaccard >= rules.min_jaccard or max(containment, overlap(theirs, mine)[1]) >= MIN_CONTAINMENT


texts = st.lists(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=8, unique=True
)


corpora = st.tuples(texts, texts, texts, texts).map(lambda lists: dict(zip((*EARLY, *LATE), lists, strict=True)))


@given(
    corpora,
    st.sampled_from([(2, 1), (8, 2), (1, 4)]),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_a_late_source_changes_nothing_before_it_and_trains_on_nothing_that_resembles_validation(
    corpus, bands, remove_near, seed
):
    rules = replace(
        RULES, num_bands=bands[0], rows_per_band=bands[1], ngram=2, min_jaccard=0.5, remove_near=remove_near
    )
    alone = select({source: corpus[source] for source in EARLY}, rules=rules, seed=seed)
    with_one = select({source: corpus[source] for source in (*EARLY, "later")}, rules=rules, seed=seed)
    with_two = select(corpus, rules=rules, seed=seed)
    assert sides_of(with_one, EARLY) == alone
    assert sides_of(with_two, (*EARLY, "later")) == with_one
    held = [(row, cluster) for row, (side, cluster) in with_two.items() if side == "validation"]
    levels = levels_of(EARLY, LATE)
    for (source, text), (side, cluster) in with_two.items():
        if side == "train":
            assert cluster not in {theirs for (origin, _), theirs in held if levels[origin] <= levels[source]}
            assert not any(
                resemble(text, other, rules) for (origin, other), _ in held if levels[origin] <= levels[source]
            )
    names = {source: {fate[1] for row, fate in with_two.items() if row[0] == source} for source in corpus}
    own = {source: {cluster for row, cluster in held if row[0] == source} for source in LATE}
    assert own["later"].isdisjoint(names["web"] | names["books"])
    assert own["latest"].isdisjoint(names["web"] | names["books"] | names["later"])


@given(
    corpora,
    st.permutations((*EARLY, *LATE)).filter(lambda order: order.index("later") < order.index("latest")),
)
@settings(max_examples=20, deadline=None)
def test_where_late_sources_stand_among_the_others_does_not_matter(corpus, order):
    rules = replace(RULES, num_bands=8, rows_per_band=2, ngram=2, min_jaccard=0.5)
    straight, mixed = (select({s: corpus[s] for s in some}, rules=rules) for some in (corpus, order))
    for row, (fate, _) in straight.items():  # of several that a document resembles equally, the first is named
        assert mixed[row] == straight[row] if fate != "resembles" else mixed[row][0] == fate


def test_a_chain_of_copies_from_validation_text_goes_whole():
    rng = np.random.default_rng(5)
    rules = replace(RULES, remove_near=False, num_bands=64, rows_per_band=1)
    early = [words(rng, 100) for _ in range(20)]
    (held, *_) = [text for (_, text), (side, _) in select({"web": early}, rules=rules).items() if side == "validation"]
    chain = [held]
    for step in range(3):
        parts = chain[-1].split()
        parts[step * 12 : step * 12 + 12] = words(rng, 12).split()
        chain.append(" ".join(parts))
    assert not resemble(chain[0], chain[3], rules)
    fates = select({"web": early, "later": [*chain[1:], words(rng, 100)]}, rules=rules)
    assert [fates["later", text] for text in chain[1:]] == [("resembles", ("web", held))] * 3


def test_a_bridge_between_training_clusters_joins_one_of_them_and_leaves_both_as_they_are():
    rng = np.random.default_rng(6)
    rules = replace(RULES, num_bands=64, rows_per_band=1)
    early = [words(rng, 100) for _ in range(20)]
    before = select({"web": early}, rules=rules)
    one, other = [text for (_, text), (side, _) in before.items() if side == "train"][:2]
    after = select({"web": early, "later": [f"{one} {other}", words(rng, 100), words(rng, 100)]}, rules=rules)
    assert sides_of(after, EARLY) == before
    assert after["later", f"{one} {other}"] == ("train", min(before["web", one][1], before["web", other][1]))


def test_a_bridge_to_validation_text_takes_none_along_that_touch_its_other_end():
    rng = np.random.default_rng(7)
    rules = replace(RULES, remove_near=False, num_bands=64, rows_per_band=1)
    before = select({"web": [words(rng, 100) for _ in range(20)]}, rules=rules)
    sides = {side: text for (_, text), (side, _) in before.items()}
    bridge = f"{sides['train']} {sides['validation']}"
    near = f"{sides['train'].rsplit(maxsplit=14)[0]} {words(rng, 14)}"
    assert not resemble(near, bridge, rules)
    after = select({"web": [text for _, text in before], "later": [bridge, near, words(rng, 100)]}, rules=rules)
    assert after["later", bridge] == ("resembles", ("web", sides["validation"]))
    assert after["later", near] == before["web", sides["train"]]


def test_validation_text_of_a_late_source_is_none_that_touches_what_there_is():
    rng = np.random.default_rng(8)
    rules = replace(RULES, num_bands=64, rows_per_band=1)
    before = select({"web": [words(rng, 60) for _ in range(40)]}, rules=rules)
    around = [f"{text} {words(rng, 60)}" for (_, text), (side, _) in before.items() if side == "train"]
    own = [words(rng, 60) for _ in range(6)]
    after = select({"web": [text for _, text in before], "later": [*around, *own]}, rules=rules)
    assert {after["later", text][0] for text in around} == {"train"}
    assert {after["later", text][0] for text in own} == {"train", "validation"}


def words(rng, count):
    return " ".join(str(number) for number in rng.integers(0, 10**6, count))
