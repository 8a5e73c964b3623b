"""Where a run's folder is, and why it holds less than it seems to: it is a copy without its store, or a run is at work on it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gristmill.errors import ArtifactError
from gristmill.recipe.load import IN_FOLDER, RECIPE_SUFFIXES, load_recipe
from gristmill.store.place import where_words
from gristmill.store.store import BEFORE_SUFFIX, STORE, UNFINISHED_SUFFIX, RunLinks, Store, named_by
from gristmill.train.outputs import MODEL_STEPS

UNDER_WAY = (UNFINISHED_SUFFIX, BEFORE_SUFFIX)


def print_place(links: RunLinks, recipe_dir: Path, console: Console) -> None:
    """The run's folder in a line, yellow where it is not there."""
    style = "" if links.folder.is_dir() else "yellow"
    console.print(Text(where_words(links, recipe_dir), style=style), soft_wrap=True)


def run_of(target: Path, runs_dir: Path) -> Path:
    """The folder of the run of a recipe, a YAML file or its folder; any other path as it is.

    Raises ArtifactError where the recipe has no run there.
    """
    file = target / IN_FOLDER if target.is_dir() else target
    if file.suffix not in RECIPE_SUFFIXES or not file.is_file() or _is_run(target):
        return target
    loaded = load_recipe(target)
    links = RunLinks(Store(runs_dir), loaded.recipe.name)
    if not links.folder.is_dir():
        raise ArtifactError(
            f"{target} is a recipe without a model: {where_words(links, loaded.folder)}.\n  `gristmill run {target}` makes it."
        )
    return links.folder


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's, or a copy of one: either has a recipe of its own."""
    return (folder.absolute().parent / STORE).is_dir() or any((folder / step).exists() for step in MODEL_STEPS)


def refuse_broken_links(target: Path) -> None:
    """Raise ArtifactError when links of `target` into a store lead nowhere, as those of a run copied with `cp -r` do."""
    for link in (*target.glob("*"), *target.glob("*/*")):
        if link.is_symlink() and not link.exists() and named_by(link) and not link.name.endswith(UNDER_WAY):
            raise ArtifactError(
                f"{target} is a run's folder, but its link {link.relative_to(target)} leads nowhere: {link.readlink()}\n"
                "  A copy of a run needs the files too: copy it with `cp -rL`. In the run's own place, `gristmill run` with "
                "its recipe remakes what is missing."
            )


def under_way(target: Path) -> list[str]:
    """The steps of a run's folder that are being made, or were stopped on the way."""
    links = [link for link in (*target.glob("*"), *target.glob("*/*")) if link.is_symlink()]
    names = {
        str(link.relative_to(target)).removesuffix(suffix)
        for link in links
        for suffix in UNDER_WAY
        if link.name.endswith(suffix)
    }
    return sorted(names)


def refuse_unfinished(target: Path, steps: Iterable[str]) -> None:
    """Raise ArtifactError when one of the steps, none of which `target` has, is being made there."""
    for step in steps:
        if any((target / f"{step}{suffix}").is_symlink() for suffix in UNDER_WAY):
            raise ArtifactError(
                f"{target} has no model now: its {step} is being remade, or was stopped on the way.\n"
                "  `gristmill run` with its recipe finishes it."
            )
