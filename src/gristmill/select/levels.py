"""The split with late sources: level by level, so that a source that comes later changes nothing that was decided before.

    level 0   all sources that are not late, together: the rule of `split`
    level 1…  one late source each. Its documents form clusters among themselves, by what such a cluster touches:
                  validation text of an earlier level    dropped
                  only training text                     training text, under that cluster's name
                  nothing                                the rule of `split`

A late document that links two earlier clusters joins one of them; they do not become one, nor does it link those that touch
either. Deduplication seeks candidates by
bands and misses some, so what is left of a level is held against all validation text in full, its own source's included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gristmill.recipe.schema.curation import Validation
from gristmill.select.dedup import components
from gristmill.select.resemblance import Resemblance
from gristmill.select.split import choose_validation, cluster_ids
from gristmill.select.words import Int64

Resembling = Callable[[Int64, Int64], dict[int, Resemblance]]


@dataclass(frozen=True, kw_only=True)
class Members:
    """The D documents that took part in deduplication. kept_D: False for those dropped for an earlier reason."""

    ids: Sequence[str]
    sources: Sequence[str]
    level_D: Int64
    num_bytes_D: Int64
    kept_D: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Names of clusters, which documents are validation, and the late ones dropped because they resemble such text."""

    cluster_D: Int64
    validation_D: NDArray[np.bool_]
    resembling: dict[int, Resemblance]


def split_by_level(members: Members, links_E2: Int64, *, rules: Validation, seed: int, resembling: Resembling) -> Split:
    """The split of all documents. `links_E2` are those of `Duplicates`; the second of each was decided before the first.

    `resembling(documents, held)` compares texts in full, and is called for late levels only.
    """
    count = len(members.ids)
    split = Split(cluster_D=np.zeros(count, np.int64), validation_D=np.zeros(count, bool), resembling={})
    level_E = members.level_D[links_E2[:, 0]]
    for level in np.unique(members.level_D).tolist():
        mine = np.flatnonzero(members.level_D == level)
        kept = mine[members.kept_D[mine]]
        found = resembling(kept, np.flatnonzero(split.validation_D)) if level else {}
        free = _join(split, members, mine, links_E2[level_E == level], found)
        sources, sizes = [members.sources[d] for d in free.tolist()], members.num_bytes_D[free]
        split.validation_D[free] = choose_validation(split.cluster_D[free], sources, sizes, rules=rules, seed=seed)
        if level:
            trained = [d for d in kept.tolist() if d not in split.resembling and not split.validation_D[d]]
            _leave(split, resembling(np.array(trained, np.int64), mine[split.validation_D[mine]]))
    return split


def _join(split: Split, members: Members, mine: Int64, links_E2: Int64, found: Mapping[int, Resemblance]) -> Int64:
    """Names the clusters of one level's documents. Returns the kept ones that touch no earlier level."""
    links = np.concatenate([links_E2, np.array([(d, r.held) for d, r in found.items()], np.int64).reshape(-1, 2)])
    outward = members.level_D[links[:, 1]] < members.level_D[mine[0]]
    part_D = components(len(members.ids), links[~outward])
    touched_D = _touched(split, part_D, links[outward])[part_D]
    joined, free = mine[touched_D[mine] >= 0], mine[touched_D[mine] < 0]
    split.cluster_D[joined] = split.cluster_D[touched_D[joined]]
    _, part_F = np.unique(part_D[free], return_inverse=True)
    split.cluster_D[free] = cluster_ids(
        part_F, [members.sources[d] for d in free.tolist()], [members.ids[d] for d in free.tolist()]
    )
    held_in = {int(split.cluster_D[d]): int(d) for d in np.flatnonzero(split.validation_D)[::-1]}
    for d in joined[members.kept_D[joined]].tolist():
        if (held := held_in.get(int(split.cluster_D[d]))) is not None:
            split.resembling[d] = found.get(d, Resemblance(held=held))
    return free[members.kept_D[free]]


def _leave(split: Split, found: Mapping[int, Resemblance]) -> None:
    """Documents that resemble validation text of their own level go to its clusters, so that later levels know it."""
    for d, resemblance in found.items():
        split.resembling[d] = resemblance
        split.cluster_D[d] = split.cluster_D[resemblance.held]


def _touched(split: Split, part_D: Int64, outward_E2: Int64) -> Int64:
    """For each part an earlier document whose cluster it joins; -1 where none of its documents is linked to one.

    Of several clusters it is one with validation text, then the one with the lowest name.
    """
    names = split.cluster_D[outward_E2[:, 1]]
    trained = ~np.isin(names, split.cluster_D[split.validation_D])
    best_last = outward_E2[np.lexsort((names, trained))[::-1]]
    touched = np.full(len(part_D), -1)
    touched[part_D[best_last[:, 0]]] = best_last[:, 1]
    return touched
