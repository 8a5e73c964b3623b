"""What was watched while a model trained, by groups of packs and stage ends: for `status`, in words, and for the page.

A cell is the mean over the packs of a group. A group that is asked in two ways, by choices and by written answers, has two rows. Where the
recipe names an earlier run, each cell has that run's value after as many tokens, and the group that is furthest behind it is named: by its
distance as a share of the reference, and only where that is more than noise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.store.store import RunLinks
from gristmill.train.outputs import BITS, MODEL_STEPS
from gristmill.train.watch.watched import (
    FEWER_IS_BETTER,
    GOLD_BITS,
    Point,
    Watched,
    WatchedPack,
    WatchedText,
    band_at,
    curve,
    left_guessing,
    measured_lines,
    read_watched,
)

PRETRAIN = MODEL_STEPS[0]
HELD_OUT_TEXT = "held-out text"
UNITS = {BITS: "bits per byte", GOLD_BITS: "bits per byte of the answer"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Mean of a group with half of its 95 % interval, infinite where it has none, after so many steps and tokens; reference: that of an
    earlier run after as many tokens. is_older: of a step before that of its column."""

    value: float
    half: float
    step: int
    tokens: int
    is_older: bool = False
    reference: tuple[float, float] | None = None

    def __str__(self) -> str:
        value = f"{self.value:.3f} ± {self.half:.3f}" if math.isfinite(self.half) else f"{self.value:.3f}"
        return f"{value} (step {self.step:,})" if self.is_older else value


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """A group in one measure. cells: by column, None where it was not measured."""

    group: str
    measure: str
    fewer_is_better: bool
    cells: Sequence[Cell | None]

    @property
    def behind(self) -> tuple[float, Cell] | None:
        """In the newest cell that has a reference: by which share of it the group is behind, if by more than noise."""
        for cell in reversed(self.cells):
            if cell is None or cell.reference is None:
                continue
            reference, half = cell.reference
            gap = (cell.value - reference) if self.fewer_is_better else (reference - cell.value)
            return (gap / reference, cell) if reference > 0 and gap > math.hypot(half, cell.half) else None
        return None


@dataclass(frozen=True, kw_only=True)
class GroupTable:
    """columns: stage ends that were reached, and the last measurement where it lies after them; there a group has the newest value of all
    its packs since the last stage end. told: what follows from it, in sentences."""

    columns: Sequence[str]
    rows: Sequence[GroupRow]
    told: Sequence[str]


def group_table(folder: Path, *, locked: Collection[str] = ()) -> GroupTable | None:
    """Of a training, begun or finished. locked: packs that are not shown. None where nothing was measured yet."""
    watched = read_watched(folder)
    lines = measured_lines(folder)
    if watched is None or not lines:
        return None
    return table_of(watched, lines, locked=locked)


def table_of(watched: Watched, lines: Sequence[Mapping[str, Any]], *, locked: Collection[str] = ()) -> GroupTable:
    """By what is watched and the lines of the log that tell what was measured."""
    packs = [pack for pack in watched.packs if pack.name not in locked]
    columns = _columns(watched, lines)
    groups = _groups(packs, watched.texts)
    curves = {one.key: curve(lines, one.key) for members in groups.values() for one in members}
    references = {} if watched.reference is None else watched.reference.curves
    rows = [
        GroupRow(
            group=group,
            measure=UNITS.get(metric, metric.replace("_", " ")),
            fewer_is_better=metric in FEWER_IS_BETTER,
            cells=[
                _cell([curves[one.key] for one in members], [references.get(one.key, ()) for one in members], at)
                for at in columns.values()
            ],
        )
        for (group, metric), members in groups.items()
    ]
    rows = [row for row in rows if any(cell is not None for cell in row.cells)]
    told = [*_told_of_reference(watched, rows), *_told_of_letters(packs, curves)]
    return GroupTable(columns=[*columns], rows=rows, told=told)


def groups_of_run(links: RunLinks, locked: Collection[str]) -> GroupTable | None:
    """What a run's pretraining measured of itself so far; None before the first measurement."""
    folder = links.artefact(PRETRAIN) or links.unfinished(PRETRAIN)
    return None if folder is None else group_table(folder, locked=locked)


