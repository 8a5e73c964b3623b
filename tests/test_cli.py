"""What the command line makes of an error: a line and an exit code for what a person can mend, a traceback for a bug."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
