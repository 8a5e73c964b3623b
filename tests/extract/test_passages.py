"""Long documents of any format become passages: each a document with its share of the record's bytes, its own fate and its own name."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.run_extract import context
from extract.test_shard import settings_of
from gristmill.data.document import read_batches, read_documents
from gristmill.data.packs import is_held_out
from gristmill.data.passages import cut_passages, record_id
from gristmill.data.record import RawDocument
from gristmill.extract import extract
from gristmill.extract.curate import PASSAGES, Settings, curate
from gristmill.extract.outputs import Extracted
from gristmill.formats.text import read_text
from gristmill.recipe.schema.formats import READERS

LIMIT = 1000


def cutting(**more: Any) -> Settings:
    read = READERS["jsonl"].model_validate({"format": "jsonl", "paths": ["x"], "passage_chars": LIMIT})
    return Settings(
        **{
            **{name: getattr(settings_of("jsonl"), name) for name in Settings.__dataclass_fields__},
            "read": read,
            **more,
        }
    )


def prose(words: int, seed: int = 0) -> str:
    chance = random.Random(seed)
    return " ".join(
        "".join(chance.choices("abcdefgh", k=chance.randint(2, 8))) + "\n\n" * (chance.random() < 0.05)
        for _ in range(words)
    )


@settings(max_examples=60, deadline=None)
@given(words=st.integers(1, 900), seed=st.integers(0, 20), bytes_in=st.integers(0, 10_000))
def test_the_passages_of_a_record_are_its_text_and_their_bytes_its_bytes(words: int, seed: int, bytes_in: int) -> None:
    raw = RawDocument(id="a#7", origin="a#7", bytes_in=bytes_in, text=prose(words, seed), url="https://x")
    fates = curate(raw, cutting())
    assert "".join(fate.row["text"] for fate in fates) == raw.text
    assert sum(fate.bytes_in for fate in fates) == bytes_in == sum(fate.row["bytes_in"] for fate in fates)
    assert all(fate.bytes_in >= 0 and fate.row["origin"] == raw.origin and fate.row["url"] == raw.url for fate in fates)
    ids = [fate.row["id"] for fate in fates]
    assert ids == (["a#7"] if len(fates) == 1 else [f"a#7#{number}" for number in range(len(fates))])
    assert sum(fate.counts[PASSAGES] for fate in fates) == (len(fates) if len(fates) > 1 else 0)
    (whole,) = curate(raw, settings_of("jsonl"))
    assert whole.row["text"] == raw.text


def test_a_rule_or_a_language_takes_a_passage_and_not_the_document() -> None:
    noise = "{ } ; = < > # $ % & *\n" * 100
    raw = RawDocument(id="a", origin="a#0", bytes_in=10_000, text=f"{prose(200)}\n\n{noise}\n\n{prose(200, 1)}")
    fates = curate(raw, cutting(packs=("code@1",)))
    reasons = [fate.reason for fate in fates]
    assert {"", "too_few_alphanumeric"} >= set(reasons) or len({*reasons}) > 1
    assert "" in reasons
    assert any(reasons)
    rejected = next(fate for fate in fates if fate.reason)
    assert rejected.row["id"].startswith("a#")
    assert rejected.row["excerpt"]


def source_of(tmp_path: Path, kind: str) -> dict[str, Any]:
    """A source of one long and some short documents."""
    texts = [prose(3000), *(prose(20, seed) for seed in range(1, 6))]
    if kind == "jsonl":
        lines = [json.dumps({"id": f"d{number}", "text": text}) for number, text in enumerate(texts)]
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
        return {"read": {"format": "jsonl", "paths": ["a.jsonl.gz"], "id_field": "id", "passage_chars": LIMIT}}
    if kind == "html":
        for number, text in enumerate(texts):
            paragraphs = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
            (tmp_path / f"{number}.html").write_text(f"<html><body><article>{paragraphs}</article></body></html>")
        return {"read": {"format": "html", "paths": ["*.html"], "passage_chars": LIMIT}}
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    return {"read": {"format": "text", "paths": ["*.txt"], "passage_chars": LIMIT}}


@pytest.mark.parametrize("kind", ["jsonl", "html", "text"])
def test_documents_and_bytes_of_a_source_that_is_cut_add_up(tmp_path: Path, kind: str) -> None:
    counts = extract.run(context(tmp_path, tmp_path / "out", source_of(tmp_path, kind)))  # checks the ledger
    left = Extracted(tmp_path / "out")
    documents = [document for path in left.documents for document in read_documents(path)]
    rejected = [
        row for path in left.rejected for batch in read_batches(path, columns=["id"]) for row in batch.to_pylist()
    ]
    assert counts["documents_in"] == len(documents) + len(rejected) > 15
    assert counts["bytes_in"] == sum(document.bytes_in for document in documents)
    assert len({document.id for document in documents}) == len(documents)
    assert counts["details"][PASSAGES] == counts["documents_in"] - 5
    assert max(len(document.text.strip()) for document in documents) <= LIMIT
    if kind != "html":
        long = sorted((one for one in documents if "#" in one.id), key=lambda one: int(one.id.rpartition("#")[2]))
        assert [one.text for one in long] == cut_passages(prose(3000), LIMIT)


def test_a_pack_that_holds_a_document_out_holds_its_passages_out() -> None:
    held_out = frozenset(["d0", "e#5"])
    assert [is_held_out(id, held_out) for id in ("d0", "d0#3", "d1#0", "e#5", "e#5#1", "e#6", "d", "", "d0#2#1")] == [
        True, True, False, True, True, False, False, False, True,
    ]  # fmt: skip


def test_pieces_of_a_file_keep_their_ids_when_the_long_ones_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"# {number}\n\n{prose(words, number)}\n" for number, words in enumerate((9, 900, 9, 900))))
    whole = [one.id for one in read_text(path, name="b", split_at="# ") if isinstance(one, RawDocument)]
    cut = [one for one in read_text(path, name="b", split_at="# ", passage_chars=LIMIT) if isinstance(one, RawDocument)]
    assert whole == [f"b#{number}" for number in range(4)]
    assert [one.id for one in cut if not one.is_passage] == ["b#0", "b#2"]
    assert {record_id(one.id) for one in cut if one.is_passage} == {"b#1", "b#3"}
    assert "".join(one.text or "" for one in cut) == path.read_text()
