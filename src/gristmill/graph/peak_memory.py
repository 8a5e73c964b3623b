"""The peak of resident memory while one piece of work is done, in this process and in its children.

    with PeakMemory() as peak: ...        peak.to_json() → {"process": 312000000, "largest_child": 0, "how": "high-water mark"}

Linux keeps a high-water mark of resident memory for each process and lets its owner set it back, so this process's own peak is
exact. A child's mark is gone with the child, so a thread reads the marks of all descendants a few times a second: what a child
takes after its last reading is not seen, nor is a child that lives for less than the interval. Where marks cannot be read or
set back, resident memory itself is sampled, and the record says so.

`resource.getrusage` would not do: its maximum never falls, it leaves out what a fork server started, and a child that was
started by fork and exec begins with its parent's.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Any, Literal

import psutil

INTERVAL_SECONDS = 0.2
MAX_SHARE_OF_A_CORE = 0.0005
PROC = "/proc"


class PeakMemory:
    """Bytes of resident memory at the peak: `process` of this process, `largest_child` of the largest of its descendants.

    `how` says how they were found. Pages that processes share count in each of them. Children are read every
    `interval_seconds`, or less often where reading would take more than `max_share_of_a_core`. Not to be nested, for a process
    has one mark.
    """

    def __init__(
        self, *, interval_seconds: float = INTERVAL_SECONDS, max_share_of_a_core: float = MAX_SHARE_OF_A_CORE
    ) -> None:
        self.process = 0
        self.largest_child = 0
        self.how: Literal["high-water mark", "sampled"] = "sampled"
        self._interval_seconds = interval_seconds
        self._max_share = max_share_of_a_core
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        if _set_marks_back():
            self.how = "high-water mark"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._read()

    def to_json(self) -> dict[str, Any]:
        """What a record keeps."""
        return {"process": self.process, "largest_child": self.largest_child, "how": self.how}

    def _watch(self) -> None:
        pause = self._interval_seconds
        while not self._is_over.wait(pause):
            started = time.thread_time()
            self._read()
            pause = max(self._interval_seconds, (time.thread_time() - started) / self._max_share)

    def _read(self) -> None:
        own, children = _marks() if self.how == "high-water mark" else _resident()
        self.process = max(self.process, own)
        self.largest_child = max(self.largest_child, *children, 0)


def _set_marks_back() -> bool:
    """Let the marks of this process and its descendants begin anew; False where the system has no marks, or forbids it."""
    if not os.path.exists(f"{PROC}/{os.getpid()}/task/{os.getpid()}/children"):  # a kernel may be built without it
        return False
    try:
        _set_mark_back(os.getpid())
    except OSError:
        return False
    for child in _descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):
            _set_mark_back(child)
    return True


def _set_mark_back(process: int) -> None:
    with open(f"{PROC}/{process}/clear_refs", "wb") as file:
        file.write(b"5")


def _marks() -> tuple[int, list[int]]:
    """High-water marks of this process and of each descendant."""
    return _mark(os.getpid()), [_mark(child) for child in _descendants(os.getpid())]


def _mark(process: int) -> int:
    """0 when the process has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        _, _, after = _content(f"{PROC}/{process}/status").partition(b"\nVmHWM:")
        return int(after.split(maxsplit=1)[0]) * 1024 if after else 0
    return 0


def _descendants(process: int) -> list[int]:
    """Children, their children and so on, as the kernel lists them: psutil asks every process of the machine for its parent."""
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"{PROC}/{process}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                children += map(int, _content(f"{PROC}/{process}/task/{thread}/children").split())
    return [each for child in children for each in (child, *_descendants(child))]


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _resident() -> tuple[int, list[int]]:
    """Resident memory of this process and of each descendant, now."""
    this = psutil.Process()
    children = []
    for child in this.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            children.append(int(child.memory_info().rss))
    return int(this.memory_info().rss), children
