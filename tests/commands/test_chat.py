"""Talking to a model: one shot, from a pipe, over a full context, and which model a folder means."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gristmill.commands.chat import VISIBLE, Conversation, chat, find_model
from gristmill.errors import ArtifactError, RecipeError
from gristmill.model.generate import generate
from gristmill.model.transformer import Llama, LlamaConfig
from gristmill.model.weights import init_weights, save_model
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

HELLO = [{"role": "user", "content": "Hello!"}]


class Typed(io.StringIO):
    """Standard input of a person at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(["Hello! The cat sat on the mat. Ünïcode — 数学 🙂"] * 4, 290))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Llama:
    """A chat model of random weights: its end token is the end of a turn."""
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=96,
        initializer_range=0.3,
        eos_token_id=tokenizer.im_end_id,
    )
    return init_weights(Llama(config), 11)


def saved(folder: Path, model: Llama, tokenizer: Tokenizer, *, end: int = 2) -> Path:
    tokenizer.save(folder)
    released = Llama(replace(model.config, eos_token_id=end))
    released.load_state_dict(model.state_dict())
    save_model(folder, released, None)
    return folder


def said(
    target: Path,
    *,
    prompt: str | None = None,
    stdin: io.StringIO | None = None,
    temperature: float = 0.0,
    max_new_tokens: int | None = 12,
) -> str:
    out = io.StringIO()
    chat(
        target,
        prompt=prompt,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        console=Console(file=out, width=40),
        stdin=stdin or io.StringIO(),
    )
    return out.getvalue()


def greedy(model: Llama, tokenizer: Tokenizer, ids: list[int], max_new_tokens: int = 12) -> str:
    (new,) = generate(model, [ids], max_new_tokens=max_new_tokens, stop_ids=(0, 2))
    return tokenizer.decode([token for token in new if token not in (0, 2)])


