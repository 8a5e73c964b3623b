"""The page of a run while it trains: `report.html` in the run's folder, written by a process of its own.

    run ──(pretraining is at work for 15 s)──→ gristmill inspect RUN --page RUN/report.html --follow ──(heartbeat: ended, or killed)──→ the last page

The other process has the lowest priority and reads files only, so the page is never in the way of a step, and nothing depends on it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

PAGE = "report.html"
AFTER_SECONDS = 15.0  # of pretraining; what is shorter is shown by the report alone
LAST_SECONDS = 10.0  # for the last page, when a run ends
LOWEST = 19  # niceness


class LivePage:
    """That of the run in `folder`. Outermost around a run: it waits for the last page, which is written once the heartbeat has ended."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._page = folder, folder / PAGE
        self._timer: threading.Timer | None = None
        self._writer: subprocess.Popen[bytes] | None = None

    def begin(self, *, trains: bool) -> None:
        """A step is made. trains: it is pretraining, of which there is a page; later steps only bring the one that is there up to date."""
        if self._timer is None and (trains or self._page.is_file()):
            self._timer = threading.Timer(AFTER_SECONDS, self._start)
            self._timer.daemon = True
            self._timer.start()

    def __enter__(self) -> LivePage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer.join()
        if self._writer is None and self._page.is_file():
            self._start()
        if self._writer is not None and kind is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._writer.wait(LAST_SECONDS)

    def _start(self) -> None:
        self._writer = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "gristmill",
                "inspect",
                str(self._folder),
                "--page",
                str(self._page),
                "--follow",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the run; the writer ends after it
        )
        with contextlib.suppress(OSError):  # it is gone already
            os.setpriority(os.PRIO_PROCESS, self._writer.pid, LOWEST)
