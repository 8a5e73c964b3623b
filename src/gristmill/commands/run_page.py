"""`gristmill inspect RUN --page FILE`: the page of a run at any moment, as far as the run is.

select is made           the sections on data, as the report will show them
pretraining has begun    where it is, what comes next, and the curves so far; `follow` writes it again and again until the run ends
the report is made       that
"""

from __future__ import annotations

import datetime
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from gristmill.commands.follow import step_seconds, told, training_moment
from gristmill.errors import GristmillError, RecipeError
from gristmill.extract.not_read import kept_not_read
from gristmill.graph.outputs import Outputs
from gristmill.graph.step import Step
from gristmill.pipeline import changes_of, steps_of
from gristmill.recipe.interventions import RUN_RECIPE
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.recipe import Recipe
from gristmill.remake import PRETRAIN
from gristmill.report.facts import Caps, ChangeMade, Facts, Labels
from gristmill.report.outputs import ReportPage
from gristmill.report.page import render_curation
from gristmill.report.so_far import FactsSoFar, render_so_far
from gristmill.store.durable import read_json, write_text
from gristmill.store.heartbeat import Beat, read_beat
from gristmill.store.jsonl import read_log
from gristmill.store.store import RunLinks, Store
from gristmill.train.monitor import METRICS
from gristmill.train.standing.under_way import UnderWay

LOOK_SECONDS = 1.0
WRITE_SECONDS = 30.0  # between two pages, where nothing was measured meanwhile
MOST_CPU = 0.01  # share of a core
MEASURED = b'"kind": "eval"'  # in a line of the log
TRAINED = (PRETRAIN, "sft", "pairs", "dpo", "evaluate", "synthesize")


def write_page(target: Path, page: Path, *, console: Console) -> None:
    """Writes the page of a run. Raises RecipeError where there is no `select` yet."""
    write_text(page, _page(RunLinks(Store(target.parent), target.name), with_curation=True, refreshes=False))
    console.print(f"wrote {page}", markup=False, highlight=False)


def follow_page(target: Path, page: Path, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Writes the page of a run at work whenever something was measured, and every half minute, until the run ends; then once more, and that
    one loads itself no more. Returns how often it was written.

    Seldom enough that it takes at most a hundredth of a core. While the run is at work without the sections on data, which read what every
    shard left: it must not be in the way of the training.
    """
    links, written, seen, at, cost = RunLinks(Store(target.parent), target.name), 0, -1, -math.inf, 0.0
    first, measured = read_beat(target), Measured()
    while first is not None and _is_at_work(first, read_beat(target)):
        found, since, began = measured.look(_log(links)), time.monotonic() - at, time.process_time()
        if found is not None and since >= cost / MOST_CPU and (found != seen or since >= WRITE_SECONDS):
            # What it reads may just be replaced; then the next look reads it again.
            with suppress(GristmillError, OSError):
                write_text(page, _page(links, with_curation=False, refreshes=True))
                written, seen, at, cost = written + 1, found, time.monotonic(), time.process_time() - began
        sleep(LOOK_SECONDS)
    if measured.look(_log(links)) is not None:
        write_text(page, _page(links, with_curation=True, refreshes=False))
        written += 1
    return written


class Measured:
    """Counts the measurements in a log that grows; reads each part of it once."""

    def __init__(self) -> None:
        self._size = self._count = 0

    def look(self, log: Path | None) -> int | None:
        """How many there are by now; None before there is a log. A log that became shorter, as a resumed training's may, is counted from its beginning."""
        path = None if log is None else log / METRICS
        if path is None or not path.is_file():
            return None
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._size:
                self._size = self._count = 0
            file.seek(self._size)
            self._count += file.read(size - self._size).count(MEASURED)
        self._size = size
        return self._count


def _is_at_work(first: Beat, now: Beat | None) -> bool:
    """Whether it is still the process of the first look."""
    return now is not None and now.is_alive and (now.host, now.pid) == (first.host, first.pid)


def _log(links: RunLinks) -> Path | None:
    return links.artefact(PRETRAIN) or links.unfinished(PRETRAIN)


def _page(links: RunLinks, *, with_curation: bool, refreshes: bool) -> str:
    """The page as far as the run is; see the module's text."""
    selected = links.artefact("select")
    if selected is None or not (links.folder / RUN_RECIPE).is_file():
        raise RecipeError(
            f"{links.folder} is no run with a `select`, so there is no page of it.\n"
            "  Give runs/NAME; `gristmill run RECIPE --until select` makes what is missing."
        )
    if (final := _final(links)) is not None:
        return final
    recipe = load_recipe(links.folder / RUN_RECIPE).recipe
    steps = {step.name: step for step in steps_of(recipe)}
    report = steps["report"]
    labels, caps = Labels(**report.given.config["labels"]), Caps(**report.watching.config["caps"])
    made = _made(links, steps, selected)
    log, tokens = _log(links), links.artefact("tokenize")
    if log is None or tokens is None:
        return render_curation(Facts(labels, caps, made, not_read=kept_not_read(links.folder)))
    beat = read_beat(links.folder)
    training = _training(recipe, links, tokens, log, beat)
    changes = [ChangeMade(**change) for change in changes_of(recipe)]
    facts = FactsSoFar(
        labels,
        caps,
        {**made, PRETRAIN: steps[PRETRAIN].outputs(log)},
        recipe=recipe,
        training=training,
        changes=changes,
        not_read=kept_not_read(links.folder),
    )
    return render_so_far(
        facts,
        state="nothing of it is at work" if beat is None else told(beat),
        at=datetime.datetime.now(datetime.UTC),
        with_curation=with_curation,
        refreshes=refreshes,
    )


def _final(links: RunLinks) -> str | None:
    """The report, where it is of what the run has now."""
    report = links.artefact("report")
    if report is None or links.target(PRETRAIN) is None:
        return None
    record: dict[str, Any] = read_json(report / "record.json")
    is_of_this = record["made_from"].get(PRETRAIN) == links.target(PRETRAIN)
    return ReportPage(report).page.read_text(encoding="utf-8") if is_of_this else None


def _made(links: RunLinks, steps: dict[str, Step], selected: Path) -> dict[str, Outputs]:
    """What the steps left that the sections show, each by its name."""
    folders = {"select": selected, **links.made_from("select")}
    for name in steps:
        if (name.startswith(("fetch/", "classifier/")) or name in TRAINED) and (
            folder := links.artefact(name)
        ) is not None:
            folders[name] = folder
    return {name: steps[name].outputs(folder) for name, folder in folders.items() if name in steps}


def _training(recipe: Recipe, links: RunLinks, tokens: Path, log: Path, beat: Beat | None) -> UnderWay:
    """By the heartbeat of a run at work, else as far as the log goes."""
    moment = training_moment(beat)
    if moment is not None and moment.position is not None:
        step = moment.position.done
    else:
        step = max((line["step"] for line in read_log(log / METRICS)), default=0)
    training = UnderWay.of(recipe, tokens, log, step=step)
    return replace(training, step_seconds=step_seconds(training, moment))
