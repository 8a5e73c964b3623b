"""COMMAND compare: which of two models is better, by paired differences on the same items, and what could have been seen.

    packs          items of packs that are byte for byte the same
    held-out text  documents with the same text that the runs of both hold out; what one of them trains on is no test of it

Two runs are compared on what both were measured on. A checkpoint, an export or any Hugging Face folder is measured here, on the packs and the
held-out text of the run that it is compared with, or of another one. Of many tasks some differ by chance, so p-values are Holm's over all
rows; a difference that neighbouring checkpoints of one run show too is not called better. A row that decides nothing says how large a
difference would have been seen four times in five.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.commands.compare_sides import Side, sides_of
from gristmill.commands.compare_targets import find_target
from gristmill.display import plain_table, print_whole
from gristmill.errors import DataError
from gristmill.evaluate.compare import ItemScores, compare
from gristmill.evaluate.noise import FEWEST, Noise, Trend, noise_of_difference, of_one_training
from gristmill.evaluate.outputs import Comparison, Verdict
from gristmill.graph.machine import Machine
from gristmill.statistics import smallest_detectable
from gristmill.train.outputs import BITS
from gristmill.units import counted


@dataclass(frozen=True, kw_only=True)
class Row:
    """A task on which both were measured. a, b: the values on what is paired, of `of` that each was measured on.

    noise: what two checkpoints differ by in 95 of 100 cases; None where it is not known.
    """

    task: str
    metric: str
    a: float
    b: float
    items: int
    of: tuple[int, int]
    comparison: Comparison
    smallest: float | None
    noise: float | None

    @property
    def verdict(self) -> Verdict | Literal["within checkpoint noise"]:
        """That of the comparison, where checkpoints do not differ as much for no reason."""
        found = self.comparison
        if found.decides and self.noise is not None and abs(found.difference) < self.noise:
            return "within checkpoint noise"
        return found.verdict


@dataclass(frozen=True, kw_only=True)
class Compared:
    """left_out: why tasks of one side or both are not compared. noise_words: of checkpoint noise, what is known and what not. notes: what to mind."""

    a: Side
    b: Side
    rows: Sequence[Row]
    left_out: Sequence[str]
    noise_words: Sequence[str]
    notes: Sequence[str]


def compare_models(
    a: str,
    b: str,
    *,
    model: str | None,
    on: Path | None,
    window: int | None,
    machine: Machine,
    console: Console,
    as_json: bool,
) -> None:
    """Prints B against A. a, b: addresses of compare_targets.py. on: the run whose packs and held-out text are used, where two runs are not
    compared on what they were measured on. window: of tokens, the longest input on held-out text.

    Raises RecipeError or ArtifactError for an address that means no model and where there is no run to measure on, DataError where the two have
    nothing in common.
    """
    targets = find_target(a, model=model), find_target(b, model=model)
    told = Console(stderr=True) if as_json else console
    found = compared(*sides_of(targets, on=on, window=window, machine=machine, console=told))
    if as_json:
        console.print_json(json.dumps(_plain(found)))
        return
    for name, side in (("A", found.a), ("B", found.b)):
        words = f"{side.target.address} {side.model}" if side.target.measured_as else side.target.address
        console.print(Text.assemble((f"{name} ", "bold"), words), soft_wrap=True)
    console.print()
    print_whole(_table(found.rows), console)
    console.print()
    for line in (*map(in_words, found.rows), *found.noise_words):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in found.notes:
        console.print(f"Mind: {line}", markup=False, highlight=False, soft_wrap=True)
    for line in found.left_out:
        console.print(f"not compared: {line}", style="dim", markup=False, highlight=False, soft_wrap=True)


def compared(a: Side, b: Side) -> Compared:
    """Both on the items that they share. Raises DataError where there are none."""
    scores: dict[str, dict[str, ItemScores]] = {"A": {}, "B": {}}
    left_out = list[str]()
    for task in dict.fromkeys([*a.scores, *b.scores]):
        if task not in a.scores or task not in b.scores:
            why = a.left_out.get(task) or b.left_out.get(task)
            left_out.append(why or f"{task}, which only {'B' if task in b.scores else 'A'} was measured on")
            continue
        pair = _paired_items(a, b, task)
        if isinstance(pair, str):
            left_out.append(pair)
        else:
            scores["A"][task], scores["B"][task] = pair
    if not scores["A"]:
        raise DataError(
            f"{a.target.address} and {b.target.address} were measured on nothing that is the same: {'; '.join(left_out) or 'no tasks'}."
        )
    watched = of_one_training(
        [None if side.target.watched is None else Trend.of(side.target.watched) for side in (a, b)]
    )
    figures = [replace(side.figures[task], model=name) for name, side in (("A", a), ("B", b)) for task in scores["A"]]
    rows, known = [], dict[str, list[Noise | int | None]]()
    for comparison in compare(scores, figures):
        ours = [scores[name][comparison.task] for name in ("A", "B")]
        known[comparison.task] = [
            None if one is None else one.noise(comparison.task, comparison.metric) for one in watched
        ]
        rows.append(
            Row(
                task=comparison.task,
                metric=comparison.metric,
                a=_value(ours[0]),
                b=_value(ours[1]),
                items=comparison.n,
                of=(len(a.scores[comparison.task]["amounts"]), len(b.scores[comparison.task]["amounts"])),
                comparison=comparison,
                smallest=smallest_detectable(comparison.stderr, comparison.degrees),
                noise=noise_of_difference([one if isinstance(one, Noise) else None for one in known[comparison.task]]),
            )
        )
    return Compared(
        a=a,
        b=b,
        rows=rows,
        left_out=left_out,
        noise_words=_noise_words(known),
        notes=[*a.notes, *b.notes],
    )


def _paired_items(a: Side, b: Side, task: str) -> tuple[ItemScores, ItemScores] | str:
    """The scores of both on the items that they share; or why there are none."""
    one, other = a.figures[task], b.figures[task]
    if one.metric != other.metric:
        return f"{task}, measured as {one.metric} and as {other.metric}"
    if one.metric != BITS:
        if one.pack_sha256 != other.pack_sha256:
            return f"{task}, of which the packs differ"
        for side in (a, b):
            if side.packs is not None and one.pack_sha256 not in side.packs:
                return f"{task}, whose items the run of {side.target.address} does not hold out"
        return a.scores[task], b.scores[task]
    if one.window != other.window and not (a.is_measured_here or b.is_measured_here):
        return f"{task}, read in windows of {one.window} and of {other.window} tokens; --window N reads both in windows of N"
    of_a = dict(
        zip(a.hashes(task), zip(a.scores[task]["amounts"], a.scores[task]["sizes"] or [], strict=True), strict=True)
    )
    allowed = [set(side.holds_out(task)) for side in (a, b) if side.holds_out is not None]
    both = [
        (*of_a[text], bits)
        for text, bits in zip(b.hashes(task), b.scores[task]["amounts"], strict=True)
        if text in of_a and all(text in known for known in allowed)
    ]
    if not both:
        return f"{task}, of which the two hold out no document in common"
    sizes = [size for _, size, _ in both]
    return (
        {"amounts": [bits for bits, _, _ in both], "sizes": sizes},
        {"amounts": [bits for _, _, bits in both], "sizes": sizes},
    )


def _value(scores: ItemScores) -> float:
    sizes = scores["sizes"]
    return sum(scores["amounts"]) / (len(scores["amounts"]) if sizes is None else sum(sizes))


def _table(rows: Sequence[Row]) -> Table:
    table = plain_table(
        "task",
        "measured",
        "A >",
        "B >",
        "B − A >",
        "95 % interval",
        "p (Holm) >",
        "items >",
        "would be seen >",
        "noise >",
    )
    for row in rows:
        found = row.comparison
        interval = "·" if found.interval is None else f"{found.interval[0]:+.3f} to {found.interval[1]:+.3f}"
        table.add_row(
            row.task,
            row.metric.replace("_", " "),
            f"{row.a:.3f}",
            f"{row.b:.3f}",
            f"{found.difference:+.3f}",
            interval,
            f"{found.p_adjusted:.2g}",
            f"{row.items:,}",
            "·" if row.smallest is None else f"± {row.smallest:.2g}",
            "·" if row.noise is None else f"± {row.noise:.2g}",
        )
    return table


def in_words(row: Row) -> str:
    """What the row says of B against A."""
    found = row.comparison
    if row.verdict in ("better", "worse"):
        return f"{row.task}: B is {row.verdict} than A, by {abs(found.difference):.3f}."
    if row.verdict == "within checkpoint noise":
        return (
            f"{row.task}: B differs from A by {found.difference:+.3f}; neighbouring checkpoints of one run differ by up to {row.noise:.2g}, so it is "
            f"not called {found.verdict}."
        )
    if row.verdict == "at or below chance, no verdict":
        return f"{row.task}: neither is above guessing, so nothing is decided."
    if found.difference == 0 and not found.stderr:
        return f"{row.task}: both are the same on each of {counted(row.items, 'item')}."
    if row.smallest is None or abs(found.difference) >= row.smallest:  # seen four times in five, not always
        return f"{row.task}: cannot tell from {counted(row.items, 'item')}."
    return f"{row.task}: cannot tell; {counted(row.items, 'item')} show a difference of {row.smallest:.2g} or more, four times in five."


def _noise_words(known: Mapping[str, Sequence[Noise | int | None]]) -> list[str]:
    """How checkpoint noise was estimated, and of what it is not known."""
    found = {name: [of[place] for of in known.values()] for place, name in enumerate("AB")}
    counts = {name: {one.evaluations for one in ones if isinstance(one, Noise)} for name, ones in found.items()}
    rests = [
        f"the last {min(of)} to {max(of)} evaluations of {name}".replace(f"{min(of)} to {min(of)}", str(min(of)))
        for name, of in counts.items()
        if of
    ]
    words = []
    if rests:
        words.append(
            f"Checkpoint noise: what checkpoints differ by 19 times in 20 for no reason but when they were saved, by how far each of "
            f"{' and '.join(rests)} on the way lies off the line through its neighbours."
        )
    for place, (name, other) in enumerate((("A", "B"), ("B", "A"))):
        taken = [
            task for task, of in known.items() if not isinstance(of[place], Noise) and isinstance(of[1 - place], Noise)
        ]
        if taken:
            words.append(
                f"Of {name} it is not known on {', '.join(taken)}, and taken to be as large as that of {other}: {_why_unknown(known, taken, place)}."
            )
    unknown = [task for task, of in known.items() if not any(isinstance(one, Noise) for one in of)]
    if unknown:
        most = max((one for task in unknown for one in known[task] if isinstance(one, int)), default=0)
        words.append(
            f"Checkpoint noise is not known of {', '.join(unknown)}: measured {counted(most, 'time')} on the way with one length of sequences, and it "
            f"takes {FEWEST}."
        )
    return words


def _why_unknown(known: Mapping[str, Sequence[Noise | int | None]], tasks: Sequence[str], place: int) -> str:
    """Why the noise of one side is not known on these tasks."""
    counts = [one for task in tasks if isinstance(one := known[task][place], int)]
    if not counts:
        return "it has no log of its training"
    return f"measured {counted(max(counts), 'time')} on the way with one length of sequences, and it takes {FEWEST}"


def _plain(found: Compared) -> dict[str, Any]:
    return {
        **{
            name: {
                "run": None if side.target.run is None else str(side.target.run),
                "address": side.target.address,
                "model": side.model,
            }
            for name, side in (("a", found.a), ("b", found.b))
        },
        "rows": [
            {**asdict(row), "comparison": row.comparison.to_json(), "verdict": row.verdict, "words": in_words(row)}
            for row in found.rows
        ],
        "left_out": list(found.left_out),
        "noise": list(found.noise_words),
        "notes": list(found.notes),
    }
