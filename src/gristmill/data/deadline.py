"""The deadline of the record at hand, in a guarded child process: the kernel's interval timer, whose default action ends it.

Reading a large stretch that gives no document (a line of 10 GB, half a gigabyte of blank lines) is work, not a hang: whoever
reads in pieces calls `extend` between them. Outside of a guarded child nothing is armed, and `extend` does nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable


def _no_beat() -> None:
    pass


_seconds = 0.0
_beat: Callable[[], None] = _no_beat


def arm(seconds: float, *, beat: Callable[[], None] = _no_beat) -> None:
    """Ends this process after so much wall time, unless it is armed again, extended or disarmed before.

    beat: called by `extend`, as a sign of life to the parent.
    """
    global _seconds, _beat
    _seconds, _beat = seconds, beat
    signal.setitimer(signal.ITIMER_REAL, seconds)


def extend() -> None:
    """Grants what was armed once more, from now on."""
    if _seconds:
        signal.setitimer(signal.ITIMER_REAL, _seconds)
        _beat()


def disarm() -> None:
    """Takes the deadline away."""
    arm(0.0)
