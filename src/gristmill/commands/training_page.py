"""How the state of a pretraining is told by `status`: what looks wrong, the budget, what was measured, what comes next; as JSON too."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gristmill.display import plain_table
from gristmill.train.outputs import EVAL
from gristmill.train.standing.ahead import Ahead
from gristmill.train.standing.ledger import LedgerRow
from gristmill.train.standing.trend import NEWEST, Trend
from gristmill.train.standing.under_way import UnderWay
from gristmill.units import scale, seconds

INDENT = 2


def print_training(
    training: UnderWay, *, step_seconds: float | None, now: datetime.datetime | None, console: Console
) -> None:
    """step_seconds: what a step takes, measurements included. now: while it is at work; then the time of day is told of what comes."""
    place = "" if training.step == training.num_steps else f", stage {training.stage}"
    head = (
        f"pretrain: step {training.step:,} of {training.num_steps:,}{place}; {scale(training.tokens)} of "
        f"{scale(training.total_tokens)} tokens"
    )
    console.print(Text(f"\n{head}", style="bold"))
    for finding in training.wrong:
        console.print(Text(f"{' ' * INDENT}looks wrong: {finding.what}", style="yellow"), soft_wrap=True)
    if not training.wrong:
        console.print(Text(f"{' ' * INDENT}nothing looks wrong", style="dim"))
    _print(console, "Tokens, read and still to read", _budget(training.budget))
    stages = _by_stage(training)
    room = console.width - INDENT
    if len(training.stage_names) > 1 and Measurement.get(console, console.options, stages).maximum <= room:
        _print(console, "Read in each stage, of its plan", stages)
    if training.measured:
        _print(console, f"Measured, and the change over the newest {NEWEST} values", _measured(training.measured))
    if training.ahead:
        _print(console, "Next", _ahead(training, step_seconds, now))


def training_json(training: UnderWay, *, step_seconds: float | None) -> dict[str, Any]:
    """The same for programs."""
    return {
        "step": training.step,
        "steps": training.num_steps,
        "tokens": training.tokens,
        "total_tokens": training.total_tokens,
        "stage": training.stage,
        "step_seconds": step_seconds,
        "budget": [_row_json(row, training.stage_names) for row in training.budget],
        "measured": [{**asdict(one), "direction": one.direction} for one in training.measured],
        "ahead": [{**asdict(one), "seconds": _seconds_to(one, training, step_seconds)} for one in training.ahead],
        "wrong": [asdict(finding) for finding in training.wrong],
    }


def _row_json(row: LedgerRow, stages: Sequence[str]) -> dict[str, Any]:
    return {
        "source": row.selection.source,
        "min_document_tokens": row.selection.min_document_tokens,
        "unique_tokens": row.unique_tokens,
        "read_tokens": row.read_tokens,
        "left_tokens": row.left_tokens,
        "epochs": row.epochs,
        "final_epochs": row.final_epochs,
        "warn_epochs": row.warn_epochs,
        "max_epochs": row.max_epochs,
        "stages": {
            name: {"read_tokens": read, "planned_tokens": planned}
            for name, read, planned in zip(stages, row.read, row.planned, strict=True)
        },
    }


def _print(console: Console, title: str, table: Table) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    console.print(Padding(table, (0, 0, 0, INDENT), expand=False))


def _budget(rows: Sequence[LedgerRow]) -> Table:
    table = plain_table("source", "unique >", "read >", "left >", "epochs >", "at end >", "cap >")
    for row in rows:
        table.add_row(
            str(row.selection),
            *map(scale, (row.unique_tokens, row.read_tokens, row.left_tokens)),
            f"{row.epochs:.2f}",
            f"{row.final_epochs:.2f}",
            f"{row.max_epochs:g}",
        )
    return table


def _by_stage(training: UnderWay) -> Table:
    table = plain_table("source", *(f"{name} >" for name in training.stage_names))
    for row in training.budget:
        cells = [
            f"{scale(read)} of {scale(planned)}" if planned else "·" for read, planned in zip(row.read, row.planned)
        ]
        table.add_row(str(row.selection), *cells)
    return table


def _measured(found: Sequence[Trend]) -> Table:
    table = plain_table("", "last >", "95 % >", "change >", "± >", "")
    for one in found:
        name = one.metric.removeprefix(EVAL).replace("/", " ").replace("_", " ")
        band = "" if one.low is None or one.high is None else f"{one.low:.3f} – {one.high:.3f}"
        change = "" if one.change is None else f"{one.change:+.3f}"
        noise = "" if one.noise is None else f"{one.noise:.3f}"
        style = "" if one.direction in ("rises", "falls") else "dim"
        table.add_row(name, f"{one.last:.3f}", band, change, noise, Text(one.direction, style=style))
    return table


def _ahead(training: UnderWay, step_seconds: float | None, now: datetime.datetime | None) -> Table:
    table = plain_table("step >", "after", "")
    for one in training.ahead:
        after = _seconds_to(one, training, step_seconds)
        when = "" if after is None else f"about {seconds(after)}"
        if after is not None and now is not None:
            at = now + datetime.timedelta(seconds=after)
            when += f", {at:%H:%M}" if at.date() == now.date() else f", {at:%m-%d %H:%M}"
        table.add_row(f"{one.step:,}", when, one.what)
    return table


def _seconds_to(one: Ahead, training: UnderWay, step_seconds: float | None) -> float | None:
    return None if step_seconds is None else (one.step - training.step) * step_seconds
