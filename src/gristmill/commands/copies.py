"""COMMANDS push, pull: copy a run's committed artefacts to another place, such as an object store, and back."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gristmill.commands.run_folder import refuse_broken_links, run_of, under_way
from gristmill.display import doing
from gristmill.errors import RecipeError
from gristmill.recipe.load import named_nearly
from gristmill.store.remote import Copied, Say
from gristmill.store.remote import pull as pull_run
from gristmill.store.remote import push as push_run
from gristmill.store.store import RunLinks, Store
from gristmill.units import counted, in_bytes


def push(target: Path, address: str, *, runs_dir: Path, only: Sequence[str], console: Console) -> None:
    """Copies what a run has and the address lacks. target: a run's folder or its recipe. Raises as `store.remote.push`."""
    folder = run_of(target, runs_dir)
    if not folder.is_dir():
        raise RecipeError(
            f"{target} does not exist. {named_nearly(target)}Name a run's folder, such as runs/quickstart."
        )
    refuse_broken_links(folder)
    run = RunLinks(Store(folder.absolute().parent), folder.name)
    with _shown("pushing", console) as say:
        copied = push_run(run, address, only=only, say=say)
    back = shlex.join(["gristmill", "pull", f"{address.rstrip('/')}/{run.name}"])
    console.print(Text(f"{_words(copied)}; {back} copies it back"))
    if not_made := under_way(folder):
        console.print(
            Text(f"without {', '.join(not_made)}: being made, or stopped on the way; push again when it is finished")
        )


def pull(address: str, *, runs_dir: Path, only: Sequence[str], console: Console) -> None:
    """Copies what a pushed run has and the store lacks, and links it. Raises as `store.remote.pull`."""
    if "://" not in address and not Path(address).is_dir():
        raise RecipeError(
            f"{address} does not exist. {named_nearly(Path(address))}Name a run that was pushed: ADDRESS/RUN."
        )
    store = Store(runs_dir, say=lambda line: console.print(Text(line)))
    with _shown("pulling", console) as say:
        run, copied = pull_run(address, lambda name: RunLinks(store, name), only=only, say=say)
    console.print(Text(f"{run.folder}: {_words(copied)}"))


def _words(copied: Copied) -> str:
    there = f", {counted(len(copied.there), 'artefact')} there already" if copied.there else ""
    replaced = f", in place of others of that run: {', '.join(copied.replaced)}" if copied.replaced else ""
    return f"copied {counted(len(copied.steps), 'artefact')}, {in_bytes(copied.num_bytes)}{there}{replaced}"


@contextmanager
def _shown(words: str, console: Console) -> Iterator[Say]:
    with doing(console, words) as show:
        yield lambda step, done, total: show(f"{words} {step}, {in_bytes(done)} of {in_bytes(total)}")
