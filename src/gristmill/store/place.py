"""Where the run of a recipe is, in words: the same recipe may have a run in another store nearby."""

from __future__ import annotations

import os
from pathlib import Path

from gristmill.store.store import STORE, RunLinks

USUAL = "runs"


def where_words(links: RunLinks, recipe_dir: Path) -> str:
    """The run's folder, whether it is there, and if not, the option that uses another store in which this run is."""
    if links.folder.is_dir():
        return str(links.folder)
    other = run_elsewhere(links, recipe_dir)
    found = "" if other is None else f"; {other / links.name} is: --runs-dir {other} uses it"
    return f"{links.folder} is not there yet{found}"


def run_elsewhere(links: RunLinks, recipe_dir: Path) -> Path | None:
    """Another store that has a run of this name, beside the recipe or one folder up; None where `links` has it itself."""
    if links.folder.is_dir():
        return None
    here = Path.cwd()
    for folder in (here, here.parent, recipe_dir.absolute(), recipe_dir.absolute().parent):
        runs_dir = folder / USUAL
        if (runs_dir / links.name).is_dir() and (runs_dir / STORE).is_dir():
            return Path(os.path.relpath(runs_dir))
    return None
