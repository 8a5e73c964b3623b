"""The impact of rules: what they hit is named, and chance is not."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gristmill.data.document import DOCUMENT_SCHEMA, Document
from gristmill.data.ledger import REJECTED_SCHEMA, rejected_row
from gristmill.data.write import write_rows
from gristmill.report.impact import Seen, chance_of_so_many, impact_of, seen_in

VOCABULARY = [f"word{k}" for k in range(300)]


def documents(rng: np.random.Generator, count: int, *more: str) -> list[set[tuple[str, str]]]:
    return [{("word", str(w)) for w in [*rng.choice(VOCABULARY, 40), *more]} for _ in range(count)]


def seen(traits: list[set[tuple[str, str]]], reasons: list[str]) -> list[Seen]:
    return [Seen(traits=frozenset(one), reason=reason) for one, reason in zip(traits, reasons, strict=True)]


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_the_chance_is_that_of_all_ways_to_drop(hit: int, count: int, dropped: int, others: int) -> None:
    total = count + others
    if dropped > total:
        return
    ways = [sum(k < count for k in way) >= hit for way in combinations(range(total), dropped)]
    assert abs(chance_of_so_many(hit, count, dropped, total) - sum(ways) / len(ways)) < 1e-9


def test_a_rule_that_takes_a_subject_is_named_with_its_shares() -> None:
    rng = np.random.default_rng(1)
    maths, others = documents(rng, 60, "theorem", "lemma"), documents(rng, 540)
    reasons = ["symbols" if k % 10 else "" for k in range(60)] + ["symbols" if k % 20 == 0 else "" for k in range(540)]
    found = impact_of(seen([*maths, *others], reasons))
    assert {(hit.reason, hit.trait) for hit in found.hits} == {("symbols", "theorem"), ("symbols", "lemma")}
    assert [hit.words for hit in found.nearly_all] == [
        f"90% of 60 documents with “{word}”, 5% of the others" for word in ("lemma", "theorem")
    ]
    assert (found.documents, found.dropped) == (600, {"symbols": 81})


def test_rules_that_drop_at_random_are_rarely_said_to_hit_anything() -> None:
    """A true null: of 200 sources no more are wrong than ALPHA allows, with a margin of chance."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        traits = documents(rng, 120)
        reasons = [str(reason) for reason in rng.choice(["", "a", "b"], 120, p=[0.6, 0.3, 0.1])]
        wrong += bool(impact_of(seen(traits, reasons)).hits)
    assert wrong <= 7


def test_documents_are_those_of_whole_shards_with_language_site_and_words(tmp_path: Path) -> None:
    english = "The committee of the harbour met in the evening to discuss the weather."
    german = "Der Ausschuss des Hafens traf sich am Abend, um über das Wetter zu sprechen."
    kept = [
        Document(id="a", source="web", text=english, url="https://one.example/x", origin="f#0", bytes_in=9),
        Document(id="b", source="web", text=english, language="en", origin="f#0", bytes_in=9),
        Document(id="deep/down/c.txt", source="web", text=german, origin="f#0", bytes_in=9),
    ]
    write_rows(tmp_path / "documents-00000.parquet", DOCUMENT_SCHEMA, [one.row() for one in kept])
    dropped = rejected_row(
        id="d",
        source="web",
        step="extract",
        reason="other_language",
        bytes_in=9,
        detail="de 0.99 http://two.example/y",
        text=german,
    )
    write_rows(tmp_path / "rejected-00000.parquet", REJECTED_SCHEMA, [dropped])
    copy = rejected_row(id="b", source="web", step="select", reason="exact_duplicate", bytes_in=9, text=english)
    write_rows(tmp_path / "left-00000.parquet", REJECTED_SCHEMA, [copy])
    found = list(
        seen_in(
            [tmp_path / "documents-00000.parquet"],
            [tmp_path / "rejected-00000.parquet"],
            [tmp_path / "left-00000.parquet"],
        )
    )
    assert [one.reason for one in found] == ["", "exact_duplicate", "", "other_language"]
    assert {("site", "one.example"), ("language", "en"), ("word", "committee")} <= found[0].traits
    assert {("site", "deep/down"), ("language", "de")} <= found[2].traits
    assert {("site", "two.example"), ("language", "de"), ("word", "ausschuss")} <= found[3].traits