def test_one_shot_prints_the_greedy_answer_alone(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    expected = greedy(model, tokenizer, encode_chat(tokenizer, HELLO, add_generation_prompt=True)[0])
    assert said(saved(tmp_path, model, tokenizer), prompt="Hello!") == f"{expected}\n".translate(VISIBLE)


def test_pipe_answers_each_line_within_one_conversation_until_reset(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = saved(tmp_path, model, tokenizer)
    first = greedy(model, tokenizer, encode_chat(tokenizer, HELLO, add_generation_prompt=True)[0])
    history = [*HELLO, {"role": "assistant", "content": first}, {"role": "user", "content": "cat"}]
    second = greedy(model, tokenizer, encode_chat(tokenizer, history, add_generation_prompt=True)[0])
    assert said(folder, stdin=io.StringIO("Hello!\n\ncat\n")) == f"{first}\n{second}\n".translate(VISIBLE)
    assert (
        said(folder, stdin=io.StringIO("Hello!\n/reset\nHello!\n/quit\ncat\n")) == f"{first}\n".translate(VISIBLE) * 2
    )


def test_base_model_says_so_and_continues_the_text_without_a_template(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path, model, tokenizer, end=0)
    expected = greedy(model, tokenizer, [0, *tokenizer.encode("The cat")])
    assert said(folder, prompt="The cat") == f"{expected}\n".translate(VISIBLE)
    assert "a base model" in capsys.readouterr().err


def test_terminal_introduces_the_model_and_shows_a_prompt(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    shown = said(saved(tmp_path, model, tokenizer), stdin=Typed("/quit\n"))
    assert "is a chat model" in " ".join(shown.split())
    assert shown.endswith("> ")


def test_full_context_drops_the_oldest_turns_and_says_how_many(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(saved(tmp_path, model, tokenizer), stdin=io.StringIO("The cat sat on the mat.\n" * 4))
    assert "dropped the oldest 2 messages" in capsys.readouterr().err
    talk = Conversation(model=model, tokenizer=tokenizer, max_new_tokens=12, temperature=0.0)
    for _ in range(4):
        "".join(talk.ask("The cat sat on the mat."))
        ids, _ = encode_chat(tokenizer, [m for m in talk.messages[:-1] if m["content"].strip()], True)
        assert len(ids) + 12 <= 96
        assert talk.messages[0]["role"] == "user"


def test_message_longer_than_the_context_is_refused_and_forgotten(model: Llama, tokenizer: Tokenizer) -> None:
    talk = Conversation(model=model, tokenizer=tokenizer, max_new_tokens=12, temperature=0.0)
    with pytest.raises(RecipeError, match="context of 96 leaves 84"):
        list(talk.ask("cat " * 200))
    assert talk.messages == []


def test_pieces_never_split_a_character_and_add_up_to_the_answer(model: Llama, tokenizer: Tokenizer) -> None:
    text = "Ü — 数学 🙂 end"
    ids = [*tokenizer.encode(text), tokenizer.im_end_id]
    talk = Conversation(model=parrot(model, ids), tokenizer=tokenizer, max_new_tokens=len(ids), temperature=0.0)
    pieces = list(talk.ask("x"))
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert talk.messages[-1] == {"role": "assistant", "content": text}


def test_answer_cannot_steer_the_terminal(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bird = parrot(model, [*tokenizer.encode("\x1b[2J\r\x07[red]x"), tokenizer.im_end_id])
    monkeypatch.setattr("gristmill.commands.chat.load_model", lambda folder: bird)
    assert said(saved(tmp_path, model, tokenizer), prompt="x", max_new_tokens=24) == "␛[2J␍␇[red]x\n"


def parrot(model: Llama, ids: list[int]) -> Llama:
    """A model whose n-th new token is ids[n], whatever it is asked."""

    class Parrot(Llama):
        said = 0

        def logits(self, x_ND: torch.Tensor) -> torch.Tensor:
            logits_NV = torch.zeros(len(x_ND), self.config.vocab_size)
            logits_NV[-1, ids[self.said]] = 1.0
            self.said += 1
            return logits_NV

    bird = Parrot(model.config)
    bird.load_state_dict(model.state_dict())
    return bird


@pytest.mark.parametrize(
    ("steps", "best"), [(["pretrain"], "pretrain"), (["pretrain", "sft"], "sft"), (["pretrain", "sft", "dpo"], "dpo")]
)
def test_run_folder_means_its_best_model(tmp_path: Path, steps: list[str], best: str) -> None:
    for step in steps:
        (tmp_path / step / "model").mkdir(parents=True)
        (tmp_path / step / "model" / "config.json").write_text("{}")
    assert find_model(tmp_path) == tmp_path / best / "model"
    assert find_model(tmp_path / best) == tmp_path / best / "model"
    assert find_model(tmp_path / best / "model") == tmp_path / best / "model"


def test_folder_without_a_model_is_refused_with_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no model.*config\.json"):
        find_model(tmp_path)


def test_without_a_limit_an_answer_takes_half_of_a_short_context(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ids = encode_chat(tokenizer, HELLO, add_generation_prompt=True)[0]
    expected = greedy(model, tokenizer, ids, max_new_tokens=48)
    folder = saved(tmp_path, model, tokenizer)
    assert said(folder, prompt="Hello!", max_new_tokens=None) == f"{expected}\n".translate(VISIBLE)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"max_new_tokens": 96}, "--max-new-tokens is 96.* 1 to 95"), ({"temperature": -1.0}, "greedy")],
)
def test_options_that_the_model_cannot_serve_are_refused(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        said(saved(tmp_path, model, tokenizer), prompt="Hello!", **options)


def test_sampling_with_a_temperature_is_repeatable(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = saved(tmp_path, model, tokenizer)
    first = said(folder, prompt="Hello!", temperature=5.0)
    assert first == said(folder, prompt="Hello!", temperature=5.0)
    assert first != said(folder, prompt="Hello!")
