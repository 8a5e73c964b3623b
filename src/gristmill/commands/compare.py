"""`gristmill compare`: the models of two runs on what both were measured on: paired differences, and what could have been seen.

    packs          items of packs that are byte for byte the same
    held-out text  documents that both runs hold out, with the same text; what one of them trains on is no test of it

Nothing is measured again. Of many tasks some differ by chance, so p-values are Holm's over all rows. A row that decides nothing says how
large a difference would have been seen four times in five.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xxhash
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.commands.run_folder import refuse_broken_links, refuse_unfinished
from gristmill.data.document import read_batches
from gristmill.display import plain_table, print_whole
from gristmill.errors import ArtifactError, DataError, RecipeError
from gristmill.evaluate.compare import ItemScores, compare
from gristmill.evaluate.outputs import YARDSTICK, Comparison, Evaluated, Figure
from gristmill.recipe.load import named_nearly
from gristmill.select.outputs import Selected
from gristmill.statistics import smallest_detectable
from gristmill.store.store import RunLinks, Store
from gristmill.train.outputs import BITS
from gristmill.units import counted


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model of a run, as its evaluation has it. figures and scores: by task."""

    folder: Path
    model: str
    figures: dict[str, Figure]
    scores: dict[str, ItemScores]

    @classmethod
    def of(cls, folder: Path, model: str | None) -> Side:
        """model: None for the one that was made last. Raises RecipeError or ArtifactError where there is none."""
        if not folder.is_dir():
            raise RecipeError(
                f"{folder} does not exist. {named_nearly(folder)}Name a run's folder, such as runs/quickstart."
            )
        refuse_broken_links(folder)
        refuse_unfinished(folder, ["evaluate"] if not (folder / "evaluate").exists() else [])
        if not (folder / "evaluate").is_dir():
            raise ArtifactError(f"{folder} was not evaluated.\n  `gristmill run RECIPE --until evaluate` does it.")
        evaluated = Evaluated(folder / "evaluate")
        models = dict.fromkeys(figure.model for figure in evaluated.figures if figure.model != YARDSTICK)
        chosen = [*models][-1] if model is None else model
        if chosen not in models:
            raise RecipeError(f"{folder} has no model {chosen!r}; it has {', '.join(models)}.")
        scores: dict[str, ItemScores] = evaluated.scores_of(chosen)
        figures = {one.task: one for one in evaluated.figures if one.model == chosen and one.task in scores}
        return cls(folder=folder, model=chosen, figures=figures, scores=scores)

    def documents(self, source: str) -> Iterator[tuple[bytes, float, int]]:
        """Of each document of held-out text that was measured: a hash of its text, bits, bytes.

        Raises ArtifactError where the run's selection is not the one that was measured.
        """
        scores = self.scores[source]
        sizes = scores["sizes"] or []
        links = RunLinks(Store(self.folder.absolute().parent), self.folder.name)
        select = links.made_from("tokenize").get("select", self.folder / "select")
        texts = _texts(Selected(select, source=source).validation)
        for bits, size in zip(scores["amounts"], sizes, strict=True):
            text = next(texts, b"")
            if len(text) != size:
                raise ArtifactError(
                    f"{self.folder} was evaluated on other held-out text of {source} than it has now.\n  `gristmill run` with its recipe "
                    "evaluates it again."
                )
            yield xxhash.xxh3_128_digest(text), bits, size


@dataclass(frozen=True, kw_only=True)
class Row:
    """A task on which both were measured. a, b: the values on what is paired, of `of` that each was measured on."""

    task: str
    metric: str
    a: float
    b: float
    items: int
    of: tuple[int, int]
    comparison: Comparison
    smallest: float | None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """left_out: why tasks of one side or both are not compared."""

    a: Side
    b: Side
    rows: Sequence[Row]
    left_out: Sequence[str]


def compare_runs(a: Path, b: Path, *, model: str | None, console: Console, as_json: bool) -> None:
    """Prints B against A. Raises as `Side.of`, and DataError where the two have nothing in common."""
    found = compared(Side.of(a, model), Side.of(b, model))
    if as_json:
        console.print_json(json.dumps(_plain(found)))
        return
    console.print(
        Text.assemble(
            ("A ", "bold"), f"{found.a.folder} {found.a.model}\n", ("B ", "bold"), f"{found.b.folder} {found.b.model}"
        )
    )
    console.print()
    print_whole(_table(found.rows), console)
    console.print()
    for row in found.rows:
        console.print(in_words(row), markup=False, highlight=False, soft_wrap=True)
    for line in found.left_out:
        console.print(f"not compared: {line}", style="dim", markup=False, highlight=False, soft_wrap=True)


