"""How the progress of a run is shown: a live block on a terminal, plain lines everywhere else. The choice is made only here.

The block is drawn twice a second below whatever is printed. The cursor is never hidden, so nothing has to be put right on a
terminal whose process was killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gristmill import units
from gristmill.graph.progress import Moment, Position, Report, Tracker
from gristmill.store.heartbeat import Heart

FRAMES_PER_SECOND = 2
LINE_SECONDS = 10.0
BEAT_SECONDS = 1.0
INDENT = 9
BAR_WIDTH = 24
MAX_WIDTH = 1000

VISIBLE = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    **dict.fromkeys(range(127, 160), 0x2421),
}
"""Control characters to pictures: no text, name of a file or model can steer the terminal."""

Clock = Callable[[], float]
Look = Callable[[], Moment]


class Output(Console):
    """Standard output, with control characters of what is printed made visible. A reader may leave first, as `head` does: from then on nothing is written, and `reader_left` is called,
    which ends the process as the system would. A run puts its own in place, so that the step at work is saved first."""

    reader_left: Callable[[], None] = staticmethod(lambda: sys.exit(128 + signal.SIGPIPE))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """What is printed, piece by piece."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else piece._replace(text=piece.text.translate(VISIBLE))

    def on_broken_pipe(self) -> None:
        """Called by rich when it cannot write."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        self.reader_left()


class Screen(Protocol):
    """Shows the progress of a step."""

    def show(self, look: Look) -> None:
        """A step has begun; `look` returns its progress and may be called from any thread."""
        ...

    def report(self) -> None:
        """The step has made progress."""
        ...

    def hide(self) -> None:
        """The step has ended."""
        ...


def screen_for(console: Console, clock: Clock = time.monotonic) -> Screen:
    """The screen for what the console writes to."""
    return Block(console) if _is_live(console) else Lines(console, clock)


@contextmanager
def waiting(console: Console, words: str) -> Iterator[None]:
    """Shows what is waited for: on a terminal as long as it is, everywhere else as a line that stays."""
    if not _is_live(console):
        console.print(words, highlight=False)
        yield
        return
    with Live(Text(words), console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True):
        console.show_cursor(True)
        yield


def plain_table(*headings: str) -> Table:
    """A table without lines; a column whose heading ends with " >" stands right."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading.removesuffix(" >"), justify="right" if heading.endswith(">") else "left")
    return table


def print_whole(table: Table, console: Console) -> None:
    """A table whose cells stay whole, in a pipe or a narrow window, too."""
    table.width = Measurement.get(console, console.options.update(max_width=MAX_WIDTH), table).maximum
    console.print(table, crop=False)


class Say(Protocol):
    """Changes the line of `doing`."""

    def __call__(self, words: str, left_seconds: float | None = None) -> None:
        """left_seconds: until all of it is done, if that is known."""
        ...


@contextmanager
def doing(console: Console, words: str, clock: Clock = time.monotonic) -> Iterator[Say]:
    """One line that says what is done now, and how long all of it still takes or has taken: on the console's terminal, or on that of
    standard error, where the console writes into a pipe or file; nothing elsewhere. Yields the function that changes it."""
    shown = console if console.quiet or _is_live(console) else Console(stderr=True)
    if shown.quiet or not _is_live(shown):
        yield lambda words, left_seconds=None: None
        return
    line, since = words, clock()
    end: float | None = None

    def say(words: str, left_seconds: float | None = None) -> None:
        nonlocal line, end
        line, end = words, None if left_seconds is None else clock() + left_seconds
        live.refresh()

    def draw() -> Text:
        now = clock()
        left = 0.0 if end is None else end - now
        told = (
            f"{units.seconds(left)} left" if left > 0 else f"{units.seconds(now - since)} so far"
        )  # not past the estimated end
        return Text(f"{line}, {told}", no_wrap=True, overflow="ellipsis")

    with Live(console=shown, get_renderable=draw, refresh_per_second=FRAMES_PER_SECOND, transient=True) as live:
        shown.show_cursor(True)
        live.refresh()
        yield say


def _is_live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter


