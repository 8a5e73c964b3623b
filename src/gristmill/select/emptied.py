"""Survivors of copies that leave as `only_repeated`: the copies name them, and their rows have to say who keeps the text instead.

Such a survivor says hardly anything that kept documents do not say. Its copies resemble it, so they stay out as well; what one of them has
beyond its survivor goes with it, as with every near copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gristmill.data.executor import Executor
from gristmill.select.catalogue import Catalogue, values_at
from gristmill.select.edits import by_row, keeper_of, says_nothing
from gristmill.select.files import Array, read_flat, write_flat
from gristmill.select.repeated import Repeated
from gristmill.select.stages import run_all
from gristmill.select.units import num_words, units_of, without
from gristmill.select.words import Int64

EMPTIED = np.dtype([("document", "<i8"), ("keeper", "<i8")])


def emptied_survivors(
    catalogue: Catalogue, repeated: Repeated, survivors: Int64, *, work: Path, executor: Executor
) -> Array:
    """Rows of EMPTIED, by document: those of the survivors, which are ascending, that are dropped, and who keeps most of each."""
    np.save(work / "survivors.npy", survivors)
    find = FindEmptied(catalogue=catalogue, repeated=repeated, survivors=work / "survivors.npy", out=work)
    shards = range(len(catalogue.shards))
    run_all(executor, find, [k for k in shards if not find.target(k).is_file()])
    return np.concatenate([read_flat(find.target(k), EMPTIED) for k in shards])


@dataclass(frozen=True, kw_only=True)
class FindEmptied:
    """The function over shards: which survivors in one shard leave as `only_repeated`. Reads the texts of those that lose something.

    survivors: an .npy file, ascending, of the documents that copies name.
    """

    catalogue: Catalogue
    repeated: Repeated
    survivors: Path
    out: Path

    def target(self, k: int) -> Path:
        """Where they lie: rows of EMPTIED, by document."""
        return self.out / f"emptied-{k:05d}.bin"

    def __call__(self, k: int) -> None:
        write_flat(self.target(k), [np.array(list(self._found(k)), dtype=EMPTIED)])

    def _found(self, k: int) -> Iterator[tuple[int, int]]:
        shard, rules = self.catalogue.shards[k], self.repeated.rules
        survivor_N = np.load(self.survivors, mmap_mode="r")
        mine = survivor_N[np.searchsorted(survivor_N, shard.first) : np.searchsorted(survivor_N, shard.end)]
        lost = self.repeated.lost_by(k)
        lost_of = by_row(lost[np.isin(lost["row"], mine - shard.first)])
        for row, text in values_at(shard.documents, np.array(list(lost_of), dtype=np.int64), "text"):
            left = without(text, units_of(text, rules.unit), set(lost_of[row]["unit"].tolist()))
            if says_nothing(left, num_words(left), min_words=rules.min_words):
                yield shard.first + row, keeper_of(lost_of[row])
