"""Units that occur again: who loses which, against a plain walk over the documents in the order of survivors."""

import re
from collections import Counter, defaultdict

import numpy as np
import oracle
import pytest
import shapes
from hypothesis import given, settings
from hypothesis import strategies as st
from searched import quick_folder, write_corpus

from gristmill.data.executor import InProcess, LocalProcesses
from gristmill.errors import Interrupted
from gristmill.recipe.schema.curation import NearDuplicates
from gristmill.select import repeated
from gristmill.select.corpus import PrintedShard, corpus_of
from gristmill.select.repeated import RepeatedRules, disk_bytes, find_repeated
from gristmill.select.select import duplicate_rules
from gristmill.select.signatures import text_hash
from gristmill.select.stages import Stage

SIGNED = duplicate_rules(NearDuplicates())
LEVELS = (0, 0, 1, 2)  # of the sources a, b, c, d; the last two are late
TINY = 20_000  # bytes of a worker: many ranges
RULES = RepeatedRules(unit="line", min_words=2, min_documents=2)


def find(folder, documents, held, *, rules=RULES, worker_bytes=TINY, executor=None, shard_size=4, work="work"):
    """(document, unit) → the document that keeps it, and whether that is held out; then the same as files."""
    if not (folder / "held.npy").is_file():
        write_corpus(folder, documents, rules=SIGNED, shard_size=shard_size)
        np.save(folder / "held.npy", np.array(held, dtype=bool))
    corpus = opened(folder, documents, shard_size)
    (folder / work).mkdir(exist_ok=True)
    stage = Stage(
        folder=folder / work,
        texts=executor or InProcess(),
        columns=executor or InProcess(),
        array_bytes=TINY,
        should_stop=lambda: False,
        say=lambda _: None,
    )
    levels = [LEVELS["abcd".index(shard.source)] for shard in corpus.shards]
    found = find_repeated(
        stage, corpus, rules=rules, level_S=levels, held=folder / "held.npy", worker_bytes=worker_bytes
    )
    lost = {}
    for k, first in enumerate(corpus.firsts_S1[:-1].tolist()):
        for row, unit, owner, is_held in found.lost_by(k).tolist():
            lost[first + row, unit] = owner, is_held
    return lost, found


def opened(folder, documents, shard_size):
    """The corpus that lies there."""
    sources, priorities = [], {}
    for d in documents:
        priorities[d.source] = d.priority
    for source in dict.fromkeys(d.source for d in documents):
        mine = sum(d.source == source for d in documents)
        sources += [source] * -(-mine // shard_size)
    paths = sorted(folder.glob("documents-*.parquet"))
    shards = [
        PrintedShard(
            documents=path,
            prints=path.with_name(path.name.replace("documents", "prints")),
            source=source,
            priority=priorities[source],
        )
        for path, source in zip(paths, sources, strict=True)
    ]
    return corpus_of(shards, turns=folder / "passed.npy", scores=folder / "scores.npy")


def walked(documents, held, rules):
    """The rule in plain loops."""
    passed = [d for d, document in enumerate(documents) if document.passed]
    order = sorted(passed, key=lambda d: oracle._sort_key(documents[d], text_hash(documents[d].text.encode())))
    has = defaultdict(list)
    for d in order:
        for unit in dict.fromkeys(units_in(documents[d].text, rules)):
            has[unit].append(d)
    lost = {}
    for d in order:
        for number, unit in enumerate(units_in(documents[d].text, rules)):
            before = [other for other in has[unit] if level(documents[other]) <= level(documents[d])]
            held_before = [other for other in before if held[other]]
            trained = [other for other in before if not held[other]]
            if held[d] or len(unit) < rules.min_words:
                continue
            if held_before:
                lost[d, number] = held_before[0], True
            elif trained[0] != d and len(before) >= rules.min_documents:
                lost[d, number] = trained[0], False
    return lost


def units_in(text, rules):
    """The words of each unit."""
    cut = text.split("\n") if rules.unit == "line" else re.split(r"\n\s*\n", text)
    return [tuple(re.findall("[a-z0-9]+", unit.lower())) for unit in cut if unit.strip()]


def level(document):
    return LEVELS["abcd".index(document.source)]


LINES = st.sampled_from(["", "one", "one two", "One, two!", "two one", "a b c", "a  B c", "four words in it", " "])
DOCUMENT = st.tuples(
    st.sampled_from("abcd"),
    st.lists(LINES, min_size=1, max_size=7).map("\n".join),
    st.sampled_from([0.0, 0.0, 1.5]),
    st.sampled_from([False, False, False, True]),  # held out
    st.sampled_from([True, True, True, False]),  # kept
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(DOCUMENT, min_size=1, max_size=16),
    st.sampled_from(["paragraph", "line"]),
    st.integers(2, 4),
    st.integers(2, 4),
    st.sampled_from([5_000, TINY, 10**9]),
)
def test_what_goes_and_who_keeps_it_is_what_a_plain_walk_says(rows, unit, min_words, min_documents, worker_bytes):
    rows.sort(key=lambda row: row[0])
    documents = [
        oracle.Document(id=f"d{n % 5}-{n}", source=of, text=text, priority="abcd".index(of), score=score, passed=passed)
        for n, (of, text, score, _, passed) in enumerate(rows)
    ]
    held = [row[3] and row[4] for row in rows]
    rules = RepeatedRules(unit=unit, min_words=min_words, min_documents=min_documents)
    with quick_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeated, "SUMMED_ROWS", 3)
        lost, found = find(folder, documents, held, rules=rules, worker_bytes=worker_bytes)
        expected = walked(documents, held, rules)
        assert lost == expected
        assert found.owners.tolist() == sorted({owner for owner, _ in expected.values()})
        by_unit = Counter((unit_of(documents, d, n, rules)) for d, n in first_of_each(documents, expected, rules))
        assert found.most_frequent["lost"].tolist() == sorted(by_unit.values(), reverse=True)[: repeated.MOST_FREQUENT]


