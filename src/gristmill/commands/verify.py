"""COMMAND verify: read every file that a run uses, and say which are not what was written."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gristmill.commands.run_folder import run_of
from gristmill.display import doing
from gristmill.errors import ArtifactError, RecipeError
from gristmill.graph.machine import usable_cpus
from gristmill.recipe.load import named_nearly
from gristmill.store.sound import CHANGED, Found, Used, Wrong, used_by
from gristmill.store.sound import verify as verify_run
from gristmill.tokens.shards import TokenShard
from gristmill.units import counted, in_bytes, seconds


def verify(target: Path, *, runs_dir: Path, console: Console, as_json: bool = False) -> int:
    """Tells what is wrong with the run of a recipe, or of a folder, and what to do. Returns the exit code: 1 where anything is wrong, which files
    beside those of an artefact are not."""
    folder = run_of(target, runs_dir)
    if not folder.is_dir():
        raise RecipeError(
            f"{target} does not exist. {named_nearly(target)}Name a run's folder, such as runs/quickstart."
        )
    if not used_by(folder):
        raise ArtifactError(f"{folder} uses nothing that could be verified: no step of it is made.")
    began = time.monotonic()
    with doing(console, f"reading {folder}") as show:
        found = verify_run(
            folder,
            threads=usable_cpus(),
            told=lambda done, total: show(f"reading {folder}, {in_bytes(done)} of {in_bytes(total)}"),
        )
    took = time.monotonic() - began
    if as_json:
        console.print_json(json.dumps(_plain(found)))
    else:
        _tell(folder, found, took, console)
    return 1 if found.wrong else 0


def _tell(folder: Path, found: Found, took: float, console: Console) -> None:
    for used in dict.fromkeys(wrong.of for wrong in found.wrong):
        console.print(Text(f"{used.name} is damaged", style="red"))
        for wrong in found.wrong:
            if wrong.of == used:
                console.print(Text(f"  {wrong.path}: {wrong.problem}{_where(wrong)}"), soft_wrap=True)
        console.print(Text(f"  {remedy(used)}"), soft_wrap=True)
    if found.not_listed:
        console.print(Text(f"{counted(len(found.not_listed), 'file')} that no manifest names", style="yellow"))
        for path in found.not_listed:
            console.print(Text(f"  {path}"), soft_wrap=True)
        console.print(
            Text("  Whoever put them there, move them away: a step that reads all files of a pattern would read them."),
            soft_wrap=True,
        )
    looked = f"{counted(found.files, 'file')} of {counted(found.folders, 'artefact')}, {in_bytes(found.bytes)}, read in {seconds(took)}"
    if found.wrong:
        console.print(Text(f"{folder}: {counted(len(found.wrong), 'file')} not as written; {looked}"), soft_wrap=True)
    else:
        console.print(Text(f"{folder}: every file is what was written; {looked}"), soft_wrap=True)


def remedy(used: Used) -> str:
    """What to do about a damaged artefact."""
    if used.is_checkpoint:
        return f"Remove {used.folder}: a training that goes on from it then takes the newest sound one before."
    return f"Put a copy back, or remove {used.folder} and run the recipe again: that remakes {used.name}; what was made from it stays where it comes out the same."


def _where(wrong: Wrong) -> str:
    """Which bytes of a file of tokens are damaged, by the hashes of its blocks."""
    ranges = _damaged_ranges(wrong)
    return "" if not ranges else ": bytes " + ", ".join(f"{part.start:,} to {part.stop:,}" for part in ranges)


def _damaged_ranges(wrong: Wrong) -> list[range]:
    if (
        wrong.problem != CHANGED
        or not wrong.path.with_suffix(".blocks").is_file()
        or wrong.path.suffix not in (".bin", ".index")
    ):
        return []
    try:
        return TokenShard(wrong.path.with_suffix("")).damaged().get(wrong.path, [])
    except ArtifactError:
        return []  # the file of hashes is damaged, too, and told by itself


def _plain(found: Found) -> dict[str, Any]:
    return {
        "artefacts": found.folders,
        "files": found.files,
        "bytes": found.bytes,
        "wrong": [
            {
                "of": wrong.of.name,
                "path": str(wrong.path),
                "problem": wrong.problem,
                "bytes": [[part.start, part.stop] for part in _damaged_ranges(wrong)],
                "remedy": remedy(wrong.of),
            }
            for wrong in found.wrong
        ],
        "not_listed": [str(path) for path in found.not_listed],
    }
