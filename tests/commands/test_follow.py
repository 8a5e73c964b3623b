"""What a run in another process does, by its heartbeat."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from gristmill.commands.follow import follow, loading_seconds, told
from gristmill.graph.progress import Moment, Position
from gristmill.store.heartbeat import HEARTBEAT, Heart, read_beat

HALF = Moment(
    step="pretrain",
    spent_seconds=60.0,
    position=Position(done=450, total=900, unit="step", part="stage decay"),
    left_seconds=720.0,
)


def words(folder: Path) -> str:
    beat = read_beat(folder)
    assert beat is not None
    return told(beat)


def change(folder: Path, **values: object) -> None:
    path = folder / HEARTBEAT
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_run_at_work_is_told_in_a_line(tmp_path: Path) -> None:
    Heart(tmp_path).beat(HALF.to_json())
    line = f"running: pretrain: stage decay, step 450 of 900 (50%), 12.0 min left (process {os.getpid()})"
    assert words(tmp_path) == line
    change(tmp_path, at=time.time() - 60)
    assert "11.0 min left" in words(tmp_path)
    assert f"(process {os.getpid()}, last heartbeat 60 s ago)" in words(tmp_path)
    change(tmp_path, host="elsewhere")
    assert " on elsewhere, last heartbeat" in words(tmp_path)
    change(tmp_path, doing={"of": "another version"})
    assert "running: between two steps" in words(tmp_path)


@pytest.mark.parametrize("code", [0, 1, 75, 130])
def test_following_ends_as_the_run_ended(tmp_path: Path, code: int) -> None:
    heart = Heart(tmp_path)
    heart.beat({})
    moments: Iterator[Moment | None] = iter([HALF, None, HALF, None])

    def sleep(_seconds: float) -> None:
        moment = next(moments)
        heart.beat(moment.to_json()) if moment is not None else heart.stop(code)

    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    assert follow(tmp_path, console=console, sleep=sleep) == code
    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    assert "step 450 of 900" in written
    assert f"ended with exit code {code}" in written.splitlines()[-1]


def test_following_a_killed_run_is_a_failure_and_one_that_never_was_is_none(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    assert follow(tmp_path, console=console, sleep=lambda _: None) == 0
    Heart(tmp_path).beat(HALF.to_json())
    change(tmp_path, started=1.0)
    assert follow(tmp_path, console=console, sleep=lambda _: None) == 1
    assert isinstance(console.file, io.StringIO)
    said = " ".join(console.file.getvalue().split())
    assert said.endswith(
        "the last run was killed, at pretrain: stage decay, step 450 of 900 (50%); run the same command to resume"
    )


def test_a_run_that_was_started_a_moment_before_is_followed_and_not_the_end_of_the_last_one(tmp_path: Path) -> None:
    heart = Heart(tmp_path)
    heart.stop(1)
    does: Iterator[Callable[[], None]] = iter(
        [lambda: None, lambda: None, lambda: heart.beat(HALF.to_json()), lambda: heart.stop(0)]
    )
    console = Console(file=io.StringIO(), width=120)
    assert follow(tmp_path, console=console, sleep=lambda _: next(does)()) == 0
    assert isinstance(console.file, io.StringIO)
    first, *_, last = console.file.getvalue().splitlines()
    assert first == "no run is at work; waiting 6 s for one to start"
    assert "exit code 0" in last


def test_on_a_terminal_the_words_of_waiting_go_when_the_run_begins(tmp_path: Path) -> None:
    heart = Heart(tmp_path)
    heart.stop(1)
    does: Iterator[Callable[[], None]] = iter([lambda: heart.beat(HALF.to_json()), lambda: heart.stop(0)])
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"})
    assert follow(tmp_path, console=console, sleep=lambda _: next(does)()) == 0
    assert isinstance(console.file, io.StringIO)
    _, words, after = console.file.getvalue().partition("no run is at work; waiting 6 s for one to start")
    assert words
    assert "\x1b[2K" in after.partition("pretrain")[0], "the line is erased before the run is shown"


def test_a_busy_machine_gives_a_run_longer_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, waited in ((1.0, 6.0), (10.0, 20.0), (5000.0, 60.0)):
        monkeypatch.setattr(
            "gristmill.commands.follow.psutil.Process",
            lambda age=age: SimpleNamespace(create_time=lambda: time.time() - age),
        )
        assert loading_seconds() == pytest.approx(waited, abs=0.5)
    monkeypatch.undo()
    heart = Heart(tmp_path)
    heart.stop(130)
    does: Iterator[Callable[[], None]] = iter(
        [*[lambda: None] * 15, lambda: heart.beat(HALF.to_json()), lambda: heart.stop(0)]
    )
    console = Console(file=io.StringIO(), width=120)
    assert follow(tmp_path, console=console, loading_seconds=20.0, sleep=lambda _: next(does)()) == 0
