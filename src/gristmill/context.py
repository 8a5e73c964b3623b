"""From a step of the table to what it is given: roles opened, outside files found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gristmill.data.outside import find_step_files
from gristmill.graph.machine import Machine
from gristmill.graph.outputs import Outputs, content_hash
from gristmill.graph.progress import Report, unreported
from gristmill.graph.step import Reads, Step, StepContext, Watching
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import file_sha256
from gristmill.store.store import RunLinks, Store


def make_context(
    step: Step,
    *,
    identity: str,
    recipe_dir: Path,
    open_role: Callable[[Reads], Outputs],
    out: Path,
    machine: Machine,
    run: RunLinks,
    say: Callable[[str], None] = lambda line: None,
    progress: Report = unreported,
    should_stop: Callable[[], bool] = lambda: False,
) -> StepContext:
    """What a step of the table is given when it runs. open_role: the outputs that a role refers to."""
    watching = step.watching
    return StepContext(
        name=step.name,
        identity=identity,
        config=step.given.config,
        inputs={role: open_role(read) for role, read in step.given.inputs.items()},
        files=find_step_files(step.given, recipe_dir, step.name),
        watching=Watching(
            config=watching.config,
            inputs={role: open_role(read) for role, read in watching.inputs.items()},
            files=find_step_files(watching, recipe_dir, step.name),
        ),
        out=out,
        machine=machine,
        run=run,
        say=say,
        progress=progress,
        should_stop=should_stop,
    )


def context_of(
    recipe: Recipe,
    name: str,
    *,
    folders: Mapping[str, Path],
    recipe_dir: Path,
    out: Path,
    machine: Machine,
    identity: str = "0" * 32,
    say: Callable[[str], None] = lambda line: None,
    progress: Report = unreported,
    should_stop: Callable[[], bool] = lambda: False,
) -> StepContext:
    """What one step of a recipe is given when what earlier steps left lies in `folders`, committed or not: a step run by itself.

    Its checkpoints go to a store of its own beside `out`.
    """
    step = next(step for step in steps_of(recipe) if step.name == name)

    def open_role(read: Reads) -> Outputs:
        folder = folders[read.step]
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        hashes = {file: file_sha256(path) for file, path in files.items() if read.covers(file)}
        return read.open(folder, content=content_hash(read.outputs, hashes, reads=read.names, source=read.source))

    return make_context(
        step,
        identity=identity,
        recipe_dir=recipe_dir,
        open_role=open_role,
        out=out,
        machine=machine,
        run=RunLinks(Store(out.with_name(f"{out.name}.runs")), recipe.name),
        say=say,
        progress=progress,
        should_stop=should_stop,
    )
