"""Which documents are held out: a keyed hash of the duplicate cluster decides, so near copies are on one side.

Clusters are ranked by their hash, in each source apart; the lowest are validation up to the wanted share of the
source's bytes. Documents added later move few others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from gristmill.recipe.schema.curation import Validation
from gristmill.select.words import Int64

MAX_SHARE = 0.5  # of a source's bytes: a source too small for `min_bytes` still trains on the larger half


def cluster_ids(cluster_D: Int64, sources: Sequence[str], ids: Sequence[str]) -> Int64:
    """A name for each cluster that does not depend on the order of documents: the lowest 63-bit hash of its members."""
    own = [xxhash.xxh3_64_intdigest(f"{s}\0{i}".encode("utf-8", "surrogatepass")) >> 1 for s, i in zip(sources, ids)]
    own_D = np.array(own, dtype=np.int64)
    lowest_D = np.full(len(own_D), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(lowest_D, cluster_D, own_D)
    named: Int64 = lowest_D[cluster_D]
    return named


def choose_validation(
    cluster_id_D: Int64, sources: Sequence[str], num_bytes_D: Int64, *, rules: Validation, seed: int
) -> NDArray[np.bool_]:
    """Which of D kept documents are validation.

    A cluster that is chosen in one source is validation in all, so a source may get a little more than its cap where
    clusters reach over sources. Within a source the cap is never passed: a cluster that would pass it is left to train.
    """
    names = np.asarray(sources)
    chosen: set[int] = set()
    for source in sorted(set(sources)):
        mine = names == source
        chosen.update(_choose(cluster_id_D[mine], num_bytes_D[mine], rules=rules, seed=seed))
    return np.isin(cluster_id_D, np.array(sorted(chosen), dtype=np.int64))


def split_report(
    validation_D: NDArray[np.bool_], sources: Sequence[str], num_bytes_D: Int64, *, rules: Validation
) -> dict[str, Any]:
    """Per source: documents and bytes of both sides, and whether validation reached `min_bytes`."""
    names = np.asarray(sources)
    report: dict[str, Any] = {}
    for source in sorted(set(sources)):
        held, train = (names == source) & validation_D, (names == source) & ~validation_D
        report[source] = {
            "train": {"documents": int(train.sum()), "bytes": int(num_bytes_D[train].sum())},
            "validation": {"documents": int(held.sum()), "bytes": int(num_bytes_D[held].sum())},
            "enough": bool(num_bytes_D[held].sum() >= rules.min_bytes),
        }
    return report


def _choose(cluster_id_D: Int64, num_bytes_D: Int64, *, rules: Validation, seed: int) -> list[int]:
    clusters, place = np.unique(cluster_id_D, return_inverse=True)
    sizes = np.zeros(len(clusters), dtype=np.int64)
    np.add.at(sizes, place, num_bytes_D)
    total = int(sizes.sum())
    most = min(rules.max_bytes, int(MAX_SHARE * total))
    wanted = min(max(rules.fraction * total, rules.min_bytes), most)
    ranked = sorted(
        (xxhash.xxh3_64_intdigest(int(c).to_bytes(8, "little"), seed=seed % 2**64), int(c), int(size))
        for c, size in zip(clusters, sizes)
    )
    taken, chosen = 0, []
    for _, cluster, size in ranked:
        if taken >= wanted:
            break
        if taken + size <= most:
            chosen.append(cluster)
            taken += size
    return chosen
