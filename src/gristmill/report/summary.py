"""The few lines that end a run: what was made, how it did, a sample chat, and where the report is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from gristmill.report.facts import bits
from gristmill.store.artifact import RECORD
from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_log
from gristmill.train.monitor import SAMPLES
from gristmill.train.outputs import MODEL_STEPS
from gristmill.units import scale, seconds

SHOWN_SAMPLES = 4


def print_summary(run: Path, steps: Sequence[str], console: Console) -> None:
    """Print the end of a run from the records of its steps; those whose files were removed are left out."""
    records = [read_json(run / step / RECORD) for step in steps if (run / step / RECORD).is_file()]
    pretrain = next(record["counts"] for record in records if record["step"] == "pretrain")
    work = sum(record["wall_seconds"] for record in records)
    console.print(
        f"\n[bold]{run.name}[/]: {scale(pretrain['parameters'])} parameters, {scale(pretrain['tokens'])} tokens, "
        f"{len(records)} steps, {seconds(work)} of work.",
        highlight=False,
    )
    last = next(name for name in MODEL_STEPS[::-1] if (run / name / RECORD).is_file())
    for row in read_json(run / "evaluate" / "results.json"):
        if _tells(row, last):
            console.print(
                f"  {row['model']:<9} {row['task']:<26} {row['metric'].replace('_', ' '):<14} {bits(row)}  {_words(row)}",
                highlight=False,
            )
    speaks = next((name for name in MODEL_STEPS[::-1] if (run / name / SAMPLES).is_file()), last)
    samples = read_log(run / speaks / SAMPLES)
    for sample in [sample for sample in samples if sample["step"] == samples[-1]["step"]][-SHOWN_SAMPLES:]:
        prompt, text = (escape(" ".join(sample[key].split())) for key in ("prompt", "text"))
        console.print(f"  [cyan]{prompt or '(no prompt)'}[/] → {text or '(nothing)'}", highlight=False)
    console.print(f"  report  {run / 'report' / 'report.html'}", highlight=False)
    console.print(f"  model   {run / 'export' / 'model'}      gristmill chat {run}", highlight=False)


def _tells(row: dict[str, Any], last: str) -> bool:
    """Held-out text by the pretrained model, everything else by the last one; the report has the rest."""
    if row["metric"] == "bits_per_byte":
        return bool(row["model"] == "pretrain")
    return bool(row["model"] == last and row["metric"] != "stop_rate" and not row["at_or_below_chance"])


def _words(row: dict[str, Any]) -> str:
    return f"[dim]n = {row['n']:,}{', trained on' if row['kind'] == 'recall' else ''}[/]"
