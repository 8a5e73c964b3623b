"""How much of the validation text of each source also occurs in training text: measured on what was written, by 13 words in a row.

Deduplication compares documents. A book that is there as PDF and as EPUB is cut into passages at other places: no two passages are
alike, and yet nearly every sentence of the one is in the other. A score on such validation text says little about unseen text, so
the share is told beside it.

    validation of each source → its distinct 13-grams ┐
    train, shard by shard                             ┴→ which of them occur

13 words, as decontamination has it: shorter runs are shared by unrelated texts. The cost is one more reading of the training text;
memory is 8 bytes for each distinct 13-gram of validation text, which the recipe bounds by `validation.max_bytes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.data.executor import Executor, results_of
from gristmill.select.corpus import batches_of_texts
from gristmill.select.sets import distinct_ngrams
from gristmill.select.words import Int64, UInt64
from gristmill.store.durable import atomic_path

NGRAM = 13


@dataclass(frozen=True, kw_only=True)
class MarkSeen:
    """The function over shards of training text: which of the sorted n-grams occur in it. Safe to repeat.

    ngrams: a .npy file. out: one .npy file of bits for each shard.
    """

    ngrams: Path
    out: Path

    def target(self, shard: Path) -> Path:
        """Where its bits lie."""
        return self.out / f"seen-{shard.parent.name}-{shard.stem}.npy"

    def __call__(self, shard: Path) -> None:
        """Marks one shard unless that was done before."""
        if self.target(shard).is_file():
            return
        wanted: UInt64 = np.load(self.ngrams, mmap_mode="r")
        seen = np.zeros(len(wanted), dtype=bool)
        for _, texts in batches_of_texts(shard):
            grams, _ = distinct_ngrams(texts, NGRAM)
            place = np.minimum(np.searchsorted(wanted, grams), len(wanted) - 1)
            seen[place[wanted[place] == grams]] = True
        with atomic_path(self.target(shard)) as temporary, temporary.open("wb") as file:
            np.save(file, np.packbits(seen))


def seen_shares(
    train: Sequence[Path], validation: Mapping[str, Sequence[Path]], *, work: Path, executor: Executor
) -> dict[str, float]:
    """Source → the share of its validation text's distinct 13-grams that occur in training text of any source.

    0 where no document has 13 words. A killed call resumes with the shards that are left.
    """
    grams_by_source = {source: _ngrams_of(shards) for source, shards in validation.items()}
    wanted = np.unique(np.concatenate([np.empty(0, np.uint64), *grams_by_source.values()]))
    if not len(wanted):
        return dict.fromkeys(validation, 0.0)
    work.mkdir(exist_ok=True)
    function = MarkSeen(ngrams=work / "ngrams.npy", out=work)
    with atomic_path(function.ngrams) as temporary, temporary.open("wb") as file:
        np.save(file, wanted)
    seen = np.zeros(len(wanted), dtype=bool)
    for shard, _ in results_of(executor, function, train):
        seen |= np.unpackbits(np.load(function.target(shard)), count=len(wanted)).astype(bool)
    return {source: _share(seen, np.searchsorted(wanted, grams)) for source, grams in grams_by_source.items()}


def _share(seen: NDArray[np.bool_], places: Int64) -> float:
    return float(seen[places].mean()) if len(places) else 0.0


def _ngrams_of(shards: Sequence[Path]) -> UInt64:
    """The distinct n-grams of a source's validation documents, sorted."""
    found = [np.empty(0, np.uint64)]
    for shard in shards:
        for _, texts in batches_of_texts(shard):
            found.append(distinct_ngrams(texts, NGRAM)[0])
    return np.unique(np.concatenate(found))
