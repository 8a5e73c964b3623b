"""COMMAND clean: remove from the store what no run uses, on consent."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gristmill import units
from gristmill.errors import RecipeError
from gristmill.remake import STATE
from gristmill.store.durable import read_json
from gristmill.store.removal import Kind, Removable, removable, remove
from gristmill.store.store import Store

NOUNS: dict[Kind, str] = {"artefact": "artefact", "checkpoint": "checkpoint", "unfinished": "unfinished folder"}


def clean(runs_dir: Path, *, console: Console, yes: bool = False, unfinished: bool = False) -> None:
    """Shows what no run in `runs_dir` links to, asks, and removes it. Unfinished work only if `unfinished`.

    Raises RecipeError when there is something to remove, nobody to ask, and `yes` was not given.
    """
    store = Store(runs_dir, say=lambda line: console.print(escape(line), highlight=False))
    if not store.root.is_dir():
        console.print(f"{store.root} is not there: nothing to remove.", highlight=False, markup=False)
        return
    found = removable(store)
    offered = [item for item in found if unfinished or item.kind != "unfinished"]
    if spared := [item for item in found if item not in offered]:
        _show(spared, "unfinished work that no run points to; it is removed only with --unfinished", store, console)
    if not offered:
        remove(store, [])  # what a killed removal left
        console.print(
            "Nothing else to remove: runs use the rest of the store."
            if spared
            else "Nothing to remove: runs use everything in the store."
        )
        return
    _show(offered, f"what no run in {runs_dir} uses", store, console)
    if not yes and not _agrees(f"remove {_counted(offered)}, {units.in_bytes(_bytes(offered))}", console):
        console.print("Nothing was removed.")
        return
    removed = remove(store, offered)
    console.print(f"Removed {_counted(removed)}, {units.in_bytes(_bytes(removed))}. Their records stay.")
    if kept := len(offered) - len(removed):
        console.print(f"{kept} came into use meanwhile and stayed.")


def _show(items: Sequence[Removable], title: str, store: Store, console: Console) -> None:
    table = Table(box=None, pad_edge=False, title=escape(title), title_justify="left")
    for heading, justify in (("step", "left"), ("identity", "left"), ("size", "right"), ("work", "right")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_column("last used")
    table.add_column("made by", overflow="fold")
    for item in items:
        work = "" if item.seconds is None else units.seconds(item.seconds)
        used = datetime.fromtimestamp(item.last_used).strftime("%Y-%m-%d %H:%M")
        table.add_row(
            escape(item.step), _short_name(item), units.in_bytes(item.bytes), work, used, escape(_maker(store, item))
        )
    total = sum(item.seconds or 0.0 for item in items)
    table.add_row("total", "", units.in_bytes(_bytes(items)), units.seconds(total))
    console.print(table)


def _maker(store: Store, item: Removable) -> str:
    """The command that made an artefact, the run that saved a checkpoint; empty where neither is on record."""
    if item.kind == "checkpoint":
        state = item.path / STATE
        return f"run {read_json(state)['run']}" if state.is_file() else ""
    record = store.record(item.step, item.identity) if item.kind == "artefact" else None
    command = [] if record is None else record.get("command", [])
    return shlex.join(["gristmill", *command[1:]]) if command else ""


def _short_name(item: Removable) -> str:
    return item.identity if item.kind == "checkpoint" else item.identity[:12]


def _counted(items: Sequence[Removable]) -> str:
    """ "2 artefacts and 1 checkpoint"."""
    numbers = Counter(item.kind for item in items)
    words = [units.counted(number, NOUNS[kind]) for kind, number in sorted(numbers.items())]
    return " and ".join(words) or "nothing"


def _bytes(items: Sequence[Removable]) -> int:
    return sum(item.bytes for item in items)


def _agrees(what: str, console: Console) -> bool:
    if not sys.stdin.isatty():
        raise RecipeError(
            f"nothing was removed: this is not a terminal, so nobody can be asked.\n  Add --yes to {what}."
        )
    try:
        return console.input(f"{escape(what)}? \\[y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
