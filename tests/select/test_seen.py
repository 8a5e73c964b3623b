"""How much of held-out text stands in training text, against sets of words; and a book that is there twice, cut at other places."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.executor import InProcess
from gristmill.select.seen import NGRAM, seen_shares

WORDS = [f"w{number}" for number in range(300)]


def shard(folder: Path, name: str, texts: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def grams(texts: Sequence[str]) -> set[tuple[str, ...]]:
    words = [text.split() for text in texts]
    return {tuple(text[place : place + NGRAM]) for text in words for place in range(len(text) - NGRAM + 1)}


def text_of(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_share_is_that_of_sets_of_words(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng, folder = random.Random(seed), tmp_path_factory.mktemp("seen")
    held = {name: [text_of(rng, rng.randrange(5, 80)) for _ in range(rng.randrange(4))] for name in ("a", "b")}
    train = [text_of(rng, rng.randrange(5, 80)) for _ in range(6)]
    for text in [text for texts in held.values() for text in texts]:  # parts of held-out text, inside training text
        words = text.split()
        start = rng.randrange(len(words))
        place = rng.randrange(6)
        train[place] += " " + " ".join(words[start : start + rng.randrange(40)])
    shards = [
        shard(folder / "train" / name, "train-00000", texts) for name, texts in (("a", train[:3]), ("b", train[3:]))
    ]
    validation = {name: [shard(folder / name, "validation-00000", texts)] for name, texts in held.items()}
    found = seen_shares(shards, validation, work=folder / "work", executor=InProcess())
    seen = grams(train)
    for name, texts in held.items():
        mine = grams(texts)
        assert found[name] == pytest.approx(len(mine & seen) / len(mine) if mine else 0.0)


def test_a_book_in_two_formats_cut_at_other_places_is_seen(tmp_path: Path) -> None:
    rng = random.Random(8)
    book = [text_of(rng, 20) for _ in range(200)]
    pdf = [" ".join(book[start : start + 10]) for start in range(0, 200, 10)]
    epub = [" ".join(book[max(0, start) : start + 10]) for start in range(-5, 200, 10)]
    news = [text_of(rng, 200)]
    validation = {
        name: [shard(tmp_path / name, "validation-00000", texts)] for name, texts in (("pdf", pdf[3:5]), ("news", news))
    }
    train = [shard(tmp_path / "epub", "train-00000", epub)]
    found = seen_shares(train, validation, work=tmp_path / "work", executor=InProcess())
    assert found["pdf"] > 0.9
    assert found["news"] == 0
