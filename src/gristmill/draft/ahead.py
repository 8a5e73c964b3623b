"""How long `init` still takes: one time over all that it does, reading and the steps that count what was read.

    seconds left = work left × (seconds so far + first) / (work done so far + first)        of reading, and of counting

Work is in seconds as `plan` foretells the steps; `first`, a share of all of it, is how much the forecast counts beside what is
seen. So at a steady pace the time that is told lies between the forecast and the truth, and comes closer to the truth all the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

FIRST = 0.25  # of all work
FIRST_TEXT = 0.05  # of all text: how much its amount by the sizes of files counts beside what is read


class Pace:
    """Work done, and the seconds since it began."""

    def __init__(self, work: float, clock: Callable[[], float] = time.monotonic) -> None:
        """work: all of it, as it is foretold."""
        self._first, self._clock, self._began = max(FIRST * work, 1e-3), clock, clock()

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began

    def seconds(self, left: float, *, done: float) -> float:
        """What is left takes so long."""
        return left * (self.spent + self._first) / (done + self._first)


class Ahead:
    """Says what is done now and how long all of it still takes."""

    def __init__(
        self,
        say: Callable[[str, float], None],
        seconds: Mapping[str, float],
        *,
        text_bytes: float,
        reading_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """seconds: of the steps up to tokenize, over all text, whose bytes are told by the sizes of files. reading_seconds: that reading
        takes at most."""
        self._say, self._clock, self._most = say, clock, reading_seconds
        self._reading = max(1e-3, sum(took for step, took in seconds.items() if step.startswith("extract/")))
        self._counting = {step: took for step, took in seconds.items() if not step.startswith("extract/")}
        self._expected = self._text = max(1.0, text_bytes)
        self._share = 1.0  # of the bytes, read
        self._at, self._done = "", 0.0  # the step, and the work of those before it
        self._pace: Pace | None = None

    def waits(self, words: str, seconds: float) -> None:
        """Before reading, for so long."""
        self._say(words, seconds + min(self._reading, self._most) + sum(self._counting.values()))

    def reads(self, words: str, *, share: float, most_share: float, text_bytes: float) -> None:
        """A share of the bytes is read, of which at most another will be, and held so much text."""
        if self._pace is None:
            self._pace = Pace(self._reading, self._clock)
        self._share, self._text = share, text_bytes
        of_all = self._pace.seconds(self._reading, done=share * self._reading)
        left = min((most_share - share) * of_all, self._most - self._pace.spent)
        end = share + max(0.0, left) / of_all
        self._say(words, max(0.0, left) + end * self._work(self._counting))

    def counts(self, words: str, step: str, later: Iterable[str]) -> None:
        """A step begins, which ends the one before it, and later ones follow."""
        left = self._share * self._work([step, *later])
        if not self._at:
            self._pace = Pace(left, self._clock)
        assert self._pace is not None
        self._done += self._share * self._work([self._at])
        self._at = step
        self._say(words, self._pace.seconds(left, done=self._done))

    def _work(self, steps: Iterable[str]) -> float:
        """Of steps over all text, by how much there was of it in what was read."""
        first = FIRST_TEXT * self._expected
        found = (self._text + first) / (self._share * self._expected + first)
        return found * sum(self._counting.get(step, 0.0) for step in steps)
