"""Fates: ids that repeat are found as strings, not as hashes; the order in which rules decide; documents in numbered shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searched import quick_folder
from selecting import run_selection, write_scores, write_source

from gristmill.data.document import Document, write_documents
from gristmill.data.packs import Item, write_pack
from gristmill.recipe.schema.curation import MinScore, Validation
from gristmill.select import fates
from gristmill.select.catalogue import values_at
from gristmill.select.fates import CONTAMINATED, DUPLICATE_ID, HELD_OUT, LOW_SCORE, PASSED, repeated_ids

QUESTION = "A farmer had seventeen sheep in the north field and all but nine ran away, so how many are left?"


@given(
    st.lists(st.sampled_from([*"abcdefgh", "", "aa"]), max_size=40),
    st.integers(1, 5),
    st.integers(1, 8),
)
@settings(max_examples=150, deadline=None)
def test_ids_that_repeat_are_those_whose_string_came_before_whatever_their_hashes(
    ids: list[str], num_hashes: int, at_once: int
) -> None:
    """With so few hashes most are shared by different ids."""
    hashes = np.array([sum(map(ord, name)) % num_hashes for name in ids], dtype=np.uint64)
    documents = 3 * np.arange(len(ids), dtype=np.int64) + 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fates, "COMPARED_IDS", at_once)
        found = repeated_ids(hashes, documents, ids_of=lambda some: [(int(d), ids[(d - 5) // 3]) for d in some])
    assert found.tolist() == [3 * k + 5 for k, name in enumerate(ids) if name in ids[:k]]


def test_the_first_rule_that_holds_decides(tmp_path: Path) -> None:
    """Each document fails by its own rule and by all that come later."""
    rng = np.random.default_rng(0)
    holds = f"{QUESTION} Nine. "
    rows = [
        ("held", holds, 1.0),
        ("low", holds, 1.0),
        ("twice", "first", 2.5),
        ("item", holds, 2.5),
        ("twice", "", 2.5),
    ]
    rows += [(f"fine{k}", "", 2.5) for k in range(4)]
    documents = [
        Document(id=name, source="web", text=f"{text}{rng.integers(10**12)}", origin="f#0", bytes_in=9)
        for name, text, _ in rows
    ]
    write_source(tmp_path, "web", documents[:2], documents[2:])
    scores = [(name, score) for name, _, score in rows]
    write_scores(tmp_path, "web", scores[:2], scores[2:])
    items = [Item(id="sheep", prompt=QUESTION, target="nine", ids=("held",))]
    write_pack(tmp_path / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0, items=items)
    section = {
        "min_scores": {"web": MinScore(classifier="edu", above=1.5)},
        "validation": Validation(fraction=0.1, min_bytes=1),
    }
    out, _ = run_selection(tmp_path, section, sources=("web",), until="duplicates")
    assert np.load(out / "fates.npy").tolist() == [
        HELD_OUT, LOW_SCORE, PASSED, CONTAMINATED, DUPLICATE_ID, *[PASSED] * 4,
    ]  # fmt: skip


def test_a_document_that_leaves_for_an_item_takes_none_along_that_has_its_id(tmp_path: Path) -> None:
    texts = [("same", f"{QUESTION} Nine."), ("same", "one clean text"), ("same", "another"), ("own", "of its own")]
    rows = [Document(id=name, source="web", text=text, origin="f#0", bytes_in=9) for name, text in texts]
    write_source(tmp_path, "web", rows[:1], rows[1:])
    items = [Item(id="sheep", prompt=QUESTION, target="nine")]
    write_pack(tmp_path / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0, items=items)
    out, _ = run_selection(tmp_path, {}, sources=("web",), until="duplicates")
    assert np.load(out / "fates.npy").tolist() == [CONTAMINATED, PASSED, DUPLICATE_ID, PASSED]


@given(st.lists(st.text(max_size=3), max_size=60), st.data())
@settings(max_examples=30, deadline=None)
def test_rows_that_are_asked_for_come_in_order_from_any_row_group(ids: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sampled_from(range(len(ids))), unique=True).map(sorted)) if ids else []
    with quick_folder() as folder, pytest.MonkeyPatch.context() as patch:
        path = folder / "documents-00000.parquet"
        patch.setattr("gristmill.data.write.ShardWriter.__init__.__kwdefaults__", {"rows_per_group": 7}, raising=False)
        write_documents(path, [Document(id=name, source="s", text="", origin="f#0", bytes_in=1) for name in ids])
        found = list(values_at(path, np.array(rows, dtype=np.int64), "id"))
    assert found == [(row, ids[row]) for row in rows]
