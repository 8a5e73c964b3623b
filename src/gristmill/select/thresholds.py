"""What the score threshold of a source kept, where its scores lie, and what other thresholds would have kept. Scores are streamed.

Deciles are exact at any size: they come from order statistics that two passes over the scores find, one by the upper and one by
the lower half of the 32 bits of a float, in two tables of 65,536 counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gristmill.select.catalogue import Catalogue, Shard, read_column
from gristmill.select.fates import HELD_OUT, LOW_SCORE, OPTED_OUT
from gristmill.select.outputs import OtherThreshold, ThresholdUsed
from gristmill.select.words import Int64

SHARES = np.linspace(0, 1, 11)
CUTS = tuple(np.arange(0.0, 5.0, 0.5).tolist())
HALF, LOWER = 16, np.uint32(0xFFFF)

Scores = NDArray[np.float32]


def thresholds_report(
    catalogue: Catalogue, fate_D: NDArray[np.int8], above: Mapping[str, float], classifiers: Mapping[str, str]
) -> dict[str, ThresholdUsed]:
    """Per source with a threshold: its documents that are neither held out nor opted out, by score."""
    return {
        source: _of_source(catalogue.shards_of(source), fate_D, limit, classifiers[source])
        for source, limit in sorted(above.items())
    }


def quantiles(batches: Callable[[], Iterator[Scores]], shares: Sequence[float]) -> list[float]:
    """The quantiles of all values, linear between neighbours as those of numpy; none of no values. `batches` is read twice."""
    upper = np.zeros(1 << HALF, dtype=np.int64)
    for batch in batches():
        upper += np.bincount(_ordered(batch) >> np.uint32(HALF), minlength=1 << HALF)
    if not (count := int(upper.sum())):
        return []
    places = np.asarray(shares) * (count - 1)
    wanted = np.unique(np.concatenate([np.floor(places), np.ceil(places)]).astype(np.int64))
    value_of = dict(zip(wanted.tolist(), _order_statistics(batches, upper, wanted).tolist(), strict=True))
    below, over = np.floor(places).astype(np.int64), np.ceil(places).astype(np.int64)
    return [
        value_of[low] + (value_of[high] - value_of[low]) * (place - low)
        for place, low, high in zip(places.tolist(), below.tolist(), over.tolist(), strict=True)
    ]


def _of_source(shards: Sequence[Shard], fate_D: NDArray[np.int8], limit: float, classifier: str) -> ThresholdUsed:
    cuts = sorted({*CUTS, limit})
    documents = dict.fromkeys(cuts, 0)
    num_bytes = dict.fromkeys(cuts, 0)
    total = kept = kept_bytes = 0
    for shard in shards:
        fates, scores, sizes = _columns(shard, fate_D)
        total += len(scores)
        kept += int((fates != LOW_SCORE).sum())
        kept_bytes += int(sizes[fates != LOW_SCORE].sum())
        for cut in cuts:
            documents[cut] += int((scores > cut).sum())
            num_bytes[cut] += int(sizes[scores > cut].sum())

    def all_scores() -> Iterator[Scores]:
        for shard in shards:
            yield _columns(shard, fate_D)[1]

    return ThresholdUsed(
        classifier=classifier,
        above=limit,
        documents=total,
        kept_documents=kept,
        kept_bytes=kept_bytes,
        score_deciles=tuple(quantiles(all_scores, SHARES.tolist())),
        other_thresholds=tuple(
            OtherThreshold(above=cut, documents=documents[cut], bytes=num_bytes[cut]) for cut in cuts
        ),
    )


def _columns(shard: Shard, fate_D: NDArray[np.int8]) -> tuple[NDArray[np.int8], Scores, Int64]:
    """(fates, scores, bytes of text) of the documents of one shard that are neither held out nor opted out."""
    assert shard.scores is not None, shard
    fates = np.asarray(fate_D[shard.first : shard.end])
    mine = (fates != HELD_OUT) & (fates != OPTED_OUT)
    return fates[mine], read_column(shard.scores, "score")[mine], read_column(shard.prints, "num_bytes")[mine]


def _order_statistics(batches: Callable[[], Iterator[Scores]], upper: Int64, wanted: Int64) -> Scores:
    """The values at these places of the sorted values. upper: how many values have each upper half."""
    ends = np.cumsum(upper)
    bucket_N = np.searchsorted(ends, wanted, side="right")
    lower = {bucket: np.zeros(1 << HALF, dtype=np.int64) for bucket in np.unique(bucket_N).tolist()}
    for batch in batches():
        ordered = _ordered(batch)
        halves = ordered >> np.uint32(HALF)
        for bucket, counts in lower.items():
            counts += np.bincount(ordered[halves == bucket] & LOWER, minlength=1 << HALF)
    found = np.empty(len(wanted), dtype=np.uint32)
    for n, (place, bucket) in enumerate(zip(wanted.tolist(), bucket_N.tolist(), strict=True)):
        inside = place - int(ends[bucket] - upper[bucket])
        found[n] = (bucket << HALF) | int(np.searchsorted(np.cumsum(lower[bucket]), inside, side="right"))
    return _floats(found)


def _ordered(values: Scores) -> NDArray[np.uint32]:
    """The bits of floats as integers in the same order: the sign flipped, of negative ones all bits."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(0x80000000))


def _floats(ordered: NDArray[np.uint32]) -> Scores:
    """The inverse of `_ordered`."""
    bits = np.where(ordered >> np.uint32(31), ordered & np.uint32(0x7FFFFFFF), ~ordered)
    return bits.astype(np.uint32).view(np.float32)
