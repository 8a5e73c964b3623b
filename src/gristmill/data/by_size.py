"""A random sample of a stream whose length nobody knows, in which each item is as likely as it is large.

Priority sampling (Duffield, Lund and Thorup, "Priority sampling for estimation of arbitrary subset sums", JACM 54, 2007): an item of
size s has the priority s / u, with u in (0, 1] by a hash of its key, and the items of highest priority stay. Each stands for as much as
the first that did not stay would, or for its own size where that is more; these weights add up, on average, to the size of any part.
The order of the stream changes nothing.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

import xxhash

Item = TypeVar("Item")
HASHES = 1 << 64


class SampleBySize(Generic[Item]):
    """Up to `num_items` items. They are all there are, each with its own size, where there were no more."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items
        self._heap: list[tuple[float, int, float, Item]] = []  # priority, number, size, item; one more than stays
        self._offered = 0

    @property
    def is_whole(self) -> bool:
        """Whether all that was offered stayed, but for what has no size."""
        return len(self._heap) <= self.num_items

    def wants(self, key: str, size: float) -> bool:
        """Whether an item would be among the highest so far, or be the first after them: others need not be looked at."""
        return size > 0 and (self.is_whole or _priority(key, size) > self._heap[0][0])

    def add(self, key: str, size: float, item: Item) -> None:
        """Offers an item. One of no size is never drawn."""
        if not self.wants(key, size):
            return
        self._offered += 1
        entry = (_priority(key, size), self._offered, size, item)
        if self.is_whole:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heapreplace(self._heap, entry)

    def weighted(self) -> list[tuple[float, float, Item]]:
        """(weight, size, item) of what stayed."""
        if self.is_whole:
            return [(size, size, item) for _, _, size, item in self._heap]
        (least, *_), *stayed = sorted(self._heap, key=lambda entry: entry[:2])
        return [(max(size, least), size, item) for _, _, size, item in stayed]


def _priority(key: str, size: float) -> float:
    return size * HASHES / (xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass")) + 1)
