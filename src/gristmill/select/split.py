"""Which documents are held out: a keyed hash of the duplicate cluster decides, so near copies are on one side.

Clusters are ranked by their hash, in each source apart; the lowest are validation up to the wanted share of the
source's bytes. Documents added later move few others. Only clusters with a low hash are collected, about as many as are
chosen, so memory does not grow with the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from gristmill.recipe.schema.curation import Validation
from gristmill.select.words import Int64

MAX_SHARE = 0.5  # of a source's bytes: a source too small for `min_bytes` still trains on the larger half
MAX_RANK = 2**64

Blocks = Callable[
    [], Iterator[tuple[Int64, Int64]]
]  # (cluster, bytes of text) of documents, some at a time; read again and again


def document_names(source: str, ids: Iterable[str]) -> Int64:
    """A name for each document, 63 bits of a hash of source and id. That of a cluster is the lowest of its members."""
    own = [xxhash.xxh3_64_intdigest(f"{source}\0{name}".encode("utf-8", "surrogatepass")) >> 1 for name in ids]
    return np.array(own, dtype=np.int64)


def choose_validation(blocks: Blocks, *, rules: Validation, seed: int) -> Int64:
    """The clusters of one source that are validation, by their kept documents; ascending.

    A cluster that is chosen in one source is validation in all, so a source may get a little more than its cap where
    clusters reach over sources. Within a source the cap is never passed: a cluster that would pass it is left to train.
    """
    total = sum(int(num_bytes.sum()) for _, num_bytes in blocks())
    most, wanted = most_bytes(total, rules), wanted_bytes(total, rules)
    bound = MAX_RANK if not total else min(MAX_RANK, int(2 * wanted / total * MAX_RANK) + 1)
    while True:
        taken, chosen = 0, list[int]()
        for _, cluster, size in _ranked(blocks, bound, seed=seed):
            if taken >= wanted:
                break
            if taken + size <= most:
                chosen.append(cluster)
                taken += size
        if taken >= wanted or bound == MAX_RANK:
            return np.array(sorted(chosen), dtype=np.int64)
        bound = min(MAX_RANK, 4 * bound)


def most_bytes(total: int, rules: Validation) -> int:
    """Bytes of validation text that a source of `total` bytes has at most."""
    return min(rules.max_bytes, int(MAX_SHARE * total))


def wanted_bytes(total: int, rules: Validation) -> float:
    """Bytes of validation text that a source of `total` bytes should have."""
    return min(max(rules.fraction * total, rules.min_bytes), most_bytes(total, rules))


def split_report(
    sizes: Mapping[str, Mapping[str, tuple[int, int]]], seen: Mapping[str, float], *, rules: Validation
) -> dict[str, Any]:
    """Per source: documents and bytes of both sides, whether validation reached `min_bytes`, and the share of its text that training
    text has too. sizes: documents and bytes, by side."""
    return {
        source: {
            **{side: {"documents": documents, "bytes": size} for side, (documents, size) in sides.items()},
            "enough": sides["validation"][1] >= rules.min_bytes,
            "seen": seen[source],
        }
        for source, sides in sorted(sizes.items())
    }


def _ranked(blocks: Blocks, bound: int, *, seed: int) -> list[tuple[int, int, int]]:
    """(rank, cluster, bytes) of the clusters that are ranked below the bound, in order."""
    sizes: dict[int, int] = {}
    ranks: dict[int, int] = {}
    for cluster_B, num_bytes_B in blocks():
        cluster_U, place_B = np.unique(cluster_B, return_inverse=True)
        size_U = np.zeros(len(cluster_U), dtype=np.int64)
        np.add.at(size_U, place_B, num_bytes_B)
        for cluster, size in zip(cluster_U.tolist(), size_U.tolist(), strict=True):
            rank = xxhash.xxh3_64_intdigest(cluster.to_bytes(8, "little"), seed=seed % MAX_RANK)
            if rank < bound:
                ranks[cluster] = rank
                sizes[cluster] = sizes.get(cluster, 0) + size
    return sorted((rank, cluster, sizes[cluster]) for cluster, rank in ranks.items())


def is_one_of(values: Int64, some: Int64) -> NDArray[np.bool_]:
    """Which values are among `some`, which are ascending."""
    if not len(some):
        return np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(some, values), len(some) - 1)
    found: NDArray[np.bool_] = some[place] == values
    return found
