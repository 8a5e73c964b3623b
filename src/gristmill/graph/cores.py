"""How busy other processes keep the cores that this process may use."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress

import psutil

from gristmill.graph.machine import allowed_cores, usable_cpus
from gristmill.units import counted

LOOK_SECONDS = 0.2  # the kernel counts in hundredths of a second
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # what a core does, by psutil's names
NOTABLE = 0.25  # busy cores; less is what any machine does besides


class CoreWatch:
    """Looks at the cores now, and tells later what other processes have used of them since.

    Children and what they start count as this process.
    """

    def __init__(self) -> None:
        self._since = _used()

    def busy_cores(self) -> float | None:
        """Cores that other processes kept busy, on average since the last look; None where that was too short ago to tell."""
        then, all_then, own_then = self._since
        if time.monotonic() - then < LOOK_SECONDS / 2:  # before a look, which goes through all processes
            return None
        self._since = now, all_now, own_now = _used()
        others = (all_now - all_then - (own_now - own_then)) / (now - then)
        usable = usable_cpus()
        # Of a group whose time is limited, cores that others may keep busy first. Others in the same group are not told apart.
        spare = max(0, len(allowed_cores()) - usable)
        return min(float(usable), max(0.0, others - spare))


def busy_cores(seconds: float = LOOK_SECONDS) -> float:
    """Cores that other processes keep busy now: waits for so long, and uses none meanwhile."""
    watch = CoreWatch()
    time.sleep(seconds)
    return watch.busy_cores() or 0.0


def idle_threads(most: int, busy: float) -> int:
    """How many threads find a core of their own beside so many busy cores: at least one."""
    return max(1, min(most, round(usable_cpus() - busy)))


def times_as_long(busy: float) -> float:
    """How much longer work takes for all cores while others keep so many of them busy: it has those that are idle, and at least one
    thread that shares the cores with the others."""
    cores = usable_cpus()
    return cores / max(cores - busy, cores / (1 + busy))


def load_words(busy: float) -> str:
    """ "other processes keep 1.4 of 2 cores busy"; empty where they do nothing notable."""
    return f"other processes keep {busy:.1f} of {counted(usable_cpus(), 'core')} busy" if busy >= NOTABLE else ""


def _used() -> tuple[float, float, float]:
    """(clock, seconds that the usable cores were busy, seconds of them that this process and its descendants used)."""
    process = psutil.Process()
    own = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # then its parent has waited for it, or will
            own += sum(each.cpu_times()[:4])  # user, system, and both of the children that it waited for
    every = psutil.cpu_times(percpu=True)
    busy = of_usable([sum(getattr(core, kind, 0.0) for kind in BUSY) for core in every], allowed_cores())
    return time.monotonic(), busy, own


def of_usable(busy: Sequence[float], usable: Collection[int]) -> float:
    """Busy seconds of the usable cores. A container may list only its own, from 0 on, and a core that is off is not listed: where
    numbers do not fit, as many cores as are usable have their share of all."""
    if max(usable) < len(busy):
        return sum(busy[core] for core in usable)
    return sum(busy) * min(1.0, len(usable) / max(1, len(busy)))
