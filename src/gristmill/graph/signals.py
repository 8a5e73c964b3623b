"""Signals: the first asks the step at work to save and leave, a second Ctrl-C ends at once.

A reader of standard output that left counts as a signal too: what it would have been, SIGPIPE.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any


class Signals:
    """The first SIGTERM, SIGUSR1 or Ctrl-C asks the step to save and leave; a second Ctrl-C quits at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def reader_left(self) -> None:
        """Nobody reads standard output any more. Ctrl-C in a pipeline ends its readers too, so it counts before and after."""
        self.received = self.received or signal.SIGPIPE

    def _receive(self, number: int, _frame: object) -> None:
        if self.received not in (None, signal.SIGPIPE) and number == signal.SIGINT:
            with suppress(OSError):
                os.write(2, b"\nstopped at once; the same command resumes from what was saved\n")
            os._exit(130)  # an exception here could leave a half-imported module and another error in its place
        self.received = number
