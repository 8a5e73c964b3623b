"""The deadline of the document at hand, in a guarded child process: the kernel's interval timer, whose default action ends it.

Reading a large stretch that gives no document (a line of 10 GB, half a gigabyte of blank lines) is work, not a hang: whoever
reads in pieces calls `extend` between them. Outside of a guarded child nothing is armed, and `extend` does nothing.
"""

from __future__ import annotations

import signal

_seconds = 0.0


def arm(seconds: float) -> None:
    """Ends this process after so much wall time, unless it is armed again, extended or disarmed before."""
    global _seconds
    _seconds = seconds
    signal.setitimer(signal.ITIMER_REAL, seconds)


def extend() -> None:
    """Grants what was armed once more, from now on."""
    if _seconds:
        signal.setitimer(signal.ITIMER_REAL, _seconds)


def disarm() -> None:
    """Takes the deadline away."""
    arm(0.0)
