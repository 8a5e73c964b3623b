"""`gristmill chat`: talk to a model in the terminal. Answers appear token by token.

A chat model gets the conversation through its template. A base model was never taught to answer: it continues what is typed,
and says so first. Without a terminal, every line of standard input is a message and only the answers are printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console

from gristmill.commands.run_folder import refuse_broken_links, refuse_unfinished
from gristmill.errors import ArtifactError, RecipeError
from gristmill.model.generate import stream
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.outputs import MODEL_STEPS
from gristmill.units import counted

BEST_FIRST = MODEL_STEPS[::-1]
RESET, QUIT = "/reset", "/quit"
SEED = 0
MAX_NEW_TOKENS = 128  # where nobody said, or half of the context where that is less
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
"""Control characters to their pictures: a model must not be able to steer the terminal."""


def chat(
    target: Path,
    *,
    prompt: str | None,
    temperature: float,
    max_new_tokens: int | None,
    console: Console,
    stdin: TextIO,
) -> None:
    """Answer `prompt` once, or talk until /quit or the end of `stdin`.

    Raises ArtifactError when `target` holds no model, RecipeError for options that the model cannot serve.
    """
    folder = find_model(target)
    model, tokenizer = load_model(folder).eval(), Tokenizer.load(folder)
    context = model.config.max_position_embeddings
    if max_new_tokens is None:
        max_new_tokens = min(MAX_NEW_TOKENS, context // 2)
    if not 0 < max_new_tokens < context:
        raise RecipeError(
            f"--max-new-tokens is {max_new_tokens}; the model's context is {context} tokens. Use 1 to {context - 1}."
        )
    if temperature < 0:
        raise RecipeError(f"--temperature is {temperature}; use 0 for greedy answers or a number above.")
    talk = Conversation(model=model, tokenizer=tokenizer, max_new_tokens=max_new_tokens, temperature=temperature)
    interactive = prompt is None and stdin.isatty()
    told = console if interactive else Console(stderr=True)  # standard output gets only the answers
    told.print(_introduction(folder, talk), markup=False, highlight=False, soft_wrap=not interactive)
    for text in [prompt] if prompt is not None else _lines(console, stdin, interactive=interactive):
        if text == QUIT:
            return
        if text == RESET:
            talk.messages.clear()
            told.print("New conversation.")
        elif text:
            _answer(talk, text, console, told)


def find_model(target: Path) -> Path:
    """The model folder that a path means: itself, its model/, or the best of a run (dpo, else sft, else pretrain)."""
    for folder in (target, target / "model", *(target / step / "model" for step in BEST_FIRST)):
        if (folder / "config.json").is_file():
            return folder
    refuse_broken_links(target)
    refuse_unfinished(target, BEST_FIRST)
    raise ArtifactError(
        f"{target} holds no model. Name a model folder (config.json and model.safetensors), or a run's folder that has "
        f"{', '.join(BEST_FIRST)}; `gristmill run` makes one."
    )


@dataclass(kw_only=True)
class Conversation:
    """The turns so far, and the model that answers. Turns that no longer fit are dropped, oldest first."""

    model: Llama
    tokenizer: Tokenizer
    max_new_tokens: int
    temperature: float
    messages: list[dict[str, str]] = field(default_factory=list)
    num_dropped: int = 0

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(SEED)

    @property
    def is_chat(self) -> bool:
        """Fine-tuning makes the end of a turn the model's end token; a base model ends with the end of the text."""
        end = self.model.config.eos_token_id
        return self.tokenizer.im_end_id in (end if isinstance(end, list) else [end])

    def ask(self, text: str) -> Iterator[str]:
        """The answer in pieces of text, as they come; afterwards it is part of the conversation.

        `num_dropped` then says how many old messages were left out. Raises RecipeError when the message itself is too long.
        """
        self.messages.append({"role": "user", "content": text})
        ids = self._prompt(text)
        ends = {self.tokenizer.eos_id, self.tokenizer.im_end_id}
        written: list[int] = []
        answer = ""
        new = stream(
            self.model,
            ids,
            max_new_tokens=self.max_new_tokens,
            stop_ids=ends,
            temperature=self.temperature,
            generator=self._generator,
        )
        for token in new:
            if token in ends:
                break
            written.append(token)
            text_so_far = self.tokenizer.decode(written).rstrip(INCOMPLETE)  # a character may come in several tokens
            yield text_so_far[len(answer) :]
            answer = text_so_far
        whole = self.tokenizer.decode(written)
        yield whole[len(answer) :]
        self.messages.append({"role": "assistant", "content": whole})

    def _prompt(self, text: str) -> list[int]:
        room = self.model.config.max_position_embeddings - self.max_new_tokens
        self.num_dropped = 0
        if not self.is_chat:
            self.messages = self.messages[-1:]
            return self._fitting([self.tokenizer.eos_id, *self.tokenizer.encode(text)], room)
        while True:
            spoken = [message for message in self.messages if message["content"].strip()]
            ids, _ = encode_chat(self.tokenizer, spoken, add_generation_prompt=True)
            if len(ids) <= room or len(self.messages) == 1:
                return self._fitting(ids, room)
            dropped = 2 if len(self.messages) > 2 else 1
            self.messages, self.num_dropped = self.messages[dropped:], self.num_dropped + dropped

    def _fitting(self, ids: list[int], room: int) -> list[int]:
        if len(ids) > room:
            self.messages.pop()
            raise RecipeError(
                f"the message takes {len(ids)} tokens; the model's context of {self.model.config.max_position_embeddings} leaves "
                f"{room} beside an answer of {self.max_new_tokens}. Shorten it, or lower --max-new-tokens."
            )
        return ids


def _answer(talk: Conversation, text: str, console: Console, told: Console) -> None:
    for number, piece in enumerate(talk.ask(text)):
        if number == 0 and talk.num_dropped:
            told.print(f"(the context is full: dropped the oldest {counted(talk.num_dropped, 'message')})", style="dim")
        console.print(piece.translate(VISIBLE), end="", markup=False, highlight=False, soft_wrap=True)
        console.file.flush()
    console.print()


def _lines(console: Console, stdin: TextIO, *, interactive: bool) -> Iterator[str]:
    """Messages: typed at a prompt, or the lines of a pipe."""
    while True:
        if interactive:
            console.print("> ", end="", style="bold")
        line = stdin.readline()
        if not line:
            return
        yield line.strip()


def _introduction(folder: Path, talk: Conversation) -> str:
    kind = "a chat model" if talk.is_chat else "a base model: it was not taught to answer, it continues your text"
    size = sum(parameter.numel() for parameter in talk.model.parameters())
    return f"{folder} is {kind} ({size:,} parameters). {RESET} starts a new conversation, {QUIT} leaves."
