"""Sections on the outcome: evaluation with its comparisons, cost, provenance."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gristmill.evaluate.outputs import Figure
from gristmill.report.blocks import Section, figure, fold, heading, paragraph, table
from gristmill.report.charts import Score, interval_chart
from gristmill.report.facts import Facts, bits
from gristmill.train.outputs import BITS
from gristmill.units import in_bytes, seconds


def evaluation(facts: Facts) -> Section | None:
    """Held-out scores, recall of trained items, the xz yardstick, paired comparisons."""
    blocks: list[Markup] = []
    held_out = [row for row in facts.results if row.kind == "held_out"]
    by_bits = [row for row in held_out if row.metric == BITS]
    accuracy = [row for row in held_out if row.metric != BITS]
    if by_bits:
        blocks.append(heading("Bits per byte of held-out text"))
        blocks.append(
            paragraph(
                "Lower is better. xz is given all the training text first, so it shows how far memory of the text gets."
            )
        )
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
        blocks.append(table(("source", *models, "documents"), rows, numbers=range(1, len(models) + 2)))
    if accuracy:
        blocks.append(heading("Held-out items"))
        blocks.append(_score_table(accuracy))
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
        blocks.append(heading("Recall of trained items"))
        blocks.append(
            paragraph(
                "These were in the training conversations: they show that training worked, not that the model can generalise."
            )
        )
        blocks.append(_score_table(recall))
    if facts.comparisons:
        blocks.append(heading("Compared on the same items"))
        rows = [
            (
                row.task,
                row.metric.replace("_", " "),
                f"{row.a} − {row.b}",
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
                ("task", "metric", "", "difference", "95 % interval", "items", "p, Holm", "verdict"),
                rows,
                numbers=(3, 4, 5, 6),
                grey=[not row.decides for row in facts.comparisons],
            )
        )
    return Section(title="Evaluation", intro="", blocks=blocks) if blocks else None


def _score_table(rows: Sequence[Figure]) -> Markup:
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
        ("model", "task", "metric", "score", "95 % interval", "items", "chance", ""),
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


def cost(facts: Facts) -> Section | None:
    """What was planned against what it took, step by step."""
    rows = [
        (
            record.step,
            seconds(record.wall_seconds),
            in_bytes(record.peak_memory_bytes.process),
            in_bytes(record.peak_memory_bytes.largest_child),
            record.made_at,
        )
        for record in facts.records.values()
    ]
    blocks = [
        table(("", "planned", "real"), facts.planned_against_real, numbers=(1, 2)),
        heading("Steps"),
        table(("step", "took", "peak memory", "of its largest child", "made"), rows, numbers=(1, 2, 3)),
    ]
    return Section(title="Cost", intro="", blocks=blocks)


def provenance(facts: Facts) -> Section | None:
    """Fingerprints, versions, machine, parity of the export."""
    last = next(reversed(facts.records.values()))
    versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
    machine = ", ".join(f"{key} {value}" for key, value in last.machine.items())
    parity = [(check, words) for check, words in facts.parity_words]
    rows = [
        (
            record.step,
            Markup(f"<code>{record.identity}</code>"),
            record.version,
        )
        for record in facts.records.values()
    ]
    blocks = [
        heading("The exported model"),
        table(("check", "result"), parity),
        heading("Made with"),
        paragraph(versions),
        paragraph(machine),
        fold("Fingerprints of all steps", [table(("step", "fingerprint", "version of the step"), rows, numbers=(2,))]),
    ]
    return Section(title="Provenance", intro="", blocks=blocks)
