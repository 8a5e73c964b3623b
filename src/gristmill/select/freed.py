"""Copies whose survivor has left, searched again: among themselves, and against the kept documents that they may be copies of.

    freed documents ─→ their band keys ─→ kept documents that have one of them ─→ the search of `dedup` over both

Kept documents come first in its order and are not decided again: one that is a part of a freed document stays beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.data.executor import Executor
from gristmill.select.copies import COPIES
from gristmill.select.corpus import Corpus
from gristmill.select.dedup import find_duplicates
from gristmill.select.files import read_flat, read_part, write_flat, write_parts
from gristmill.select.rules import DuplicateRules
from gristmill.select.signatures import keys_column
from gristmill.select.stages import run_all
from gristmill.select.words import Int64, UInt64

FIRST, LAST = 1, 2  # turns of kept and of freed documents


def copies_among(
    corpus: Corpus,
    freed: Int64,
    turn_D: NDArray[np.int8],
    *,
    kept: Path,
    rules: DuplicateRules,
    work: Path,
    executor: Executor,
    should_stop: Callable[[], bool],
) -> Path:
    """Which of the freed documents are copies of a kept one or of each other: a file as `find_duplicates` leaves it, in which
    there may be kept documents, too.

    kept: an .npy file with a boolean per document. turn_D: zeros in the file `corpus.turns`, which are filled. A killed call
    resumes with the same turns.
    """
    keys = work / "freed-keys.bin"
    if not keys.is_file():
        write_parts(keys, _keys_of_bands(corpus, freed, rules.num_bands), count=rules.num_bands)
    find = FindSharers(corpus=corpus, kept=kept, keys=keys, num_bands=rules.num_bands, out=work)
    shards = range(len(corpus.shards))
    run_all(executor, find, [k for k in shards if not find.target(k).is_file()])
    for k in shards:
        turn_D[read_flat(find.target(k), np.int64)] = FIRST
    turn_D[freed] = LAST
    find_duplicates(corpus, rules=rules, work=work, executor=executor, should_stop=should_stop, say=lambda _: None)
    return work / COPIES


@dataclass(frozen=True, kw_only=True)
class FindSharers:
    """The function over shards: the kept documents of one shard that share a band key with a freed one. Safe to repeat."""

    corpus: Corpus
    kept: Path
    keys: Path
    num_bands: int
    out: Path

    def target(self, k: int) -> Path:
        """Where they lie: numbers of documents, ascending."""
        return self.out / f"sharers-{k:05d}.bin"

    def __call__(self, k: int) -> None:
        """Looks through the prints of one shard."""
        rows = np.flatnonzero(self.corpus.mask(self.kept, k))
        rows, keys_RB = _keys(self.corpus, k, rows, self.num_bands)
        shares = np.zeros(len(rows), dtype=bool)
        for band in range(self.num_bands):
            shares |= np.isin(keys_RB[:, band], read_part(self.keys, band, np.uint64))
        write_flat(self.target(k), [rows[shares] + int(self.corpus.firsts_S1[k])])


def _keys_of_bands(corpus: Corpus, freed: Int64, num_bands: int) -> list[UInt64]:
    """The distinct keys that the freed documents have in each band."""
    found = [np.empty((0, num_bands), dtype=np.uint64)]
    for k in range(len(corpus.shards)):
        first, end = (int(number) for number in corpus.firsts_S1[k : k + 2])
        rows = freed[(freed >= first) & (freed < end)] - first
        if len(rows):
            found.append(_keys(corpus, k, rows, num_bands)[1])
    keys_FB = np.concatenate(found)
    return [np.unique(keys_FB[:, band]) for band in range(num_bands)]


def _keys(corpus: Corpus, k: int, rows: Int64, num_bands: int) -> tuple[Int64, UInt64]:
    """Those of the rows of shard k that are no shorter than one n-gram, and their band keys."""
    prints = corpus.prints_of(k, "keys", "num_ngrams")
    rows = rows[prints.column("num_ngrams").to_numpy()[rows] > 0]
    return rows, keys_column(prints.column("keys"), num_bands=num_bands)[rows]
