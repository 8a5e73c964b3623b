"""Sections on the outcome: evaluation with its comparisons, cost, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from gristmill.evaluate.outputs import Comparison, Figure
from gristmill.graph.cores import NOTABLE
from gristmill.graph.record import Record
from gristmill.report.blocks import Section, figure, fold, heading, paragraph, table
from gristmill.report.charts import Score, interval_chart
from gristmill.report.facts import Facts, bits, seconds_of
from gristmill.report.proof import parity_words
from gristmill.synthesize.outputs import in_words
from gristmill.train.outputs import BITS
from gristmill.units import in_bytes, seconds


def evaluation(facts: Facts) -> Section | None:
    """Held-out scores, recall of trained items, the xz yardstick, paired comparisons."""
    held_out = [row for row in facts.results if row.kind == "held_out"]
    by_bits = [row for row in held_out if row.metric == BITS]
    accuracy = [row for row in held_out if row.metric != BITS]
    recall = [row for row in facts.results if row.kind == "recall"]
    blocks: list[Markup] = []
    if by_bits:
        blocks.append(_bits_table(by_bits, facts.seen))
    if accuracy:
        blocks += [_score_table("Held-out items", accuracy), *_charts(accuracy)]
    if recall:
        caption = (
            "Recall of trained items. These were in the training conversations: they show that training worked, not that the "
            "model can generalise."
        )
        blocks.append(_score_table(caption, recall))
    if facts.comparisons:
        blocks.append(_comparison_table(facts.comparisons))
    return Section(title="Evaluation", intro="", blocks=blocks) if blocks else None


def _bits_table(figures: Sequence[Figure], seen: Mapping[str, float]) -> Markup:
    """A row a source, a column a model, and how much of the text is new."""
    models = list(dict.fromkeys(row.model for row in figures))
    found = {(row.model, row.task): row for row in figures}
    rows = [
        (
            task,
            *(bits(found.get((model, task))) for model in models),
            max(found[model, task].n for model in models if (model, task) in found),
            f"{seen[task]:.0%}" if task in seen else "",
        )
        for task in dict.fromkeys(row.task for row in figures)
    ]
    caption = (
        "Bits per byte of held-out text. Lower is better. xz is given training text first, at most 4 MB of it, so it shows how "
        "far memory of text gets. The last column is the share of the held-out text that also stands in training text, 13 words in a row: "
        "where it is large, a low figure is memory."
    )
    headings = ("source", *models, "documents", "also in training text")
    return table(caption, headings, rows, numbers=range(1, len(models) + 3))


def _charts(figures: Sequence[Figure]) -> Iterator[Markup]:
    """The scores on each task that has a level of chance."""
    for task in dict.fromkeys(row.task for row in figures if row.chance is not None):
        chart = interval_chart(
            [_score(row) for row in figures if row.task == task and row.interval],
            x_label=task,
            level=_chance(figures, task),
            level_name="chance",
        )
        yield figure(chart, "Grey: the interval does not lie wholly above chance, so the score decides nothing.")


def _comparison_table(comparisons: Sequence[Comparison]) -> Markup:
    rows = [
        (
            f"{row.a} − {row.b}",
            in_words(row.task),
            row.metric.replace("_", " "),
            f"{row.difference:+.3f}",
            _range(row.interval),
            row.n,
            f"{row.p_adjusted:.3g}",
            row.verdict,
        )
        for row in comparisons
    ]
    return table(
        "Compared on the same items",
        ("models", "task", "metric", "difference", "95 % interval", "items", "p, Holm", "verdict"),
        rows,
        numbers=(3, 4, 5, 6),
        grey=[not row.decides for row in comparisons],
    )


def _score_table(caption: str, rows: Sequence[Figure]) -> Markup:
    shown = [
        (
            row.model,
            in_words(row.task),
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


NOT_RECORDED = "not recorded"
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
            + (f". The speed of pretraining was {plan.speed_source}." if plan is not None else ".")
            + load_sentence({name: record.busy_cores for name, record in facts.records.items()}),
            ("quantity", "planned", "real"),
            _planned_against_real(facts),
            numbers=(1, 2),
        ),
        table(MEMORY_CAPTION, ("step", "took", "peak memory", "largest child", "made, UTC"), rows, numbers=(1, 2, 3)),
    ]
    return Section(title="Cost", intro="", blocks=blocks)


def load_sentence(busy_cores: Mapping[str, float | None]) -> str:
    """The steps that other processes slowed down, in a sentence after a blank; empty where there are none. busy_cores: by step."""
    busy = {name: cores for name, cores in busy_cores.items() if cores is not None and cores >= NOTABLE}
    if not busy:
        return ""
    return (
        f" Planned times are those of idle cores; other processes kept up to {max(busy.values()):.1f} cores busy during "
        f"{', '.join(busy)}."
    )


def _planned_against_real(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """What was forecast before pretraining ran, by its record, beside what happened; then the same of the time of each kind of step."""
    real, record = facts.pretraining, facts.records["pretrain"]
    plan = record.forecast
    planned = (
        (
            f"{plan.parameters:,}",
            f"{facts.planned_tokens / plan.pretraining_seconds:,.0f}",
            in_bytes(plan.memory_bytes),
        )
        if plan
        else (NOT_RECORDED,) * 3
    )
    yield "tokens", f"{facts.planned_tokens:,}", f"{real.tokens:,}"
    yield "parameters", planned[0], f"{real.parameters:,}"
    yield (
        "tokens per second of pretraining",
        planned[1],
        NOT_RECORDED if real.tokens_per_second is None else f"{real.tokens_per_second:,.0f}",
    )
    yield "peak memory of pretraining", planned[2], in_bytes(record.peak_memory_bytes.process)
    kinds: dict[str, list[Record]] = {}
    for name, made in facts.records.items():
        kinds.setdefault(name.partition("/")[0], []).append(made)
    for kind, records in kinds.items():
        said = [made.planned.seconds for made in records if made.planned is not None]
        if len(said) == len(records):
            yield f"time of {kind}", seconds(sum(said)), seconds(sum(map(seconds_of, records)))


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
