"""Encoding by splintr: the ids of the reference, for any text, or the reference itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import DataError
from gristmill.tokens import encoder as encoder_module
from gristmill.tokens.encoder import AWKWARD, Disagreement, Encoder
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

SAMPLE = Path(__file__).parents[2] / "samples" / "quickstart"
TEXTS = [
    path.read_text(encoding="utf-8", errors="replace")[:20_000]
    for path in sorted(path for path in SAMPLE.rglob("*") if path.suffix in (".txt", ".md", ".py", ".jsonl"))[:12]
]
needs_splintr = pytest.mark.skipif(encoder_module.importlib.util.find_spec("splintr") is None, reason="not installed")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer([*TEXTS, *AWKWARD * 3], 600))


@pytest.fixture(scope="module")
def fast(tokenizer: Tokenizer) -> Encoder:
    return Encoder.fastest(tokenizer)


@needs_splintr
@given(st.lists(st.lists(st.sampled_from(AWKWARD), max_size=8).map("".join) | st.text(max_size=40), max_size=6))
@settings(deadline=None)
def test_the_ids_are_those_of_the_reference(tokenizer: Tokenizer, fast: Encoder, texts: list[str]) -> None:
    assert fast.is_fast
    found = fast.encode(texts)
    assert [ids.tolist() for ids in found] == tokenizer.encode_batch(texts)


@needs_splintr
def test_real_texts_have_the_ids_of_the_reference_and_all_their_bytes(tokenizer: Tokenizer) -> None:
    assert len(TEXTS) > 3
    found = Encoder.fastest(tokenizer).encode(TEXTS)
    assert [ids.tolist() for ids in found] == tokenizer.encode_batch(TEXTS)
    assert tokenizer.num_bytes(np.concatenate(found)) == sum(len(text.encode()) for text in TEXTS)


@needs_splintr
def test_a_text_that_is_no_unicode_is_refused_as_by_the_reference(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="Unicode"):
        Encoder.fastest(tokenizer).encode(["sound", "\ud800"])


class Wrong:
    """An encoder of bytes, which no tokenizer with merges agrees with; right for texts that are `known`."""

    cache_len = 0

    def __init__(self, right: Any, known: int) -> None:
        self.right, self.known = right, known

    def encode_batch_flat(self, texts: list[str]) -> tuple[bytes, bytes]:
        rows = self.right(texts)
        rows = [ids if len(text) < self.known else ids[::-1] for text, ids in zip(texts, rows)]
        offsets = np.cumsum([0, *map(len, rows)]).astype("<u8")
        return np.concatenate([np.array(ids, dtype="<u4") for ids in rows]).tobytes(), offsets.tobytes()


def test_an_encoder_that_differs_at_once_is_not_taken(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_load", lambda _: Wrong(tokenizer.encode_batch, 10))
    taken = Encoder.fastest(tokenizer)
    assert not taken.is_fast
    assert [ids.tolist() for ids in taken.encode(TEXTS)] == tokenizer.encode_batch(TEXTS)


def test_one_that_differs_later_is_found_out(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_load", lambda _: Wrong(tokenizer.encode_batch, 10_000))
    taken = Encoder.fastest(tokenizer)
    assert taken.is_fast
    taken.encode(["short texts", "are right"])
    with pytest.raises(Disagreement):  # one text of each batch is looked at, of the second batch the second
        taken.encode(["short", "a b " * 5_000, "short"])


class Refusing(Wrong):
    """An encoder that fails with long texts."""

    def encode_batch_flat(self, texts: list[str]) -> tuple[bytes, bytes]:
        if max(map(len, texts)) >= self.known:
            raise ValueError("too long for me")
        return super().encode_batch_flat(texts)


def test_one_that_refuses_what_the_reference_takes_is_no_slow_way_in_silence(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(encoder_module, "_load", lambda _: Refusing(tokenizer.encode_batch, 10))
    assert not Encoder.fastest(tokenizer, said.append).is_fast
    assert said == [
        "splintr is installed, but cannot be used with this tokenizer (too long for me); tokenizers encodes, which is slower"
    ]
    monkeypatch.setattr(encoder_module, "_load", lambda _: Refusing(tokenizer.encode_batch, 10_000))
    taken = Encoder.fastest(tokenizer, said.append)
    with pytest.raises(Disagreement, match="ValueError: too long for me"):
        taken.encode(["a b " * 5_000])
    with pytest.raises(DataError, match="Unicode"):
        taken.encode(["a b " * 5_000 + "\ud800"])
    monkeypatch.setattr(encoder_module, "_load", lambda _: None)
    assert not Encoder.fastest(tokenizer, said.append).is_fast
    assert len(said) == 1, "what is not installed is not missed"