@pytest.mark.parametrize("half", [0, 1])
def test_units_are_the_same_only_where_both_halves_of_their_hashes_are(half, monkeypatch):
    real = repeated.unit_hashes

    def with_a_constant_half(units, *, min_words):
        hashes_U2, words_U = real(units, min_words=min_words)
        hashes_U2[:, half] = 7
        return hashes_U2, words_U

    monkeypatch.setattr(repeated, "unit_hashes", with_a_constant_half)
    documents, held = corpus(5, 60)
    with quick_folder() as folder:
        assert find(folder, documents, held)[0] == walked(documents, held, RULES)


def first_of_each(documents, lost, rules):
    """Of what a document loses twice the first."""
    once = {}
    for d, number in sorted(lost):
        once.setdefault((d, unit_of(documents, d, number, rules)), (d, number))
    return once.values()


def unit_of(documents, d, number, rules):
    return units_in(documents[d].text, rules)[number]


def corpus(seed, count):
    """Documents of a few shared lines and some of their own."""
    rng = np.random.default_rng(seed)
    shared = [f"shared line {n} with a few more words" for n in range(count // 10)]
    rows = []
    for n in range(count):
        lines = [shared[int(rng.integers(len(shared)))] for _ in range(3)] + [
            f"own line {n} {k} of this one" for k in range(3)
        ]
        rows.append(oracle.Document(id=f"d{n}", source="a", text="\n".join(lines)))
    return rows, (rng.random(count) < 0.05).tolist()


def test_the_number_of_processes_and_of_ranges_changes_no_byte_of_what_is_found():
    documents, held = corpus(3, 120)
    with quick_folder() as folder:
        few = {"shard_size": 60, "worker_bytes": 300_000}
        lost, one = find(folder, documents, held, **few)
        again, two = find(folder, documents, held, **few, executor=LocalProcesses(processes=2), work="other")
        whole, _ = find(folder, documents, held, shard_size=60, worker_bytes=10**9, work="whole")
        assert len(one.files) > 1
        assert [path.read_bytes() for path in one.files] == [path.read_bytes() for path in two.files]
        assert lost == again == whole == walked(documents, held, RULES)


def test_a_search_that_was_stopped_between_stages_resumes_with_what_is_missing(monkeypatch):
    documents, held = corpus(4, 60)
    with quick_folder() as folder:
        whole, _ = find(folder, documents, held)
        calls, real = [], repeated.GroupUnits.__call__

        def stopping(self, r):
            if len(calls) == 2:
                raise Interrupted("the third range")
            calls.append(r)
            real(self, r)

        monkeypatch.setattr(repeated.GroupUnits, "__call__", stopping)
        with pytest.raises(Interrupted):
            find(folder, documents, held, work="killed")
        monkeypatch.setattr(repeated.SpillUnits, "__call__", lambda *_: pytest.fail("spilled again"))
        monkeypatch.setattr(repeated.GroupUnits, "__call__", real)
        assert find(folder, documents, held, work="killed")[0] == whole
        assert not [*(folder / "killed").glob("units-of-*")]


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_unit_that_every_document_has_is_one_row_of_a_range_however_many_these_are(monkeypatch):
    sizes, real = [], repeated.summed
    monkeypatch.setattr(repeated, "SUMMED_ROWS", 50)

    def seen(parts):
        sums = real(parts)
        sizes.append((sum(map(len, parts)), len(sums)))
        return sums

    monkeypatch.setattr(repeated, "summed", seen)
    documents = [oracle.Document(id=f"d{n:04d}", source="a", text="said by all of them") for n in range(400)]
    with quick_folder() as folder:
        lost, found = find(folder, documents, [False] * 400, shard_size=20, worker_bytes=10**9)
        assert found.most_frequent["lost"].tolist() == [399]
    assert len(lost) == 399
    assert max(rows for rows, _ in sizes) <= 50 + 20
    assert {sums for _, sums in sizes if sums} == {1}


def test_the_disk_that_the_search_takes_is_the_estimate_within_three_tenths(monkeypatch):
    rules = RepeatedRules(unit="line", min_words=5, min_documents=2)
    documents, _ = corpus(6, 1500)
    sizes, remove = [], Stage.remove

    def measured(stage, *paths):
        sizes.append(sum(path.stat().st_size for path in stage.folder.iterdir()))
        remove(stage, *paths)

    monkeypatch.setattr(Stage, "remove", measured)
    with quick_folder() as folder:
        lost, _ = find(folder, documents, [False] * 1500, rules=rules, shard_size=500, worker_bytes=10**8)
    units = sum(len(unit) >= 5 for document in documents for unit in units_in(document.text, rules))
    estimate = disk_bytes(1500, units, share_lost=len(lost) / units)
    assert max(sizes) == pytest.approx(estimate, rel=0.3)


# ── the shapes of text of which others lost most ─────────────────────────────────────────────────────────────────────


def share_lost(texts, rules):
    """(share of the words that go, share of documents of which less than a unit is left)."""
    documents = [oracle.Document(id=f"d{n:04d}", source="a", text=text) for n, text in enumerate(texts)]
    with quick_folder() as folder:
        lost, _ = find(folder, documents, [False] * len(documents), rules=rules, worker_bytes=10**9, shard_size=100)
    words = [[len(unit) for unit in units_in(text, rules)] for text in texts]
    gone = Counter[int]()
    for d, number in lost:
        gone[d] += words[d][number]
    dropped = sum(sum(words[d]) - gone[d] < rules.min_words for d in gone)
    return gone.total() / sum(map(sum, words)), dropped / len(texts)


PARAGRAPHS = RepeatedRules(unit="paragraph", min_words=13, min_documents=2)


def test_pages_of_a_template_lose_the_template_in_all_but_the_first_page_and_no_page_its_contents():
    pages = {one.origin: one.text for one in reversed(shapes.templates(0))}  # of near copies one
    share, dropped = share_lost(list(pages.values()), PARAGRAPHS)
    assert share == pytest.approx(180 / 280 * (1 - 3 / len(pages)), rel=0.01)
    assert dropped == 0


def test_long_books_with_sentences_in_common_lose_nothing():
    """Each is one paragraph, and the other edition of two of them is another one."""
    assert share_lost([one.text for one in shapes.books(0, words=20_000)], PARAGRAPHS) == (0, 0)


def test_of_a_chapter_that_two_books_have_the_first_keeps_all_and_the_other_loses_nothing_else():
    said = [sentence for sentence in shapes.sentences() if len(sentence.split()) >= 15]
    first, other, chapter = said[:200], said[200:390], said[390:400]
    books = ["\n\n".join([*first[:90], *chapter, *first[90:]]), "\n\n".join([*other[:50], *chapter, *other[50:]])]
    documents = [oracle.Document(id=f"book {n}", source="a", text=text) for n, text in enumerate(books)]
    with quick_folder() as folder:
        lost, _ = find(folder, documents, [False, False], rules=PARAGRAPHS)
    assert lost == {(1, number): (0, False) for number in range(50, 60)}


def test_logs_of_calls_lose_nothing_as_paragraphs_and_as_lines_all_but_the_first_would_go():
    """Which is why lines shorter than min_words stay, and why the step stops at max_loss."""
    logs = [one.text for one in shapes.call_logs(0)]
    assert share_lost(logs, PARAGRAPHS) == (0, 0)
    lines = RepeatedRules(unit="line", min_words=13, min_documents=2)
    assert share_lost(logs, lines) == (0, 0)
    share, dropped = share_lost(logs, RepeatedRules(unit="line", min_words=2, min_documents=2))
    assert share > 0.99
    assert dropped == (len(logs) - 2) / len(logs)  # the first one keeps four calls, another one a fifth
