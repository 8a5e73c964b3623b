"""The account of contamination over all sources: what was planted and found, and the documents that left, with their spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gristmill.select.catalogue import Catalogue
from gristmill.select.contamination import read_matches
from gristmill.select.fates import CONTAMINATED
from gristmill.select.outputs import ContaminationHit, ContaminationReport, PlantedRecall, SearchedForItems

MAX_HITS = 50  # of a pack: one that many documents hold hides no other


def contamination_report(
    catalogue: Catalogue, fate_D: NDArray[np.int8], searched: Mapping[str, SearchedForItems]
) -> ContaminationReport:
    """Documents that left because they hold an item, by source and pack, and of each pack the first of them for a person to judge."""
    by_source, by_pack = Counter[str](), Counter[str]()
    hits: list[ContaminationHit] = []
    packs = _planted(searched)
    for shard in catalogue.shards:
        rows = np.flatnonzero(fate_D[shard.first : shard.end] == CONTAMINATED)
        if not len(rows):
            continue
        matches = read_matches(shard.matches)
        by_source[shard.source] += len(rows)
        shown = []
        for row in rows.tolist():
            held = {_pack_of(name, packs) for name in matches[row].item_ids}
            by_pack.update(held)
            if any(by_pack[pack] <= MAX_HITS for pack in held):
                shown.append(row)
        for document, name in catalogue.ids_of(np.array(shown, dtype=np.int64) + shard.first):
            match = matches[document - shard.first]
            hits.append(
                ContaminationHit(
                    id=name,
                    source=shard.source,
                    items=match.item_ids,
                    rule=match.rule,
                    share=match.share,
                    words=match.words,
                    start=match.start,
                    end=match.end,
                    excerpt=match.excerpt,
                )
            )
    return ContaminationReport(
        rule=next((found.rule for found in searched.values()), ""),
        packs=packs,
        documents_removed=sum(by_source.values()),
        by_source=dict(sorted(by_source.items())),
        by_pack=dict(sorted(by_pack.items())),
        hits=tuple(hits),
    )


def _pack_of(item: str, packs: Iterable[str]) -> str:
    """The pack that an item is of: its name stands before the item's, and either may have a "/"."""
    return max((pack for pack in packs if item.startswith(f"{pack}/")), key=len)


def _planted(searched: Mapping[str, SearchedForItems]) -> dict[str, PlantedRecall]:
    """The packs, with what was planted into the documents of all sources."""
    total: dict[str, PlantedRecall] = {}
    for found in searched.values():
        for name, recall in found.packs.items():
            before = total.get(name)
            total[name] = recall if before is None else _both(before, recall)
    return total


def _both(one: PlantedRecall, other: PlantedRecall) -> PlantedRecall:
    by_form = {
        form: (found + other.by_form[form][0], planted + other.by_form[form][1])
        for form, (found, planted) in one.by_form.items()
    }
    return replace(one, planted=one.planted + other.planted, found=one.found + other.found, by_form=by_form)
