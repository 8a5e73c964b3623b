"""The split with late sources: level by level, so that a source that comes later changes nothing that was decided before.

    level 0   all sources that are not late, together: the rule of `split`
    level 1…  one late source each. Its documents form clusters among themselves, by what such a cluster touches:
                  validation text of an earlier level    dropped
                  only training text                     training text, under that cluster's name
                  nothing                                the rule of `split`

A late document that links two earlier clusters joins one of them; they do not become one, nor does it link those that touch
either. Deduplication seeks candidates by bands and misses some, so what is left of a level is held against all validation text
in full, its own level's included; what resembles it leaves. The copies of what leaves are freed: they leave as well where they
resemble validation text, and where they do not are searched for copies of training text and of each other.

Clusters are made of linked documents only, so memory is about 60 bytes a link, and 16 a copy. What is known of each document is in arrays that
may be mapped files, and is taken in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gristmill.recipe.schema.curation import Validation
from gristmill.select.catalogue import SourceRange, blocks, places
from gristmill.select.components import components
from gristmill.select.split import choose_validation, is_one_of
from gristmill.select.words import Int64

# Side of a document. While a level is split, JOINED is training text, and FREED a copy whose survivor has left.
GONE, TRAIN, VALIDATION, RESEMBLES, JOINED, FREED = range(6)

# A document that leaves, and the held-out document that it resembles; NaN where the two only share a cluster, through others.
RESEMBLANCE = np.dtype([("document", "<i8"), ("held", "<i8"), ("jaccard", "<f8"), ("containment", "<f8")])
ASKED = (TRAIN, JOINED)  # the sides that are compared with validation text

# A copy whose survivor has left: its next survivor, or -1 where it is no copy any longer.
NEXT_SURVIVOR = np.dtype(
    [("document", "<i8"), ("survivor", "<i8"), ("exact", "?"), ("jaccard", "<f8"), ("containment", "<f8")]
)

Resembling = Callable[[int, int, NDArray[np.int8], Int64, Sequence[int]], NDArray[np.void]]
SearchAgain = Callable[[int, NDArray[np.int8], Int64], NDArray[np.void]]


@dataclass(frozen=True, kw_only=True)
class Members:
    """The D documents and what is known of them; the arrays may be mapped.

    name_D: of `document_names`. num_bytes_D: of the text. kept_D: False for those dropped for an earlier reason.
    """

    sources: Sequence[SourceRange]
    name_D: Int64
    num_bytes_D: Int64
    kept_D: NDArray[np.bool_]

    def by_level(self) -> Iterator[tuple[int, list[SourceRange]]]:
        """The sources of each level."""
        for level, own in groupby(self.sources, key=lambda source: source.level):
            yield level, list(own)


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What the search for duplicates found: links, the second of each decided before the first, and the C copies, by document."""

    links_E2: Int64
    document_C: Int64
    survivor_C: Int64


@dataclass(frozen=True, kw_only=True)
class Split:
    """cluster_D: names of clusters. side_D: GONE, TRAIN, VALIDATION or RESEMBLES. resembling: of the last, RESEMBLANCE rows.
    freed: of the copies whose survivor is one of those, NEXT_SURVIVOR rows."""

    cluster_D: Int64
    side_D: NDArray[np.int8]
    resembling: NDArray[np.void]
    freed: NDArray[np.void]


@dataclass(frozen=True, kw_only=True)
class Searches:
    """What looks at texts.

    `resembling(first, end, side_D, held, sides)` compares those documents from first to end that are on one of the sides with
    the held ones in full, and returns RESEMBLANCE rows. `again(first, side_D, freed)` looks which of the freed documents of the
    level that begins at `first` are copies of one in train or of each other, and returns NEXT_SURVIVOR rows of those.
    """

    resembling: Resembling
    again: SearchAgain


def split_by_level(
    members: Members, found: Duplicates, split: Split, *, rules: Validation, seed: int, searches: Searches
) -> Split:
    """The split of all documents, written into the arrays of `split`."""
    left, freed = [np.empty(0, dtype=RESEMBLANCE)], [np.empty(0, dtype=NEXT_SURVIVOR)]
    links_E2, resembling = found.links_E2, searches.resembling
    for level, sources in members.by_level():
        first, end = sources[0].first, sources[-1].end
        for some in blocks(first, end):
            split.cluster_D[some] = members.name_D[some]
            split.side_D[some] = np.where(members.kept_D[some], TRAIN, GONE)
        mine = links_E2[(links_E2[:, 0] >= first) & (links_E2[:, 0] < end)]
        held = places(split.side_D, VALIDATION, first=0, end=first)
        alike = resembling(first, end, split.side_D, held, ASKED) if level else left[0]
        left.append(_join(split, mine, alike, held, first=first))
        _hold_out(split, members, sources, rules=rules, seed=seed)
        for some in blocks(first, end):
            split.side_D[some][split.side_D[some] == JOINED] = TRAIN
        own = places(split.side_D, VALIDATION, first=first, end=end)
        cluster_left = _sorted(left)
        left.append(_leave(split, resembling(first, end, split.side_D, own, ASKED)))
        more, next_survivors = _free(split, found, cluster_left, left[-1], np.append(held, own), first, end, searches)
        left.append(more)
        freed.append(next_survivors)
    return Split(cluster_D=split.cluster_D, side_D=split.side_D, resembling=_sorted(left), freed=_sorted(freed))


