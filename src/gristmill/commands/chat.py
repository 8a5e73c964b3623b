"""`gristmill chat`: talk to a model in the terminal, or to several side by side. Answers appear token by token.

A chat model gets the conversation through its chat template. A base model continues what is typed, and a line at the start says so.
Without a terminal, every line of standard input is a message or a command, and only the answers are printed.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gristmill.commands.model_folder import find_model, introduction, load_speakers, older_than
from gristmill.display import VISIBLE
from gristmill.errors import GristmillError, RecipeError
from gristmill.model.generate import stream
from gristmill.serve.speaker import Speaker, TextOfTokens
from gristmill.units import counted

SEED = 0
HISTORY_LINES = 1000
HELP = """\
/reset            starts a new conversation
/system TEXT      sets the system message; without TEXT removes it
/temperature X    0 is greedy; above 0 samples
/save FILE        writes the conversation as JSON lines, in the format of chat.conversations
/help             shows this list
/quit             leaves, as Ctrl-D does; Ctrl-C stops an answer, or leaves the prompt"""


def chat(
    targets: Sequence[Path],
    *,
    prompt: str | None,
    system: str | None,
    temperature: float,
    max_new_tokens: int | None,
    console: Console,
    stdin: TextIO,
    history: Path,
) -> None:
    """Answer `prompt` once, or talk until /quit or the end of `stdin`. Typed lines are kept in the file `history`.

    Raises ArtifactError when a target holds no model, RecipeError for options that a model cannot serve.
    """
    talks = [
        Conversation(
            speaker=speaker,
            max_new_tokens=_checked_limit(speaker, max_new_tokens),
            temperature=_checked_temperature(temperature, "--temperature"),
            system=system,
        )
        for speaker in load_speakers(targets)
    ]
    interactive = prompt is None and stdin.isatty()
    if interactive and isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="replace")  # a stray byte that was typed or pasted ends nothing
    told = console if interactive else Console(stderr=True)  # standard output gets only the answers
    for target, talk in zip(targets, talks, strict=True):
        folder = find_model(target)
        line = introduction(folder, talk.speaker) if prompt is None or not talk.speaker.is_chat else None
        for told_line in filter(None, (line, older_than(target, folder))):
            told.print(told_line, markup=False, highlight=False, soft_wrap=not interactive)
    if interactive:
        told.print("/help shows the commands, /quit leaves.")
    with _interruptible() if interactive else contextlib.nullcontext():
        for text in [prompt] if prompt is not None else _lines(stdin, console, history, interactive=interactive):
            if prompt is None and text.startswith("/"):
                if text == "/quit":
                    return
                told.print(_obey(text, talks), markup=False, highlight=False, soft_wrap=True)
            elif text.strip():
                _answer(talks, text, console, told, interactive=interactive)


@dataclass(kw_only=True)
class Conversation:
    """The turns so far, and the model that answers. Turns that no longer fit are dropped, oldest first.

    system_since: messages before the system message was set; the model reads it first all the same.
    """

    speaker: Speaker
    max_new_tokens: int
    temperature: float
    system: str | None = None
    system_since: int = 0
    messages: list[dict[str, str]] = field(default_factory=list)
    num_dropped: int = 0

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(SEED)

    @property
    def spoken(self) -> list[dict[str, str]]:
        """The system message and the turns that say something, as the template takes them."""
        before = [{"role": "system", "content": self.system}] if self.system and self.system.strip() else []
        return before + [message for message in self.messages if message["content"].strip()]

    def ask(self, text: str) -> Iterator[str]:
        """The answer in pieces of text as they are generated; afterwards it is part of the conversation, even if interrupted.

        `num_dropped` is then the number of old messages left out. Raises RecipeError when the message itself is too long, DataError
        when it is not valid Unicode; the conversation is then as it was.
        """
        before = self.messages
        self.messages = [*before, {"role": "user", "content": text}]
        try:
            ids = self._prompt(text)
        except GristmillError:
            self.messages, self.num_dropped = before, 0
            raise
        written, said = TextOfTokens(self.speaker.tokenizer), ""
        new = stream(
            self.speaker.model,
            ids,
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.speaker.ends,
            temperature=self.temperature,
            generator=self._generator,
        )
        try:
            for token in new:
                if token not in self.speaker.ends:
                    piece = written.add(token)
                    said += piece
                    yield piece
            rest = written.end()
            said += rest
            yield rest
        finally:
            self.messages.append({"role": "assistant", "content": said})

    def _prompt(self, text: str) -> list[int]:
        room = self.speaker.context - self.max_new_tokens
        self.num_dropped = 0
        if not self.speaker.is_chat:
            self.messages = self.messages[-1:]
            return self._fitting(self.speaker.text_prompt(text), room)
        while True:
            ids = self.speaker.chat_prompt(self.spoken)
            if len(ids) <= room or len(self.messages) == 1:
                return self._fitting(ids, room)
            dropped = 2 if len(self.messages) > 2 else 1
            self.messages, self.num_dropped = self.messages[dropped:], self.num_dropped + dropped

    def _fitting(self, ids: list[int], room: int) -> list[int]:
        if len(ids) > room:
            raise RecipeError(
                f"the message has {len(ids)} tokens; the model's context of {self.speaker.context} leaves "
                f"{room} beside an answer of {self.max_new_tokens}. Shorten it, or lower --max-new-tokens."
            )
        return ids


def _checked_limit(speaker: Speaker, max_new_tokens: int | None) -> int:
    limit = speaker.usual_new_tokens if max_new_tokens is None else max_new_tokens
    if not 0 < limit < speaker.context:
        raise RecipeError(
            f"--max-new-tokens is {limit}; the context of {speaker.name} is {speaker.context} tokens. "
            f"Use 1 to {speaker.context - 1}."
        )
    return limit


def _checked_temperature(temperature: float, what: str) -> float:
    if not (temperature == 0 or 0.01 <= temperature <= 100):
        raise RecipeError(f"{what} is {temperature:g}; use 0 for greedy answers, or a number from 0.01 to 100.")
    return temperature


def _obey(line: str, talks: Sequence[Conversation]) -> str:
    """Carry a command out; what to tell of it."""
    verb, _, rest = line.partition(" ")
    rest = rest.strip()
    if verb == "/help":
        return HELP
    if verb == "/reset":
        for talk in talks:
            talk.messages.clear()
            talk.system_since = 0
        return "New conversation."
    if verb == "/system":
        for talk in talks:
            talk.system, talk.system_since = rest or None, len(talk.messages)
        unable = [talk.speaker.name for talk in talks if not talk.speaker.is_chat]
        told = f"System message: {rest}" if rest else "No system message."
        return told + (f" It has no effect on a base model ({', '.join(unable)})." if unable else "")
    if verb == "/temperature":
        try:
            temperature = _checked_temperature(float(rest), verb)
        except (ValueError, RecipeError) as error:
            return (
                str(error)
                if isinstance(error, RecipeError)
                else f"{line}: expected a number, such as /temperature 0.7."
            )
        for talk in talks:
            talk.temperature = temperature
        return f"Temperature {temperature:g}."
    if verb == "/save":
        return _save(rest, talks)
    return f"Unknown command {verb}. /help lists the commands."


def _save(name: str, talks: Sequence[Conversation]) -> str:
    if not name:
        return "/save needs the name of a file."
    told = [talk for talk in talks if talk.messages]
    lines = [json.dumps({"id": talk.speaker.name, "messages": talk.spoken}, ensure_ascii=False) for talk in told]
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except FileExistsError:
        return f"{path} exists; nothing was written. Choose another name."
    except OSError as error:
        return f"{path}: {error.strerror}; nothing was written."
    late = any(talk.system and talk.system_since for talk in told)
    first = " The system message, set later, stands first: so the model has read it since." if late else ""
    return f"Saved {counted(len(lines), 'conversation')} to {path}.{first}"


def _answer(talks: Sequence[Conversation], text: str, console: Console, told: Console, *, interactive: bool) -> None:
    """Print what each model answers: alone as it comes, in columns all at once, without a terminal one below the other.

    At a terminal a message that a model cannot take is told, and the conversation goes on.
    """
    try:
        if interactive and len(talks) > 1:
            _answer_in_columns(talks, text, console)
            return
        for talk in talks:
            if len(talks) > 1:
                console.print(f"[{talk.speaker.name}]", markup=False, highlight=False)
            try:
                for number, piece in enumerate(talk.ask(text)):
                    if number == 0:
                        _tell_dropped(talk, told)
                    console.print(piece.translate(VISIBLE), end="", markup=False, highlight=False, soft_wrap=True)
                    console.file.flush()
            finally:
                console.print()
    except GristmillError as error:
        if not interactive:
            raise
        told.print(str(error), markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        told.print("(stopped)", style="dim")


def _answer_in_columns(talks: Sequence[Conversation], text: str, console: Console) -> None:
    """The models take turns, a token each, in columns side by side."""
    said = [Text() for _ in talks]
    table = Table(expand=True, box=None, padding=(0, 2, 0, 0))
    for talk in talks:
        table.add_column(Text(talk.speaker.name), ratio=1, overflow="fold")
    table.add_row(*said)
    answers = {number: talk.ask(text) for number, talk in enumerate(talks)}
    try:
        with Live(table, console=console, transient=True, refresh_per_second=8, vertical_overflow="ellipsis"):
            while answers:
                for number in list(answers):
                    try:
                        piece = next(answers[number], None)
                    except GristmillError as error:
                        piece = str(error)
                    if piece is None:
                        del answers[number]
                    else:
                        said[number].append(piece.translate(VISIBLE))
    finally:
        for answer in answers.values():
            answer.close()  # type: ignore[attr-defined]
        for talk in talks:
            _tell_dropped(talk, console)
        console.print(table)


def _tell_dropped(talk: Conversation, told: Console) -> None:
    if talk.num_dropped:
        told.print(f"(the context is full: dropped the oldest {counted(talk.num_dropped, 'message')})", style="dim")


def _lines(stdin: TextIO, console: Console, history: Path, *, interactive: bool) -> Iterator[str]:
    """Messages: typed at a prompt, with line editing where the terminal is real, or the lines of a pipe."""
    if interactive and stdin is sys.stdin:
        yield from _edited_lines(history)
        return
    while True:
        if interactive:
            console.print("> ", end="", style="bold")
        try:
            line = stdin.readline()
        except UnicodeDecodeError as error:
            raise RecipeError(f"standard input is not UTF-8 text: {error}. Convert it.") from error
        if not line:
            return
        yield line.strip()


def _edited_lines(history: Path) -> Iterator[str]:
    """Lines typed at a terminal, with the keys of readline; they are kept for the next time, readable by their owner only."""
    import readline

    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    try:
        while True:
            try:
                yield input("> ").strip()
            except EOFError:
                print()
                return
    finally:
        with contextlib.suppress(OSError):  # a history that cannot be written is not an error
            history.parent.mkdir(parents=True, exist_ok=True)
            history.touch(mode=0o600)
            readline.write_history_file(history)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, which stops an answer. At the prompt it is not caught and ends the program."""
    try:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGINT, before)
