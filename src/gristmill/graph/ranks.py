"""The ranks of a training: the processes that train one model together, each on its cut of every batch.

A step is given one object and asks it for sums over all ranks. With one process that object is ONE_RANK, which costs nothing;
with several it is train/ranks/torch_ranks.py's. Nothing here knows torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Ranks(Protocol):
    """This process among `size` of them, counted from 0. All ranks call the same methods in the same order.

    replicas: how often the ranks together hold the model.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def replicas(self) -> int: ...

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value added up over all ranks, in float64; bit for bit the same on each."""
        ...

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first rank, which is the only one that calls it; a JSON value."""
        ...

    def first_before_others(self, make: Callable[[], T]) -> T:
        """What `make` returns on this rank; the others begin when the first has ended, and find what it left on the disk."""
        ...

    def own_work(self) -> AbstractContextManager[None]:
        """What is done inside is this rank's own work, which waits for no other rank."""
        ...

    def own_seconds(self) -> list[float]:
        """The time inside `own_work` since the last call, at this rank's place in a list of zeros, so that a sum tells of all."""
        ...

    def shard(self, model: Any) -> None:
        """Spreads the parameters of a model, the same on all ranks, over them."""
        ...


@dataclass(frozen=True, kw_only=True)
class OneRank:
    """A process that trains by itself."""

    rank: int = 0
    size: int = 1
    replicas: int = 1

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values."""
        return list(values)

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns."""
        return make()

    def first_before_others(self, make: Callable[[], T]) -> T:
        """What `make` returns."""
        return make()

    def own_work(self) -> AbstractContextManager[None]:
        """Nothing is measured."""
        return nullcontext()

    def own_seconds(self) -> list[float]:
        """Nothing."""
        return []

    def shard(self, model: Any) -> None:
        """Leaves the model whole."""


ONE_RANK = OneRank()


def is_first(ranks: Ranks) -> bool:
    """True on the rank that measures, writes and talks."""
    return ranks.rank == 0


def any_rank(ranks: Ranks, flag: bool) -> bool:
    """True on all ranks when it is true on one of them."""
    return ranks.sum([float(flag)])[0] > 0


def cut(count: int, ranks: Ranks) -> slice:
    """This rank's part of `count` things in order: the ranks' parts one after the other are all of them, and differ by one at most."""
    return slice(*(count * rank // ranks.size for rank in (ranks.rank, ranks.rank + 1)))