class Block:
    """A live block at the bottom of a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def show(self, look: Look) -> None:
        """Begins to draw."""

        def draw() -> RenderableType:
            return block(look(), self._console.width)

        self._live = Live(
            console=self._console, get_renderable=draw, refresh_per_second=FRAMES_PER_SECOND, transient=True
        )
        self._live.start()
        self._console.show_cursor(True)

    def report(self) -> None:
        """Nothing to do: the next frame shows it."""

    def hide(self) -> None:
        """Leaves nothing of the block."""
        if self._live is not None:
            self._live.stop()


class Lines:
    """A plain line every ten seconds, for files, pipes and terminals that cannot move their cursor."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console, self._clock = console, clock
        self._said, self._line = clock(), ""
        self._look: Look | None = None

    def show(self, look: Look) -> None:
        """The first line of a step comes when it has taken ten seconds."""
        self._look, self._said = look, self._clock()

    def report(self) -> None:
        """Prints the progress when it is time and it has changed."""
        if self._look is None or self._clock() - self._said < LINE_SECONDS:
            return
        self._said = self._clock()
        if (line := str(self._look())) != self._line:
            self._line = line
            _say(self._console, line)

    def hide(self) -> None:
        """Prints nothing more; the end of a step is printed by the runner."""
        self._look = None


class Display:
    """What a person and `gristmill status` see of a run: its console, a screen and a heartbeat.

    Steps may report from several threads. is_stopping: whether the run was asked to end.
    """

    def __init__(
        self,
        console: Console,
        heart: Heart,
        *,
        clock: Clock = time.monotonic,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._console, self._heart, self._clock, self._is_stopping = console, heart, clock, is_stopping
        self._screen = screen_for(console, clock)
        self._lock = threading.Lock()
        self._beaten = -BEAT_SECONDS

    def __enter__(self) -> Display:
        self._heart.beat({})
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._heart.stop(0 if error is None else getattr(error, "exit_code", 1))

    def say(self, line: str) -> None:
        """One line for the reader, above the block."""
        _say(self._console, line)

    @contextmanager
    def following(self, step: str, *, expected_seconds: float, later_seconds: float) -> Iterator[Report]:
        """While a step is at work: gives the function that it reports to. The seconds are those of the forecast, of the step and of
        those after it."""
        tracker = Tracker(step, expected_seconds=expected_seconds, later_seconds=later_seconds, now=self._clock())

        def look() -> Moment:
            return replace(tracker.moment(self._clock()), is_stopping=self._is_stopping())

        def report(position: Position) -> None:
            with self._lock:
                tracker.add(position, self._clock())
                self._screen.report()
                if self._clock() - self._beaten >= BEAT_SECONDS:
                    self._beat(look())

        def tick() -> None:
            """A step that reports nothing for a while is shown all the same."""
            while not is_over.wait(LINE_SECONDS):
                with self._lock:
                    if not is_over.is_set():
                        self._screen.report()
                        self._beat(look())

        is_over = threading.Event()
        with self._lock:
            self._beat(look())
            self._screen.show(look)
        threading.Thread(target=tick, daemon=True).start()
        try:
            yield report
        finally:
            is_over.set()
            with self._lock:
                self._screen.hide()

    def _beat(self, moment: Moment) -> None:
        self._beaten = self._clock()
        self._heart.beat(moment.to_json())


def _say(console: Console, line: str) -> None:
    console.print(f"{' ' * INDENT}[dim]{escape(line)}[/]", highlight=False)


def block(moment: Moment, width: int) -> Padding:
    """The moment on a few lines, none of them longer than the terminal is wide."""
    place = Text.assemble((moment.step, "bold"), f": {moment.where}" if moment.where else "")
    head = Table.grid(padding=(0, 2))
    head.add_column(no_wrap=True, overflow="ellipsis")
    if moment.share is None:
        head.add_row(place)
    else:
        bar = ProgressBar(total=1.0, completed=moment.share, width=min(BAR_WIDTH, width // 4))
        head.add_row(place, bar, f"{moment.share:.0%}")
    lines = [*_filled(moment.figures, width - INDENT), *_filled(moment.time, width - INDENT)]
    rows = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines]
    return Padding(Group(head, *rows), (0, 0, 0, INDENT), expand=False)  # padded lines would wrap when a window narrows


def _filled(words: tuple[str, ...], width: int) -> list[str]:
    """The words on as few lines as hold them, two blanks between two; none is cut in two."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= width:
            lines[-1] += f"  {word}"
        else:
            lines.append(word)
    return lines
