"""Machine options: where and how it runs. Never part of an identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Literal

import psutil

from gristmill.errors import RecipeError

DEVICES = ("auto", "cpu", "cuda")
Threads = int | Literal["auto"]  # a number is kept; "auto" is all cores, and fewer while other processes use them


def usable_cpus() -> int:
    """Processor cores this process may use."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class UsableMemory:
    """Bytes: `total` that this process may ever use, `available` of it now; `installed` in the machine."""

    total: int
    available: int
    installed: int


def usable_memory(root: Path = Path("/")) -> UsableMemory:
    """The machine's memory, or less where a control group (a container, a batch job) limits this process to less."""
    machine = psutil.virtual_memory()
    limits = list(_group_limits(root))
    return UsableMemory(
        total=min([machine.total, *(limit for limit, _ in limits)]),
        available=max(0, min([machine.available, *(limit - used for limit, used in limits)])),
        installed=machine.total,
    )


def _group_limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of every control group of Linux above this process that limits memory.

    A process is limited by its own group and by all groups around it. Used memory leaves out file pages that the kernel drops
    on demand. Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    memberships = root / "proc/self/cgroup"
    for line in memberships.read_text(encoding="utf-8").splitlines() if memberships.is_file() else ():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            top, names, droppable = "sys/fs/cgroup", ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):
            top = "sys/fs/cgroup/memory"
            names, droppable = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
        else:
            continue
        path = PurePosixPath(group.lstrip("/"))
        for folder in (root / top / level for level in (path, *path.parents)):
            limit, used = (_word(folder / name) for name in names)
            if (
                limit.isdecimal() and used.isdecimal()
            ):  # "max" is no limit; groups outside a container are not to be seen
                yield int(limit), int(used) - int(_word(folder / "memory.stat", after=droppable) or 0)


def _word(path: Path, after: str | None = None) -> str:
    """The only word of a file, or the one after `after`; empty where there is none."""
    try:
        words = path.read_text(encoding="utf-8").split()
    except OSError:
        return ""
    if after is None:
        return words[0] if words else ""
    return next((value for name, value in pairwise(words) if name == after), "")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Circumstances of a run.

    processes: workers for curation. threads: of a training process. micro_batch_tokens: tokens in one forward pass
    (gradients are accumulated to the recipe's global batch). runs_dir: where artefacts are kept.
    """

    processes: int = field(default_factory=usable_cpus)
    threads: Threads = "auto"
    device: str = "auto"
    micro_batch_tokens: int = 16_384
    runs_dir: Path = Path("runs")

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise RecipeError(f"the device is {self.device!r}; expected auto, cpu or cuda.")

    @property
    def most_threads(self) -> int:
        """The number that was asked for, or all cores."""
        return usable_cpus() if self.threads == "auto" else self.threads
