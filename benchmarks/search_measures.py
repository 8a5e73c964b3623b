"""What benchmarks of searches over documents measure alike: CPU seconds and memory by kind of worker, disk, and the fit against N log N."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.data.executor import LocalProcesses


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A function, with the CPU seconds it took and the peak memory of the process that ran it."""

    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> tuple[Any, float, int]:
        started = time.process_time()
        result = self.function(item)
        return result, time.process_time() - started, high_water_mark()


@dataclass(kw_only=True)
class MeasuringExecutor:
    """LocalProcesses that keeps, per kind of function, calls, CPU seconds of all and the largest peak."""

    processes: int
    kinds: dict[str, dict[str, float]] = field(default_factory=dict)

    def map(self, fn: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        kind = self.kinds.setdefault(type(fn).__name__, {"calls": 0, "cpu_seconds": 0.0, "peak_mb": 0.0})
        for item, outcome in LocalProcesses(processes=self.processes).map(Measured(function=fn), items):
            if isinstance(outcome, Exception):
                yield item, outcome
                continue
            result, seconds, peak = outcome
            kind["calls"] += 1
            kind["cpu_seconds"] += seconds
            kind["peak_mb"] = max(kind["peak_mb"], peak / 1e6)
            yield item, result


class DiskPeak:
    """The most bytes that a folder held."""

    def __init__(self, folder: Path) -> None:
        self.num_bytes = 0
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> DiskPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.num_bytes = max(self.num_bytes, bytes_in(self._folder))


def bytes_in(folder: Path) -> int:
    """What the files below a folder take on disk."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def high_water_mark() -> int:
    """Peak resident bytes of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def run(executor: MeasuringExecutor, function: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Calls the function with each item. Raises the first error."""
    for _, outcome in executor.map(function, items):
        if isinstance(outcome, Exception):
            raise outcome


def fit(rows: Sequence[dict[str, Any]], total: int, curves: Mapping[str, str]) -> None:
    """Prints what `total` documents would take: seconds by c × N log2 N, all else by c × N, through the origin, so that large sizes count
    most, and how far each row lies from the curve. curves: figure → its unit."""
    sizes = np.array([row["documents"] for row in rows], dtype=float)
    for what, unit in curves.items():
        of_N, at_total = (sizes * np.log2(sizes), total * math.log2(total)) if unit == "s" else (sizes, float(total))
        measured = np.array([row[what] for row in rows])
        slope = float((of_N * measured).sum() / (of_N * of_N).sum())
        off = ", ".join(f"{share:+.0%}" for share in measured / (slope * of_N) - 1)
        print(f"{total:>11,} documents, {what}: {slope * at_total:,.0f} {unit} (rows off the curve: {off})")
