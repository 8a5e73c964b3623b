"""Sections on the outcome: evaluation with its comparisons, cost, provenance."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gristmill.evaluate.outputs import Figure
from gristmill.report.blocks import Section, figure, fold, heading, paragraph, table
from gristmill.report.charts import Score, interval_chart
from gristmill.report.facts import Facts, bits, seconds_of
from gristmill.report.proof import parity_words
from gristmill.train.outputs import BITS
from gristmill.units import in_bytes, seconds


def evaluation(facts: Facts) -> Section | None:
    """Held-out scores, recall of trained items, the xz yardstick, paired comparisons."""
    blocks: list[Markup] = []
    held_out = [row for row in facts.results if row.kind == "held_out"]
    by_bits = [row for row in held_out if row.metric == BITS]
    accuracy = [row for row in held_out if row.metric != BITS]
    if by_bits:
        models = list(dict.fromkeys(row.model for row in by_bits))
        tasks = list(dict.fromkeys(row.task for row in by_bits))
        found = {(row.model, row.task): row for row in by_bits}
        rows = [
            (
                task,
                *(bits(found.get((model, task))) for model in models),
                max(found[model, task].n for model in models if (model, task) in found),
            )
            for task in tasks
        ]
        caption = (
            "Bits per byte of held-out text. Lower is better. xz is given all the training text first, so it shows how far "
            "memory of the text gets."
        )
        blocks.append(table(caption, ("source", *models, "documents"), rows, numbers=range(1, len(models) + 2)))
    if accuracy:
        blocks.append(_score_table("Held-out items", accuracy))
        blocks += [
            figure(
                interval_chart(
                    [_score(row) for row in accuracy if row.task == task and row.interval],
                    x_label=f"{task}",
                    level=_chance(accuracy, task),
                    level_name="chance",
                ),
                "Grey: the interval does not lie wholly above chance, so the score decides nothing.",
            )
            for task in dict.fromkeys(row.task for row in accuracy if row.chance is not None)
        ]
    recall = [row for row in facts.results if row.kind == "recall"]
    if recall:
        caption = (
            "Recall of trained items. These were in the training conversations: they show that training worked, not that the "
            "model can generalise."
        )
        blocks.append(_score_table(caption, recall))
    if facts.comparisons:
        rows = [
            (
                f"{row.a} − {row.b}",
                row.task,
                row.metric.replace("_", " "),
                f"{row.difference:+.3f}",
                _range(row.interval),
                row.n,
                f"{row.p_adjusted:.3g}",
                row.verdict,
            )
            for row in facts.comparisons
        ]
        blocks.append(
            table(
                "Compared on the same items",
                ("models", "task", "metric", "difference", "95 % interval", "items", "p, Holm", "verdict"),
                rows,
                numbers=(3, 4, 5, 6),
                grey=[not row.decides for row in facts.comparisons],
            )
        )
    return Section(title="Evaluation", intro="", blocks=blocks) if blocks else None


def _score_table(caption: str, rows: Sequence[Figure]) -> Markup:
    shown = [
        (
            row.model,
            row.task,
            row.metric.replace("_", " "),
            f"{row.value:.3f}",
            _range(row.interval),
            row.n,
            "" if row.chance is None else f"{row.chance:g}",
            "at or below chance" if row.at_or_below_chance else "",
        )
        for row in rows
    ]
    return table(
        caption,
        ("model", "task", "metric", "score", "95 % interval", "items", "chance", "note"),
        shown,
        numbers=(3, 4, 5, 6),
        grey=[row.at_or_below_chance for row in rows],
    )


def _score(row: Figure) -> Score:
    assert row.interval is not None, f"{row.task} of {row.model} has no interval to draw"
    low, high = row.interval
    return Score(
        name=f"{row.model} · {row.metric.replace('_', ' ')}",
        value=row.value,
        low=low,
        high=high,
        grey=row.at_or_below_chance,
    )


def _chance(rows: Sequence[Figure], task: str) -> float | None:
    return next((row.chance for row in rows if row.task == task and row.chance is not None), None)


def _range(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


MEMORY_CAPTION = (
    "Steps, in the order in which they were made. Memory is resident memory at its peak while the step ran; one process does all "
    "steps, so libraries that an earlier step loaded are in it. Time of training is that of all attempts."
)


def cost(facts: Facts) -> Section | None:
    """What was planned against what it took, step by step."""
    rows = [
        (
            record.step,
            seconds(seconds_of(record)),
            in_bytes(record.peak_memory_bytes.process),
            in_bytes(record.peak_memory_bytes.largest_child),
            record.made_at[:16].replace("T", " "),
        )
        for record in facts.records.values()
    ]
    plan = facts.records["pretrain"].forecast
    blocks = [
        table(
            "What was planned, and what it took"
            + (f". The speed of pretraining was {plan.speed_source}" if plan is not None else ""),
            ("quantity", "planned", "real"),
            facts.planned_against_real,
            numbers=(1, 2),
        ),
        table(MEMORY_CAPTION, ("step", "took", "peak memory", "largest child", "made, UTC"), rows, numbers=(1, 2, 3)),
    ]
    return Section(title="Cost", intro="", blocks=blocks)


def provenance(facts: Facts) -> Section | None:
    """Fingerprints, versions, machine, parity of the export."""
    last = next(reversed(facts.records.values()))
    versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
    machine = ", ".join(f"{key} {value}" for key, value in last.machine.items())
    parity = parity_words(facts)
    rows = [
        (
            record.step,
            Markup(f"<code>{record.identity}</code>"),
            record.version,
        )
        for record in facts.records.values()
    ]
    blocks = [
        table("The exported model", ("check", "result"), parity),
        heading("Made with"),
        paragraph(versions),
        paragraph(machine),
        fold(
            "Fingerprints of all steps",
            [table("Fingerprints", ("step", "fingerprint", "version of the step"), rows, numbers=(2,))],
        ),
    ]
    return Section(title="Provenance", intro="", blocks=blocks)
