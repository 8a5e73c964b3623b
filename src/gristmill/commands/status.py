"""`gristmill status`: where a run is, what is next, and which step would be remade and why."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gristmill.graph.machine import Machine
from gristmill.pipeline import Planned, make_plan, run_folder
from gristmill.recipe.load import LoadedRecipe
from gristmill.store.artifact import PARTIAL_SUFFIX, RECORD
from gristmill.store.durable import read_json

COLOURS = {"done": "green", "missing": "yellow", "drifted": "magenta"}


def status(loaded: LoadedRecipe, machine: Machine, *, console: Console, as_json: bool = False) -> None:
    """Print one row per step: state, when and how long, and the reason if it will run."""
    folder = run_folder(machine.runs_dir, loaded.recipe)
    plan = make_plan(loaded, folder)
    if as_json:
        rows = [{"step": p.step.name, "state": p.state, "reasons": list(p.reasons), **_facts(p)} for p in plan]
        console.print_json(json.dumps(rows))
        return
    console.print(f"{folder}{'' if folder.is_dir() else '  [yellow]is not there yet[/]'}", highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "state", "made", "seconds", "what will happen and why"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
    for planned in plan:
        facts = _facts(planned)
        table.add_row(
            planned.step.name,
            f"[{COLOURS[planned.state]}]{planned.state}[/]",
            str(facts.get("made_at", ""))[:16].replace("T", " "),
            f"{facts['wall_seconds']:.1f}" if "wall_seconds" in facts else "",
            _words(planned, facts),
        )
    console.print(table)


def _facts(planned: Planned) -> dict[str, object]:
    facts: dict[str, object] = {}
    if planned.state != "missing":
        record = read_json(planned.folder / RECORD)
        facts |= {"made_at": record["made_at"], "wall_seconds": record["wall_seconds"]}
    partial = planned.folder.with_name(planned.folder.name + PARTIAL_SUFFIX)
    if partial.is_dir():
        facts["begun"] = True
        facts["checkpoints"] = _newest_checkpoint(partial)
    return facts


def _newest_checkpoint(partial: Path) -> str | None:
    names = sorted(path.name for path in partial.glob("checkpoints/step-*") if path.is_dir())
    return names[-1] if names else None


def _words(planned: Planned, facts: dict[str, object]) -> str:
    words = escape("; ".join(planned.reasons)) if planned.reasons else "[dim]nothing to do[/]"
    if facts.get("checkpoints"):
        return f"{words}; goes on from {facts['checkpoints']}"
    return f"{words}; begun" if facts.get("begun") else words
