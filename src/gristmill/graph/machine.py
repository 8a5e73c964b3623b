"""Machine options: where and how it runs. Never part of an identity."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import psutil

from gristmill.errors import RecipeError
from gristmill.graph.rank_place import RankPlace
from gristmill.graph.share import Share

Shard = TypeVar("Shard")

DEVICES = ("auto", "cpu", "cuda")
Threads = int | Literal["auto"]  # a number is kept; "auto" is all cores, and fewer while other processes use them


def allowed_cores() -> list[int]:
    """The numbers of the processor cores that this process may run on."""
    process = psutil.Process()
    return process.cpu_affinity() if hasattr(process, "cpu_affinity") else [*range(psutil.cpu_count() or 1)]


def usable_cpus(root: Path = Path("/")) -> int:
    """Processor cores this process may use: those it may run on, or fewer where a control group limits its time on them to less."""
    return min([len(allowed_cores()), *(max(1, math.ceil(quota)) for quota in _group_quotas(root))])


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

    Used memory leaves out file pages that the kernel drops on demand. Source: the kernel's
    Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    for folder, is_version_2 in _groups(root, "memory"):
        names, droppable = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
        if is_version_2:
            names, droppable = ("memory.max", "memory.current"), "inactive_file"
        limit, used = (_word(folder / name) for name in names)
        if limit.isdecimal() and used.isdecimal():  # "max" is no limit; groups outside a container are not to be seen
            yield int(limit), int(used) - int(_word(folder / "memory.stat", after=droppable) or 0)


def _group_quotas(root: Path) -> Iterator[float]:
    """Cores of every control group above this process that limits processor time.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.
    """
    for folder, is_version_2 in _groups(root, "cpu"):
        if is_version_2:
            quota = _word(folder / "cpu.max")
            period = _word(folder / "cpu.max", after=quota)
        else:
            quota, period = (_word(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        if quota.isdecimal() and period.isdecimal() and int(period):  # "max" and -1 are no limit
            yield int(quota) / int(period)


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """(folder, whether it is of version 2) of the group of this process and of all groups around it, which limit it too."""
    memberships = root / "proc/self/cgroup"
    for line in memberships.read_text(encoding="utf-8").splitlines() if memberships.is_file() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        path = PurePosixPath(group.lstrip("/"))
        yield from ((top / level, not controllers) for level in (path, *path.parents))


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
    (gradients are accumulated to the recipe's global batch). runs_dir: where artefacts are kept. ray: the address of a Ray cluster
    that maps shards, or "local" for one that is started here. share: of a rank of an array, which then makes nothing else.
    offline: nothing is asked of the network; what was fetched is used. metrics_to: programs that draw metrics while a training runs. recompute:
    activations of a training are computed twice, which saves memory. compiled: parts of a model in training are compiled. ranks: processes that train together, one GPU each where
    there are GPUs; a run starts them on its machine, unless it has a place among those that something else started. replicas: how
    often they hold the model between them; each of so many groups of ranks spreads it.
    """

    processes: int = field(default_factory=usable_cpus)
    threads: Threads = "auto"
    device: str = "auto"
    micro_batch_tokens: int = 16_384
    runs_dir: Path = Path("runs")
    ray: str | None = None
    share: Share | None = None
    offline: bool = False
    metrics_to: tuple[str, ...] = ()
    recompute: bool = False
    compiled: bool = False
    ranks: int = 1
    replicas: int = 1
    place: RankPlace | None = None

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise RecipeError(f"the device is {self.device!r}; expected auto, cpu or cuda.")
        if self.ray is not None and self.share is not None:
            raise RecipeError("--ray and --array exclude each other: a rank of an array maps its shards by itself.")
        self._check_ranks()

    @property
    def threads_of_a_rank(self) -> Threads:
        """Threads of one process of a training. Ranks share the cores evenly and keep that number: a change on one would slow all."""
        if self.ranks == 1 or self.threads != "auto":
            return self.threads
        return max(1, usable_cpus() // (self.ranks if self.place is None else self.place.local_size))

    def _check_ranks(self) -> None:
        if self.ranks < 1 or self.replicas < 1 or self.ranks % self.replicas:
            raise RecipeError(
                f"--ranks is {self.ranks} and --replicas {self.replicas}; expected numbers from 1, the second a divisor of the first."
            )

    def share_of(self, shards: Sequence[Shard], step: str) -> Sequence[Shard]:
        """The shards of a step that this process makes: all, or those of its rank."""
        return shards if self.share is None else self.share.of(shards, step)

    @property
    def most_threads(self) -> int:
        """The number that was asked for, or all cores."""
        return usable_cpus() if self.threads == "auto" else self.threads


def give_freed_memory_back() -> None:
    """Lets the system have the pages of this process's heap that hold nothing: a step that takes much would add its own to them.

    glibc keeps them until it is told (malloc_trim(3)); elsewhere this does nothing.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
