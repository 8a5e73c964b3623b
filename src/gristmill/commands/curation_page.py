"""`gristmill inspect RUN --page FILE`: the curation of a run as the page of its report shows it, as soon as `select` is made."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from gristmill.errors import RecipeError
from gristmill.extract.not_read import kept_not_read
from gristmill.graph.outputs import Outputs
from gristmill.pipeline import steps_of
from gristmill.recipe.interventions import RUN_RECIPE
from gristmill.recipe.load import load_recipe
from gristmill.report.facts import Caps, Facts, Labels
from gristmill.report.page import render_curation
from gristmill.store.durable import write_text
from gristmill.store.store import RunLinks, Store


def write_page(target: Path, page: Path, *, console: Console) -> None:
    """Writes the page, of the artefacts that the run's `select` was made from. Raises RecipeError where there is no `select`."""
    links = RunLinks(Store(target.parent), target.name)
    selected = links.artefact("select")
    if selected is None or not (target / RUN_RECIPE).is_file():
        raise RecipeError(
            f"{target} is no run with a `select`, so there is no curation to show.\n"
            "  Give runs/NAME; `gristmill run RECIPE --until select` makes what is missing."
        )
    steps = {step.name: step for step in steps_of(load_recipe(target / RUN_RECIPE).recipe)}
    report = steps["report"].given.config, steps["report"].watching.config
    folders = {"select": selected, **links.made_from("select")}
    for name in steps:
        if name.startswith(("fetch/", "classifier/")) and (folder := links.artefact(name)) is not None:
            folders[name] = folder
    made: dict[str, Outputs] = {name: steps[name].outputs(folder) for name, folder in folders.items() if name in steps}
    labels, caps = Labels(**report[0]["labels"]), Caps(**report[1]["caps"])
    write_text(page, render_curation(Facts(labels, caps, made, not_read=kept_not_read(target))))
    console.print(f"wrote {page}", markup=False, highlight=False)
