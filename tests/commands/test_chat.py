"""Talking to a model: one shot, from a pipe, over a full context, and which model a folder means."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gristmill.commands import model_folder
from gristmill.commands.chat import Conversation, chat
from gristmill.commands.model_folder import find_model, names_of, older_than
from gristmill.commands.run_folder import run_of
from gristmill.display import VISIBLE
from gristmill.errors import ArtifactError, DataError, RecipeError
from gristmill.model.generate import generate
from gristmill.model.inference import InferenceModel, KeyValueCache
from gristmill.model.transformer import Llama
from gristmill.serve.speaker import Speaker
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer
from models import random_llama, save, small_tokenizer

HELLO = [{"role": "user", "content": "Hello!"}]


class Typed(io.StringIO):
    """Standard input of a person at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Llama:
    return random_llama(tokenizer, seed=11, context=96, is_chat=True)


def saved(folder: Path, model: Llama, tokenizer: Tokenizer, *, end: int = 2) -> Path:
    released = Llama(replace(model.config, eos_token_id=end))
    released.load_state_dict(model.state_dict())
    return save(folder, released, tokenizer)


def said(
    *targets: Path,
    prompt: str | None = None,
    system: str | None = None,
    stdin: io.StringIO | io.TextIOWrapper | None = None,
    temperature: float = 0.0,
    max_new_tokens: int | None = 12,
) -> str:
    out = io.StringIO()
    chat(
        targets,
        prompt=prompt,
        system=system,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        console=Console(file=out, width=40),
        stdin=stdin or io.StringIO(),
        history=Path("/nowhere"),
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
    talk = Conversation(speaker=speaker_of(model, tokenizer), max_new_tokens=12, temperature=0.0)
    for _ in range(4):
        "".join(talk.ask("The cat sat on the mat."))
        ids, _ = encode_chat(tokenizer, [m for m in talk.messages[:-1] if m["content"].strip()], True)
        assert len(ids) + 12 <= 96
        assert talk.messages[0]["role"] == "user"


def test_message_longer_than_the_context_is_refused_and_forgotten(model: Llama, tokenizer: Tokenizer) -> None:
    talk = Conversation(speaker=speaker_of(model, tokenizer), max_new_tokens=12, temperature=0.0)
    list(talk.ask("cat"))
    before = [*talk.messages]
    with pytest.raises(RecipeError, match="context of 96 leaves 84"):
        list(talk.ask("cat " * 200))
    assert talk.messages == before
    with pytest.raises(DataError, match="not valid Unicode"):
        list(talk.ask("half \ud83d of a pair"))
    assert talk.messages == before


@pytest.mark.parametrize("models", [1, 2])
def test_at_a_terminal_the_talk_goes_on_after_a_message_that_is_too_long(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, models: int
) -> None:
    folders = [saved(tmp_path / str(number), model, tokenizer) for number in range(models)]
    shown = said(*folders, stdin=Typed("cat " * 200 + f"\ncat\n/save {tmp_path / 'talk.jsonl'}\n/quit\n"))
    assert "context of 96 leaves 84" in " ".join(shown.split())
    kept = [json.loads(line)["messages"] for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    assert [[message["content"] for message in messages][:1] for messages in kept] == [["cat"]] * models
    with pytest.raises(RecipeError, match="context of 96"):
        said(folders[0], stdin=io.StringIO("cat " * 200))


def test_a_pipe_that_is_no_text_is_refused(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="standard input is not UTF-8"):
        said(saved(tmp_path, model, tokenizer), stdin=io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))


def test_pieces_never_split_a_character_and_add_up_to_the_answer(model: Llama, tokenizer: Tokenizer) -> None:
    text = "Ü — 数学 🙂 end"
    ids = [*tokenizer.encode(text), tokenizer.im_end_id]
    talk = Conversation(speaker=parrot(model, tokenizer, ids), max_new_tokens=len(ids), temperature=0.0)
    pieces = list(talk.ask("x"))
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert talk.messages[-1] == {"role": "assistant", "content": text}


def test_answer_cannot_steer_the_terminal(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bird = parrot(model, tokenizer, [*tokenizer.encode("\x1b[2J\r\x07[red]x"), tokenizer.im_end_id])
    monkeypatch.setattr(model_folder.Speaker, "load", lambda folder, name: bird)
    assert said(saved(tmp_path, model, tokenizer), prompt="x", max_new_tokens=24) == "␛[2J␍␇[red]x\n"


def speaker_of(model: Llama, tokenizer: Tokenizer) -> Speaker:
    return Speaker(name="tiny", model=InferenceModel(model), tokenizer=tokenizer, num_parameters=1)


def parrot(model: Llama, tokenizer: Tokenizer, ids: list[int]) -> Speaker:
    """A speaker whose n-th new token is ids[n], whatever it is asked."""

    class Parrot(InferenceModel):
        said = 0

        def advance(self, caches: Sequence[KeyValueCache], pieces: Sequence[Sequence[int]]) -> torch.Tensor:
            logits_BV = torch.zeros(len(pieces), self.config.vocab_size)
            logits_BV[:, ids[self.said]] = 1.0
            self.said += 1
            return logits_BV

    return Speaker(name="parrot", model=Parrot(model), tokenizer=tokenizer, num_parameters=1)


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


def test_a_model_that_was_made_before_a_step_that_is_remade_is_called_older(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "run" / "export" / "model", model, tokenizer)
    said(tmp_path / "run", prompt="x")
    assert capsys.readouterr().err == ""
    (tmp_path / "run" / "sft.unfinished").symlink_to("../gone")
    (tmp_path / "run" / "pretrain.before").symlink_to("../gone")
    line = f"{folder} is older than pretrain, which is being remade, or was stopped on the way."
    assert older_than(tmp_path / "run", folder) == line
    said(tmp_path / "run", prompt="x")
    assert capsys.readouterr().err == f"{line}\n"
    pretrained = saved(tmp_path / "run" / "pretrain" / "model", model, tokenizer)
    assert older_than(tmp_path / "run", pretrained) is None
    assert older_than(pretrained, pretrained) is None


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


def test_several_models_answer_below_their_names(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    one, two = saved(tmp_path / "one", model, tokenizer), saved(tmp_path / "two", model, tokenizer, end=0)
    alone = [said(folder, prompt="Hello!") for folder in (one, two)]
    assert said(one, two, prompt="Hello!") == f"[one]\n{alone[0]}[two]\n{alone[1]}"


def test_on_a_terminal_models_stand_in_columns(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    one, two = saved(tmp_path / "one", model, tokenizer), saved(tmp_path / "two", model, tokenizer)
    shown = said(one, two, stdin=Typed("Hello!\n/quit\n"))
    assert any(line.split()[-2:] == ["one", "two"] for line in shown.splitlines())


def test_commands_change_the_conversation_and_say_so(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = saved(tmp_path / "m", model, tokenizer), tmp_path / "talk.jsonl"
    system = {"role": "system", "content": "The cat sat"}
    asked = {"role": "user", "content": "sat on the mat"}
    expected = greedy(model, tokenizer, encode_chat(tokenizer, [system, asked], add_generation_prompt=True)[0])
    assert expected.strip(), "choose another question: empty answers are not saved"
    typed = f"/system The cat sat\nsat on the mat\n/save {file}\n/save {file}\n/temperature hot\n/temperature .5\n/what\n/help\n"
    assert said(folder, stdin=io.StringIO(typed)) == f"{expected}\n".translate(VISIBLE)
    assert said(folder, prompt="sat on the mat", system="The cat sat") == f"{expected}\n".translate(VISIBLE)
    saved_talk = json.loads(file.read_text())
    assert saved_talk == {"id": "m", "messages": [system, asked, {"role": "assistant", "content": expected}]}
    told = capsys.readouterr().err
    for part in ("System message: The cat sat", "Saved 1 conversation", "exists; nothing was written", "expected a number",
                 "Temperature 0.5.", "Unknown command /what", "/quit"):  # fmt: skip
        assert part in told


def test_a_system_message_that_was_set_late_is_said_to_stand_first_in_the_file(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "m", model, tokenizer)
    first, later = f"/system A\ncat\n/save {tmp_path / '1'}\n", f"/reset\ncat\n/system B\n/save {tmp_path / '2'}\n"
    said(folder, stdin=io.StringIO(first))
    assert "stands first" not in capsys.readouterr().err
    said(folder, stdin=io.StringIO(later))
    assert "The system message, set later, stands first" in capsys.readouterr().err
    assert json.loads((tmp_path / "2").read_text())["messages"][0] == {"role": "system", "content": "B"}


def test_a_recipe_means_the_model_of_its_run(project: Path) -> None:
    runs = project / "runs"
    with pytest.raises(
        ArtifactError, match=r"is a recipe without a model: \S*runs/tiny is not there yet.*\n.*gristmill run"
    ):
        run_of(project, runs)
    (runs / "tiny" / "pretrain" / "model").mkdir(parents=True)
    (runs / ".store").mkdir()
    assert run_of(project, runs) == run_of(project / "recipe.yaml", runs) == runs / "tiny"
    shutil.copy(project / "recipe.yaml", runs / "tiny")
    copied = Path(shutil.copytree(runs / "tiny", project / "copied"))
    for folder in (runs / "tiny", copied, runs / "tiny" / "pretrain" / "model", project / "absent"):
        assert run_of(folder, runs) == folder


def test_names_are_the_last_folders_that_tell_models_apart() -> None:
    found = names_of(
        [Path(path) for path in ("/r/a", "/r/a/dpo/model", "/s/a", "/r/b/model", "/", "/r/a/export/model")]
    )
    assert found == ["a", "a-dpo", "a-2", "b", "model", "a-export"]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_real_terminal_lines_are_edited_and_remembered(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", model, tokenizer)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gristmill", "chat", str(folder), "--max-new-tokens", "4"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    )  # fmt: skip
    os.close(theirs)
    try:
        read_until(ours, b"> ")
        os.write(ours, b"/system xcat\x01")  # Ctrl-A: to the beginning of the line
        os.write(ours, b"\x1b[C" * 8 + b"\x04\n")  # eight to the right, delete the x
        read_until(ours, b"System message: cat")
        os.write(ours, b"/quit\n")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    history = tmp_path / "gristmill" / "chat_history"
    assert history.read_text().splitlines()[-2:] == ["/system cat", "/quit"]
    assert history.stat().st_mode & 0o77 == 0


def read_until(terminal: int, end: bytes, seconds: float = 60) -> None:
    shown = b""
    while end not in shown:
        assert select.select([terminal], [], [], seconds)[0], shown
        shown += os.read(terminal, 4096)