def _sorted(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    rows = np.concatenate(parts)
    return rows[np.argsort(rows["document"])]


def _join(split: Split, links_E2: Int64, found: NDArray[np.void], held: Int64, *, first: int) -> NDArray[np.void]:
    """Names the clusters of the documents from `first`, and sets aside those that touch an earlier level. Returns those of
    them that leave: they touch validation text."""
    links = np.concatenate([links_E2, np.stack([found["document"], found["held"]], axis=1)])
    outward = links[:, 1] < first
    node_N = np.unique(np.concatenate([links[~outward].reshape(-1), links[outward][:, 0]]))
    part_N = components(len(node_N), np.searchsorted(node_N, links[~outward]))
    touched_N = _touched(split, node_N, part_N, links[outward], held)[part_N]
    lowest_N = np.full(len(node_N), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(lowest_N, part_N, split.cluster_D[node_N])
    joined = touched_N >= 0
    split.cluster_D[node_N[~joined]] = lowest_N[part_N[~joined]]
    split.cluster_D[node_N[joined]] = split.cluster_D[touched_N[joined]]
    kept = node_N[joined & (split.side_D[node_N] == TRAIN)]
    split.side_D[kept] = JOINED
    held_V, first_V = np.unique(split.cluster_D[held], return_index=True)
    leaves = kept[is_one_of(split.cluster_D[kept], held_V)]
    rows = np.empty(len(leaves), dtype=RESEMBLANCE)
    rows["document"], rows["jaccard"], rows["containment"] = leaves, np.nan, np.nan
    if len(leaves):
        rows["held"] = held[first_V[np.searchsorted(held_V, split.cluster_D[leaves])]]
        known = {int(row["document"]): row for row in found}
        for place, document in enumerate(leaves.tolist()):
            if document in known:
                rows[place] = known[document]
    split.side_D[leaves] = RESEMBLES
    return rows


def _touched(split: Split, node_N: Int64, part_N: Int64, outward_E2: Int64, held: Int64) -> Int64:
    """For each part an earlier document whose cluster it joins; -1 where none of its documents is linked to one.

    Of several clusters it is one with validation text, then the one with the lowest name.
    """
    names = split.cluster_D[outward_E2[:, 1]]
    trained = ~is_one_of(names, np.unique(split.cluster_D[held]))
    best_last = outward_E2[np.lexsort((names, trained))[::-1]]
    touched = np.full(len(node_N), -1)
    touched[part_N[np.searchsorted(node_N, best_last[:, 0])]] = best_last[:, 1]
    return touched


def _hold_out(split: Split, members: Members, sources: Sequence[SourceRange], *, rules: Validation, seed: int) -> None:
    """Chooses validation text among the clusters that touch no earlier level."""

    def of(source: SourceRange) -> Iterator[tuple[Int64, Int64]]:
        for some in blocks(source.first, source.end):
            free = split.side_D[some] == TRAIN
            yield split.cluster_D[some][free], members.num_bytes_D[some][free]

    chosen = [choose_validation(lambda source=source: of(source), rules=rules, seed=seed) for source in sources]  # type: ignore[misc]
    held = np.unique(np.concatenate(chosen))
    for some in blocks(sources[0].first, sources[-1].end):
        is_held = (split.side_D[some] == TRAIN) & is_one_of(split.cluster_D[some], held)
        split.side_D[some][is_held] = VALIDATION


def _leave(split: Split, found: NDArray[np.void]) -> NDArray[np.void]:
    """Documents that resemble validation text of their own level go to its clusters, so that later levels know it."""
    split.side_D[found["document"]] = RESEMBLES
    split.cluster_D[found["document"]] = split.cluster_D[found["held"]]
    return found


def _free(
    split: Split,
    found: Duplicates,
    cluster_left: NDArray[np.void],
    alike_left: NDArray[np.void],
    held: Int64,
    first: int,
    end: int,
    searches: Searches,
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Decides again about the copies from first to end whose survivor has left, so that none names one that is not kept.

    Those that resemble validation text leave as well, and so do those whose survivor is one of `cluster_left`: it left with its
    cluster, or at an earlier level. What is left of the copies of `alike_left` is text that resembles no validation text: copies
    of training text name that, of copies among themselves one survives. Returns RESEMBLANCE rows and NEXT_SURVIVOR rows.
    """
    at_level = slice(*np.searchsorted(found.document_C, [first, end]))
    of_left = np.flatnonzero(split.side_D[found.survivor_C[at_level]] == RESEMBLES)
    document_F, survivor_F = found.document_C[at_level][of_left], found.survivor_C[at_level][of_left]
    freed = np.empty(len(document_F), dtype=NEXT_SURVIVOR)
    freed["document"], freed["survivor"], freed["exact"] = document_F, -1, False
    freed["jaccard"] = freed["containment"] = 0.0
    if not len(freed):
        return np.empty(0, dtype=RESEMBLANCE), freed
    split.side_D[document_F] = FREED
    alike = searches.resembling(first, end, split.side_D, held, [FREED])
    is_alike = is_one_of(document_F, alike["document"])
    with_cluster = ~is_alike & ~is_one_of(survivor_F, np.sort(alike_left["document"]))
    more = np.empty(int(with_cluster.sum()), dtype=RESEMBLANCE)
    more["document"], more["jaccard"], more["containment"] = document_F[with_cluster], np.nan, np.nan
    more["held"] = cluster_left["held"][np.searchsorted(cluster_left["document"], survivor_F[with_cluster])]
    rows = _leave(split, _sorted([alike, more]))
    stays = document_F[~is_alike & ~with_cluster]
    if len(stays):
        again = searches.again(first, split.side_D, stays)
        split.side_D[stays] = TRAIN
        split.side_D[again["document"]] = GONE
        freed[np.searchsorted(document_F, again["document"])] = again
    return rows, freed
