"""The engine by itself: text from tokens, time limits, and a pass that fails."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.model.inference import InferenceModel
from gristmill.model.transformer import Llama
from gristmill.serve.engine import Ask, Engine, Piece
from gristmill.serve.speaker import Speaker, TextOfTokens
from gristmill.tokens.tokenizer import Tokenizer
from models import small_tokenizer

TOKENIZER = small_tokenizer()
ordinary = st.integers(18, TOKENIZER.vocab_size - 1)


@settings(deadline=None)
@given(text=st.text(max_size=40))
def test_pieces_of_a_text_are_whole_characters_and_add_up_to_it(text: str) -> None:
    written = TextOfTokens(TOKENIZER)
    pieces = [written.add(token) for token in TOKENIZER.encode(text)]
    assert "".join([*pieces, written.end()]) == text
    assert all(piece in text for piece in pieces)


@settings(deadline=None)
@given(tokens=st.lists(ordinary, max_size=40))
def test_pieces_of_any_tokens_add_up_to_what_they_decode_to(tokens: list[int]) -> None:
    written = TextOfTokens(TOKENIZER)
    assert "".join([written.add(token) for token in tokens] + [written.end()]) == TOKENIZER.decode(tokens)


@settings(deadline=None)
@example(text="abc", stops=["abc", "b"])
@example(text="abc", stops=["bc", "abc"])
@given(text=st.text("abc ", max_size=40), stops=st.lists(st.text("abc ", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_ends_the_text_and_no_piece_shows_its_beginning(text: str, stops: list[str]) -> None:
    """Of several, also of those that contain each other, the one that is complete first; of those, the longest."""
    written = TextOfTokens(TOKENIZER, stops)
    found = ""
    for token in TOKENIZER.encode(text):
        found += written.add(token)
        if written.is_stopped:
            break
    found += written.end()
    met = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    assert found == (text[: min(met)[1]] if met else text)
    assert written.is_stopped == bool(met)


@pytest.fixture
def engine(models: tuple[Path, Llama, Tokenizer]) -> Iterator[Engine]:
    _, model, tokenizer = models
    speaker = Speaker(name="tiny", model=InferenceModel(model), tokenizer=tokenizer, num_parameters=1)
    made = Engine(speaker, max_active=2, max_waiting=1, threads=1)
    yield made
    made.close()


def test_time_runs_out_for_who_waits_and_for_who_writes(engine: Engine) -> None:
    pieces: queue.Queue[Piece] = queue.Queue()
    assert engine.submit(Ask(prompt=[0, 5], max_new_tokens=2000, seconds=-1.0), pieces.put)
    late = pieces.get(timeout=30)
    assert (late.reason, late.num_tokens) == ("timeout", 0)
    assert engine.submit(Ask(prompt=[0, 5], max_new_tokens=2000, seconds=0.05), pieces.put)
    cut = pieces.get(timeout=30)
    assert cut.reason == "timeout"
    assert 0 <= cut.num_tokens < 2000


def test_a_pass_that_fails_ends_its_requests_and_the_next_is_answered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Out of memory, say: whatever a pass raises."""
    pieces: queue.Queue[Piece] = queue.Queue()
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(engine.speaker.model, "_head_DV", torch.zeros(1, 1))
        assert engine.submit(Ask(prompt=[0, 5], max_new_tokens=5), pieces.put)
        assert pieces.get(timeout=30).reason == "failed"
    assert "a pass of tiny failed" in caplog.text
    assert engine.submit(Ask(prompt=[0, 5], max_new_tokens=5), pieces.put)
    assert (last := pieces.get(timeout=30)).reason == "length"
    assert last.num_tokens == 5


def test_a_long_prompt_does_not_stop_the_answers_beside_it(
    engine: Engine, models: tuple[Path, Llama, Tokenizer]
) -> None:
    """The first writes while the prompt of the second, four passes long, is read."""
    order: queue.Queue[tuple[str, Piece]] = queue.Queue()
    assert engine.submit(Ask(prompt=[5], max_new_tokens=400, is_stream=True), lambda piece: order.put(("first", piece)))
    assert order.get(timeout=30)[0] == "first"
    assert engine.submit(Ask(prompt=[7] * 1000, max_new_tokens=1), lambda piece: order.put(("second", piece)))
    before = 0
    while (found := order.get(timeout=30))[0] == "first":
        before += found[1].text != ""
    assert found[1].reason == "length"
    assert before >= 2