def compared(a: Side, b: Side) -> Compared:
    """Both on the items that they share. Raises DataError where there are none."""
    scores: dict[str, dict[str, ItemScores]] = {"A": {}, "B": {}}
    left_out = list[str]()
    for task in dict.fromkeys([*a.scores, *b.scores]):
        if task not in a.scores or task not in b.scores:
            left_out.append(f"{task}, which only {'B' if task in b.scores else 'A'} was measured on")
            continue
        pair = _paired_items(a, b, task)
        if isinstance(pair, str):
            left_out.append(pair)
        else:
            scores["A"][task], scores["B"][task] = pair
    if not scores["A"]:
        raise DataError(
            f"{a.folder} and {b.folder} were measured on nothing that is the same: {'; '.join(left_out) or 'no tasks'}."
        )
    figures = [replace(side.figures[task], model=name) for name, side in (("A", a), ("B", b)) for task in scores["A"]]
    rows = []
    for comparison in compare(scores, figures):
        ours = [scores[name][comparison.task] for name in ("A", "B")]
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
            )
        )
    return Compared(a=a, b=b, rows=rows, left_out=left_out)


def _paired_items(a: Side, b: Side, task: str) -> tuple[ItemScores, ItemScores] | str:
    """The scores of both on the items that they share; or why there are none."""
    one, other = a.figures[task], b.figures[task]
    if one.metric != other.metric:
        return f"{task}, measured as {one.metric} and as {other.metric}"
    if one.metric != BITS:
        return (
            (a.scores[task], b.scores[task])
            if one.pack_sha256 == other.pack_sha256
            else f"{task}, of which the packs differ"
        )
    if one.window != other.window:
        return f"{task}, read in windows of {one.window} and of {other.window} tokens"
    of_a = {text: (bits, size) for text, bits, size in a.documents(task)}
    both = [(*of_a[text], bits) for text, bits, _ in b.documents(task) if text in of_a]
    if not both:
        return f"{task}, of which the two hold out no document in common"
    sizes = [size for _, size, _ in both]
    return (
        {"amounts": [bits for bits, _, _ in both], "sizes": sizes},
        {"amounts": [bits for _, _, bits in both], "sizes": sizes},
    )


def _texts(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        for batch in read_batches(path, columns=["text"]):
            yield from (text.encode() for text in batch.column("text").to_pylist() if text)


def _value(scores: ItemScores) -> float:
    sizes = scores["sizes"]
    return sum(scores["amounts"]) / (len(scores["amounts"]) if sizes is None else sum(sizes))


def _table(rows: Sequence[Row]) -> Table:
    table = plain_table(
        "task", "measured", "A >", "B >", "B − A >", "95 % interval", "p (Holm) >", "items >", "would be seen >"
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
        )
    return table


def in_words(row: Row) -> str:
    """What the row says of B against A."""
    verdict = row.comparison.verdict
    if verdict in ("better", "worse"):
        return f"{row.task}: B is {verdict} than A, by {abs(row.comparison.difference):.3f}."
    if row.comparison.verdict == "at or below chance, no verdict":
        return f"{row.task}: neither is above guessing, so nothing is decided."
    if row.comparison.difference == 0 and not row.comparison.stderr:
        return f"{row.task}: both are the same on each of {counted(row.items, 'item')}."
    if row.smallest is None:
        return f"{row.task}: cannot tell from {counted(row.items, 'item')}."
    return f"{row.task}: cannot tell; {counted(row.items, 'item')} show a difference of {row.smallest:.2g} or more, four times in five."


def _plain(found: Compared) -> dict[str, Any]:
    return {
        **{name: {"run": str(side.folder), "model": side.model} for name, side in (("a", found.a), ("b", found.b))},
        "rows": [{**asdict(row), "comparison": row.comparison.to_json(), "words": in_words(row)} for row in found.rows],
        "left_out": list(found.left_out),
    }