def table_json(table: GroupTable) -> dict[str, Any]:
    """The same for programs; null for a cell that is empty and an interval that is not known."""
    return {
        "columns": [*table.columns],
        "rows": [
            {
                "group": row.group,
                "measure": row.measure,
                "fewer_is_better": row.fewer_is_better,
                "cells": [None if cell is None else _cell_json(cell) for cell in row.cells],
            }
            for row in table.rows
        ],
        "told": [*table.told],
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    reference = None if cell.reference is None else _mean_json(*cell.reference)
    return {"step": cell.step, "tokens": cell.tokens, **_mean_json(cell.value, cell.half), "reference": reference}


def _mean_json(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "half": half if math.isfinite(half) else None}


def words_of(table: GroupTable) -> list[str]:
    """The table as lines of text, then what follows from it."""
    head = ["group", "measure", *table.columns]
    body = [[row.group, row.measure, *("" if cell is None else str(cell) for cell in row.cells)] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *body)
    ]
    return [*lines, *table.told]


def _columns(watched: Watched, lines: Sequence[Mapping[str, Any]]) -> dict[str, range]:
    """Heading → steps of which the newest that was measured is shown."""
    newest = int(lines[-1]["step"])
    reached = {end.name: range(end.step, end.step + 1) for end in watched.stage_ends if end.step <= newest}
    last = max((steps[-1] for steps in reached.values()), default=-1)
    return {**reached, **({f"step {newest:,}": range(last + 1, newest + 1)} if newest > last else {})}


def _groups(
    packs: Sequence[WatchedPack], texts: Sequence[WatchedText]
) -> dict[tuple[str, str], list[WatchedPack] | list[WatchedText]]:
    """(group, metric) → what is in it; accuracies of both kinds are one."""
    groups: dict[tuple[str, str], list[Any]] = {(HELD_OUT_TEXT, BITS): list(texts)} if texts else {}
    for pack in packs:
        metric = GOLD_BITS if pack.metric == GOLD_BITS else "accuracy"
        groups.setdefault((pack.group, metric), []).append(pack)
    return groups


def _cell(curves: Sequence[Sequence[Point]], references: Sequence[Sequence[Point]], steps: range) -> Cell | None:
    """The mean over curves at the newest of the steps at which all of them have a point; None where there is none."""
    by_step = [{point.step: point for point in points if point.step in steps} for points in curves]
    common = set.intersection(*(set(points) for points in by_step))
    if not common:
        return None
    step = max(common)
    known = [points[step] for points in by_step]
    bands = [band_at(reference, point.tokens) for reference, point in zip(references, known, strict=True)]
    full = [band for band in bands if band is not None]
    value, half = _mean(known)
    return Cell(
        value=value,
        half=half,
        step=step,
        tokens=known[0].tokens,
        is_older=step < steps[-1],
        reference=_mean(full) if len(full) == len(bands) else None,
    )


def _mean(points: Sequence[Point]) -> tuple[float, float]:
    """Mean and half of its interval, the points being independent."""
    n = len(points)
    return sum(point.value for point in points) / n, math.sqrt(sum(point.half**2 for point in points)) / n


def _told_of_reference(watched: Watched, rows: Sequence[GroupRow]) -> list[str]:
    if watched.reference is None:
        return []
    folder = watched.reference.folder
    behind = [(*found, row) for row in rows if (found := row.behind) is not None]
    if not behind:
        compared = any(cell is not None and cell.reference is not None for row in rows for cell in row.cells)
        what = (
            "no group is behind it by more than noise"
            if compared
            else "nothing of it was measured after as many tokens"
        )
        return [f"Reference {folder}: {what}."]
    share, cell, row = max(behind, key=lambda one: one[0])
    assert cell.reference is not None
    value, half = cell.reference
    return [
        f"Furthest behind the reference {folder}: {row.group}, {cell} {row.measure} against {value:.3f} ± {half:.3f} after as many tokens, "
        f"{share:.0%} of it."
    ]


def _told_of_letters(packs: Sequence[WatchedPack], curves: Mapping[str, Sequence[Point]]) -> list[str]:
    told = []
    for pack in packs:
        if pack.is_of_letters and pack.guessing is not None and curves[pack.key]:
            found = left_guessing(curves[pack.key], pack.guessing)
            since = "not above guessing yet" if found is None else f"above guessing from step {found.step:,} on"
            told.append(f"{pack.name}, answered by letters: {since} ({pack.guessing:.3f}).")
    return told
