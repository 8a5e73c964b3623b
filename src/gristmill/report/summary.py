"""The few lines that end a run: what was made, how it did, a sample chat, and where the report is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gristmill.evaluate.outputs import Evaluated, Figure
from gristmill.graph.outputs import Outputs
from gristmill.report.facts import bits, seconds_of
from gristmill.store.artifact import RECORD
from gristmill.synthesize.outputs import in_words
from gristmill.train.outputs import BITS, MODEL_STEPS, Pretrained, TrainedModel
from gristmill.units import counted, scale, seconds

SHOWN_SAMPLES = 4


def print_summary(run: Path, steps: Sequence[str], console: Console) -> None:
    """Print the end of a run from the records of its steps; those whose files were removed are left out."""
    records = [Outputs(run / step).record for step in steps if (run / step / RECORD).is_file()]
    pretrain = Pretrained(run / "pretrain").counts
    work = sum(map(seconds_of, records))
    console.print(
        f"\n[bold]{run.name}[/]: {scale(pretrain.parameters)} parameters, {scale(pretrain.tokens)} tokens in "
        f"{counted(pretrain.steps, 'step')}, {seconds(work)} of work.",
        highlight=False,
    )
    last = next(name for name in MODEL_STEPS[::-1] if (run / name / RECORD).is_file())
    for row in Evaluated(run / "evaluate").figures:
        if _tells(row, last):
            console.print(
                f"  {row.model:<9} {in_words(row.task):<26} {row.metric.replace('_', ' '):<14} {bits(row)}  {_words(row)}",
                highlight=False,
            )
    said = (TrainedModel(run / name).texts for name in MODEL_STEPS[::-1])
    texts = next((found for found in said if found), [])
    for sample in [sample for sample in texts if sample.step == texts[-1].step][-SHOWN_SAMPLES:]:
        prompt, text = (escape(" ".join(words.split())) for words in (sample.prompt, sample.text))
        console.print(f"  [cyan]{prompt or '(no prompt)'}[/] → {text or '(nothing)'}", highlight=False)
    console.print(f"  report  {run / 'report' / 'report.html'}", highlight=False, markup=False)
    console.print(
        f"  model   {run / 'export' / 'model'}      {shlex.join(['gristmill', 'chat', str(run)])}",
        highlight=False,
        markup=False,
    )


def _tells(row: Figure, last: str) -> bool:
    """Held-out text by the pretrained model, everything else by the last one; the report has the rest."""
    if row.metric == BITS:
        return row.model == "pretrain"
    return row.model == last and row.metric != "stop_rate" and not row.at_or_below_chance


def _words(row: Figure) -> str:
    return f"[dim]n = {row.n:,}{', trained on' if row.kind == 'recall' else ''}[/]"
