"""What a person sees of a run, on a terminal and in a pipe."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.display import Block, Display, Lines, Output, block, doing, screen_for
from gristmill.errors import Interrupted
from gristmill.graph.progress import Moment, Position
from gristmill.store.heartbeat import Heart, read_beat

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal(width: int = 80) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width, height=24, color_system=None), file


def pipe() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, soft_wrap=True), file


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def at(step: int, **more: object) -> Position:
    return Position(done=step, total=1000, unit="step", **more)  # type: ignore[arg-type]


def test_who_shows_it_is_chosen_by_what_is_written_to() -> None:
    assert isinstance(screen_for(terminal()[0]), Block)
    assert isinstance(screen_for(pipe()[0]), Lines)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(screen_for(dumb), Lines)


def test_a_pipe_gets_a_line_every_ten_seconds_and_no_control_characters(tmp_path: Path) -> None:
    console, file = pipe()
    clock = Clock()
    with (
        Display(console, Heart(tmp_path), clock=clock) as display,
        display.following("pretrain", expected_seconds=5.0, later_seconds=0.0) as report,
    ):
        for step in range(351):
            clock.now = 100.0 + step / 10
            report(at(step, figures=("loss [1.5]",)))
        display.say("said between")
    lines = file.getvalue().splitlines()
    assert lines == [
        "         pretrain: step 100 of 1,000 (10%), loss [1.5], 1.5 min left",
        "         pretrain: step 200 of 1,000 (20%), loss [1.5], 80 s left",
        "         pretrain: step 300 of 1,000 (30%), loss [1.5], 70 s left",
        "         said between",
    ]
    assert "\x1b" not in file.getvalue()


def test_a_step_that_reports_nothing_is_shown_in_a_pipe_too_and_no_line_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.display.LINE_SECONDS", 0.02)
    console, file = pipe()
    clock = Clock()
    with (
        Display(console, Heart(tmp_path), clock=clock) as display,
        display.following("pretrain", expected_seconds=0.0, later_seconds=0.0) as report,
    ):
        report(Position.doing("loading the checkpoint"))
        clock.now = 112.0
        wait_until(lambda: "loading" in file.getvalue())
        clock.now = 112.3
        time.sleep(0.2)
    assert file.getvalue() == "         pretrain: loading the checkpoint, 12 s so far\n"


def test_what_is_done_before_the_first_step_does_not_count_for_its_pace(tmp_path: Path) -> None:
    clock = Clock()
    console, file = pipe()
    with (
        Display(console, Heart(tmp_path), clock=clock) as display,
        display.following("pretrain", expected_seconds=0.0, later_seconds=0.0) as report,
    ):
        report(Position.doing("loading the checkpoint"))
        for step in range(200, 221):
            clock.now = 1000.0 + step
            report(at(step))
    assert file.getvalue().splitlines()[-1].endswith("step 220 of 1,000 (22%), 13.0 min left")


def test_a_run_that_was_asked_to_end_says_so_instead_of_a_time(tmp_path: Path) -> None:
    console, file = pipe()
    clock = Clock()
    with (
        Display(console, Heart(tmp_path), clock=clock, is_stopping=lambda: clock.now > 115.0) as display,
        display.following("pretrain", expected_seconds=5.0, later_seconds=0.0) as report,
    ):
        for second in range(21):
            clock.now = 100.0 + second
            report(at(10 * second))
    first, last = file.getvalue().splitlines()
    assert first.endswith("1.5 min left")
    assert last == (
        "         pretrain: step 200 of 1,000 (20%), stopping as soon as the state is saved; press Ctrl-C again to stop at once"
    )


@pytest.mark.parametrize("error", [None, Interrupted("stopped", signal_number=2), ValueError("a bug")])
def test_the_terminal_and_the_heartbeat_are_left_whole_however_the_step_ends(
    tmp_path: Path, error: Exception | None
) -> None:
    console, file = terminal()

    def go() -> None:
        with (
            Display(console, Heart(tmp_path)) as display,
            display.following("sft", expected_seconds=5.0, later_seconds=0.0) as report,
        ):
            report(at(1))
            display.say("a line above the block")
            beat = read_beat(tmp_path)
            assert beat is not None
            assert (beat.state, beat.doing["step"]) == ("running", "sft")
            written = file.getvalue()
            assert written.rfind(SHOW) > written.rfind(HIDE), "a process that is killed now leaves no cursor"
            if error is not None:
                raise error

    if error is None:
        go()
    else:
        with pytest.raises(type(error)):
            go()
    written = file.getvalue()
    assert "a line above the block" in written
    assert written.rfind(SHOW) > written.rfind(HIDE)
    beat = read_beat(tmp_path)
    assert beat is not None
    assert (beat.state, beat.exit_code) == ("ended", {type(None): 0, Interrupted: 130, ValueError: 1}[type(error)])
    before = file.getvalue()
    console.print("after")
    assert file.getvalue() == f"{before}after\n", "something still draws"


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_no_line_of_the_block_is_longer_than_the_terminal_is_wide(width: int) -> None:
    console, file = terminal(width)
    moment = Moment(
        step="extract/a-source-with-a-name-of-length", spent_seconds=1.0, left_seconds=500.0, later_seconds=9.0,
        rates={"documents": 1234.5},
        position=at(450, part="stage decay", figures=("loss 3.214", "lr 1.25e-03", "9,012 tokens/s", "data wait 1%")),
    )  # fmt: skip
    console.print(block(moment, width))
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 40:
        for words in (*moment.figures, *moment.time):
            assert any(words in line for line in lines), "a figure is cut in two"


def test_what_is_printed_cannot_steer_the_terminal() -> None:
    out = Output(file=io.StringIO(), force_terminal=True, color_system="standard", width=60)
    table = Table("\x1b[31mhead")
    table.add_row(Text("a\x9bb"))
    out.print("\x1b]0;title\x07", Text("\x1b[2J", style="bold"), table, markup=False)
    out.print_json(json.dumps({"name": "\x1b[31m"}))
    written = out.file.getvalue()  # type: ignore[attr-defined]
    assert "␛[2J" in written
    assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[\d;]*m)", written)
    assert "\x1b[31m" not in written


def test_what_is_done_now_is_shown_on_standard_error_where_only_that_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyboard, screen = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with open(screen, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        console, out = pipe()
        with doing(console, "looking at the files") as say:
            say("counting, 2 of 9: signatures text")
        console.print("Wrote recipe.yaml")
        with doing(Console(quiet=True), "not to be seen"):
            pass
        stderr.flush()
        shown = os.read(keyboard, 10_000).decode()
    os.close(keyboard)
    assert "looking at the files" in shown
    assert "counting, 2 of 9: signatures text" in shown
    assert "not to be seen" not in shown
    assert out.getvalue() == "Wrote recipe.yaml\n"


def test_what_is_done_now_is_shown_nowhere_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console, out = pipe()
    with doing(console, "looking") as say:
        say("counting")
    assert out.getvalue() + capsys.readouterr().err == ""
