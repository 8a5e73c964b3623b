"""Several processes that train one model: what graph/ranks.py promises, by torch.distributed.

Small sums go over gloo on the CPU, whatever the device is: nothing waits for a GPU but the loss itself. Parameters and gradients
go over gloo between CPUs and over NCCL between GPUs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from gristmill.model.transformer import Llama
from gristmill.train.ranks.sharding import shard_over

WAIT = timedelta(hours=6)  # for another rank: the first may be measuring or saving; a rank that died is noticed at once

T = TypeVar("T")


@dataclass(kw_only=True)
class Group:
    """This process among all that train together; each of `replicas` groups of ranks holds the whole model."""

    rank: int
    size: int
    replicas: int
    mesh: DeviceMesh
    _own_seconds: float = 0.0
    _own_events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value added up over all ranks."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first rank, sent as JSON."""
        sent = json.dumps(make() if self.rank == 0 else None).encode()
        size = torch.tensor([len(sent)])
        dist.broadcast(size, src=0)
        content = torch.frombuffer(bytearray(sent.ljust(int(size))), dtype=torch.uint8)[: int(size)]
        dist.broadcast(content, src=0)
        received: T = json.loads(content.numpy().tobytes())
        return received

    def first_before_others(self, make: Callable[[], T]) -> T:
        """What `make` returns on this rank."""
        if self.rank == 0:
            made = make()
            self.sum([0.0])
            return made
        self.sum([0.0])
        return make()

    @contextmanager
    def own_work(self) -> Iterator[None]:
        """Adds the time inside to this rank's own; of a GPU its own time, for which the host does not wait here."""
        if self.mesh.device_type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            first.record()
            yield
            last.record()
            self._own_events.append((first, last))
            return
        started = time.perf_counter()
        yield
        self._own_seconds += time.perf_counter() - started

    def own_seconds(self) -> list[float]:
        """This rank's own time since the last call, at its place. Its GPU has done all of it."""
        seconds = self._own_seconds + sum(first.elapsed_time(last) for first, last in self._own_events) / 1000
        self._own_seconds = 0.0
        self._own_events.clear()
        return [seconds if rank == self.rank else 0.0 for rank in range(self.size)]

    def shard(self, model: Llama) -> None:
        """Spreads the model's parameters over the ranks."""
        shard_over(model, self.mesh)


class Meeting:
    """Where the ranks of a training find each other and say what they are doing: a port of one machine. No object travels by it."""

    def __init__(self, store: Any) -> None:
        self.store = store

    @classmethod
    def opened(cls, host: str = "127.0.0.1", port: int = 0) -> Meeting:
        """By the first rank; on a free port, if none is given."""
        return cls(TCPStore(host, port, is_master=True, wait_for_workers=False))

    @classmethod
    def at(cls, port: int, host: str = "127.0.0.1") -> Meeting:
        """Where another process listens, or is about to."""
        return cls(TCPStore(host, port))

    @property
    def port(self) -> int:
        return int(self.store.port)

    def for_another_thread(self) -> Meeting:
        """The same place by a connection of its own: on one connection, a thread waits for the other's question."""
        return Meeting(self.store.clone())

    def within(self, name: str) -> Meeting:
        """The same place for one piece of work: what is told there is told nowhere else."""
        return Meeting(PrefixStore(name, self.store))

    def write(self, key: str, value: str) -> None:
        """For all ranks to read."""
        self.store.set(key, value)

    def read(self, key: str) -> str | None:
        """What was written; None before."""
        return self.store.get(key).decode() if self.store.check([key]) else None

    def tell(self, rank: int, doing: str) -> None:
        """A sign of life of a rank."""
        self.write(f"rank {rank}", f"{time.time()} {doing}")

    def told(self, rank: int) -> tuple[float, str] | None:
        """When the rank last gave a sign of life, on its clock, and what it was doing; None before the first."""
        at, _, doing = (self.read(f"rank {rank}") or "").partition(" ")
        return (float(at), doing) if at else None


@contextmanager
def joined(meeting: Meeting, *, rank: int, size: int, local_rank: int, device: str, replicas: int) -> Iterator[Group]:
    """One of `size` ranks, from when all are there until the end of the block.

    local_rank: its number on its machine. device: "cpu" or "cuda", of which it takes the GPU of that number. replicas: a divisor of
    `size`.
    """
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=meeting.store, rank=rank, world_size=size, timeout=WAIT)
    try:
        mesh = (
            init_device_mesh(device, (size,), mesh_dim_names=("shard",))
            if replicas == 1
            else init_device_mesh(device, (replicas, size // replicas), mesh_dim_names=("replicate", "shard"))
        )
        yield Group(rank=rank, size=size, replicas=replicas, mesh=mesh)
    finally:
        dist.destroy_process_group()


def is_of_exchange(error: Exception) -> bool:
    """True for what torch.distributed raises when another rank is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
