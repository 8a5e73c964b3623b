"""What the command line makes of an error: a line and an exit code for what a person can mend, a traceback for a bug."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from gristmill import cli
from gristmill.cli.words import OTHER_WORDS

Command = Callable[..., Any]


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_arguments: object, **_named: object) -> None:
        raise error

    return fail


def of_the_system(number: int, path: str | None = "data/a.txt") -> OSError:
    return OSError(number, os.strerror(number), path) if path is not None else OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.EACCES, 1, "data/a.txt: Permission denied.\n  No permission to read or write it."),
        (errno.EROFS, 1, "data/a.txt: Read-only file system.\n  No permission to read or write it."),
        (errno.ENOSPC, 75, "data/a.txt: No space left on device.\n  Free some space"),
        (errno.ENAMETOOLONG, 1, "data/a.txt: File name too long.\n  Put it right"),
    ],
)
def test_what_the_system_refuses_at_a_path_is_told_in_words(
    gristmill: Command, small_file: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, said: str
) -> None:
    monkeypatch.setattr("gristmill.commands.plan.plan", failing(of_the_system(number)))
    answer = gristmill("plan", small_file)
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith(said)
    assert "Traceback" not in answer.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_output_that_finds_no_space_is_told_in_words() -> None:
    command = [sys.executable, "-c", "from gristmill.cli import main; main()", "-V"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (75, "standard output: No space left on device.")


@pytest.mark.parametrize("error", [KeyError("x"), of_the_system(errno.EBADF, path=None)])
def test_a_bug_keeps_its_traceback(
    gristmill: Command, small_file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("gristmill.commands.plan.plan", failing(error))
    with pytest.raises(type(error)):
        gristmill("plan", small_file)


def test_what_the_system_refuses_is_a_line_that_names_the_file(
    gristmill: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(project / "data" / "novel.txt")

    def refuse(*arguments: object, **named: object) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr("gristmill.runner.open_states", refuse)
    monkeypatch.setattr("gristmill.forecast.open_states", refuse)
    for command in ("plan", "run"):
        answer = gristmill(command, "recipe.yaml")
        assert answer.code == 1
        assert answer.err.startswith(f"{path}: Permission denied.\n")


@pytest.mark.parametrize(
    ("verb", "meant"),
    [("train", "run"), ("new", "init"), ("generate", "chat"), ("statsu", "status"), ("paln", "plan"), ("trian", "run")],
)
def test_a_verb_of_another_name_is_answered_with_ours(gristmill: Command, verb: str, meant: str) -> None:
    answer = gristmill(verb, "recipe.yaml")
    assert answer.code == 2
    assert f"No such command '{verb}'. Did you mean '{meant}'?" in answer.err


WHY = ("--why", "for the sake of a test")
MORE = {
    "export": ("--to", "gguf"), "diff": ("another",), "why": ("an-id",), "compare": ("another",), "trace": ("--step", "1"),
    "intervene": ("--peak-lr", "0.001", *WHY), "rewind": ("--to", "1", "--skip", "1", *WHY),
}  # fmt: skip  # that a verb takes beside the path


@pytest.mark.parametrize(
    "verb",
    [
        "run",
        "launch",
        "plan",
        "status",
        "inspect",
        "chat",
        "serve",
        "export",
        "recipe",
        "diff",
        "why",
        "compare",
        "trace",
        "intervene",
        "rewind",
        "ablate",
        "verify",
    ],
)
def test_a_path_that_leads_nowhere_is_a_wrong_command_line(gristmill: Command, tmp_path: Path, verb: str) -> None:
    answer = gristmill(verb, tmp_path / "nowhere", *MORE.get(verb, ()))
    assert answer.code == 2
    assert "nowhere" in answer.err


def test_other_words_for_a_verb_lead_to_a_verb() -> None:
    verbs = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert set(OTHER_WORDS.values()) <= verbs
    assert not verbs & set(OTHER_WORDS)


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_told(gristmill: Command, option: str) -> None:
    assert gristmill(option).out.strip() == version("gristmill")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_verbs(shell: str) -> None:
    code = "import sys; sys.argv = ['gristmill']; from gristmill.cli import main; main()"
    words = {"COMP_WORDS": "gristmill pl", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "gristmill pl"}
    asked = {
        **os.environ,
        **words,
        "_GRISTMILL_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=True)
    assert "plan" in done.stdout
    assert "chat" not in done.stdout


def test_a_folder_stands_for_the_recipe_in_it(gristmill: Command, project: Path) -> None:
    assert "tiny  Every step" in gristmill("plan", project).out
    (project / "runs" / ".store").mkdir(parents=True)
    (project / "runs" / "tiny").mkdir()
    for folder, words in (
        ("runs/tiny", "is a run's folder, not a recipe's"),
        ("data", "is a folder without a recipe.yaml"),
    ):
        answer = gristmill("plan", folder)
        assert answer.code == 2
        assert words in answer.err
