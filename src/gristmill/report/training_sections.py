"""Sections on training: the token budget, pretraining, conversations and preference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

from markupsafe import Markup

from gristmill.align.outputs import PreferencePairs
from gristmill.planning.budget import epoch_verdict
from gristmill.report.blocks import Section, beside, figure, heading, paragraph, quiet, quote, table
from gristmill.report.charts import Band, Mark, Series, line_chart
from gristmill.report.extension_blocks import extension_blocks
from gristmill.report.facts import Caps, ChangeMade, Facts
from gristmill.report.watching import UNITS
from gristmill.synthesize.outputs import in_words
from gristmill.train.events import AboveGuessingEvent, AnyEvent, MixtureEvent
from gristmill.train.outputs import BITS, CHAT_STEPS, LoggedLine, eval_metric, interval_of, train_metric
from gristmill.train.watch.watched import WatchedPack, band_at


def budget(facts: Facts) -> Section | None:
    """Tokens and epochs, planned against drawn."""
    rows = [
        (name, row.unique, row.planned, row.drawn, f"{row.epochs:.2f}", _verdict(row.epochs, facts.caps))
        for name, row in facts.token_budget.items()
    ]
    stages = [
        (
            row.stage.name,
            row.stage.tokens,
            row.stage.seq_len,
            row.mixture,
            f"{row.seconds:.0f} s" if row.seconds else "",
        )
        for row in facts.stages
    ]
    blocks = [
        table(
            "Tokens and passes",
            ("selection", "unique tokens", "planned", "drawn", "epochs", "verdict"),
            rows,
            numbers=(1, 2, 3, 4),
        ),
        table("Stages", ("stage", "tokens", "sequence length", "mixture", "took"), stages, numbers=(1, 2, 4)),
    ]
    return Section(
        title="Token budget",
        intro=f"Repeating text pays for about four passes. Above {facts.caps.warn_epochs:g} the plan warns, above {facts.caps.max_epochs:g} it refuses, unless the recipe says why.",
        blocks=blocks,
    )


SHOWN_EVENTS = 40
MOST_POINTS = 600  # of a line; a chart is 640 wide

VERDICTS = {"fine": "within the cap", "repeated": "repeated a lot", "allowed": "allowed by the recipe"}


def _verdict(epochs: float, caps: Caps) -> str:
    """Of a finished run: beyond the cap of all sources it was read because the recipe allows it for this one."""
    is_allowed = epochs > caps.max_epochs
    return VERDICTS[epoch_verdict(epochs, warn_epochs=caps.warn_epochs, max_epochs=math.inf, is_allowed=is_allowed)]


def pretraining(facts: Facts) -> Section | None:
    """Loss per source, schedule, bits per byte, watched packs, text after each stage."""
    bands = [Band(name=row.stage.name, start=row.first_token, end=row.last_token) for row in facts.stages]
    decisions = [
        Mark(
            name=f"change {number} after step {change.step:,}: {change.what}. {change.why}",
            x=change.tokens,
            number=number,
        )
        for number, change in enumerate(facts.changes, start=1)
    ]
    watched = facts.logged("pretrain", "eval")
    blocks = [*_curves(facts, watched, bands, decisions), *_watched(facts, watched, bands, decisions)]
    if facts.changes:
        blocks.append(_changes(facts.changes))
    if facts.happened:
        blocks.append(_happened(facts.happened))
    blocks += extension_blocks(facts.long_contexts)
    blocks += _texts_after_stages(facts)
    return Section(title="Pretraining", intro="", blocks=blocks)


def _curves(
    facts: Facts, watched: Sequence[LoggedLine], bands: Sequence[Band], decisions: Sequence[Mark]
) -> Iterator[Markup]:
    """Loss and bits per byte of each source, the learning rate, the gradient norm."""
    train = facts.logged("pretrain", "train")
    events = [
        Mark(name=str(event), x=event.tokens)
        for event in facts.happened
        if not isinstance(event, MixtureEvent | AboveGuessingEvent)
    ]
    marks = [*events, *decisions]
    losses = [_series(train, train_metric("loss", name), name) for name in facts.sources]
    heldout = [_series(watched, eval_metric(BITS, name), name, bars=True) for name in facts.sources]
    rate = [_series(train, train_metric("lr"), "learning rate")]
    norm = [_series(train, train_metric("grad_norm"), "gradient norm")]
    dashed = " Dashed: spikes, and data that was passed over; the table says what." if events else ""
    numbered = " Numbered: changes that were decided on the way; the table says what and why." if decisions else ""
    yield beside(
        figure(
            line_chart(losses, x_label="tokens", y_label="loss, nats per token", bands=bands, marks=marks),
            f"Training loss per source, averaged over the steps between two lines of the log.{dashed}{numbered}",
        ),
        figure(
            line_chart(heldout, x_label="tokens", y_label="bits per byte", bands=bands, marks=decisions),
            "Held-out text, never trained on. Bars are 95 % intervals over documents; the measure does not depend on the tokenizer.",
        ),
    )
    yield beside(
        figure(
            line_chart(rate, x_label="tokens", y_label="learning rate", bands=bands, marks=decisions, from_zero=True),
            "Warm-up, constant, decay to zero, over the whole token budget; shaded: the stages.",
        ),
        figure(
            line_chart(norm, x_label="tokens", y_label="gradient norm", bands=bands, marks=marks, from_zero=True),
            "Norm of the gradient before clipping.",
        ),
    )


def _changes(changes: Sequence[ChangeMade]) -> Markup:
    """What the numbers on the charts stand for."""
    rows = [
        (str(number), f"{change.step:,}", change.what, change.why) for number, change in enumerate(changes, start=1)
    ]
    return table(
        "Changes decided on the way. Of the recipe and of interventions, by their numbers on the charts.",
        ("number", "after step", "what", "why"),
        rows,
        has_sentences=True,
    )


def _texts_after_stages(facts: Facts) -> Iterator[Markup]:
    yield heading("What it wrote after each stage")
    stage = None
    for sample in facts.texts_at_stage_ends:
        if sample.stage != stage:
            stage = sample.stage
            yield quiet(f"{stage}, {sample.tokens:,} tokens")
        yield quote(sample.prompt, sample.text)


def _watched(
    facts: Facts, lines: Sequence[LoggedLine], bands: Sequence[Band], decisions: Sequence[Mark]
) -> Iterator[Markup]:
    """Groups of packs by stage ends, what follows from it, and a curve a pack."""
    found = facts.groups_at_stage_ends
    if found is not None:
        rows = [
            (row.group, row.measure, *("" if cell is None else str(cell) for cell in row.cells)) for row in found.rows
        ]
        yield table(
            "Groups at stage ends. The mean over the packs of a group with its 95 % interval, where all of them have one; of bits per byte, fewer are better.",
            ("group", "measure", *found.columns),
            rows,
            numbers=range(2, 2 + len(found.columns)),
        )
        yield from map(paragraph, found.told)
    for pack in facts.watched_packs:
        line = [_series(lines, pack.key, pack.name, bars=True)]
        if len(line[0].xs):
            what = "bits per byte of the right answer" if pack.guessing is None else "held-out items"
            yield figure(
                line_chart(
                    [*line, *_reference(facts, pack)],
                    x_label="tokens",
                    y_label=UNITS.get(pack.metric, "accuracy"),
                    bands=bands,
                    marks=decisions,
                    level=pack.guessing,
                    level_name="guessing",
                ),
                f"{pack.name}, {what}, scored inside the loop; bars are 95 % intervals.",
            )


def _reference(facts: Facts, pack: WatchedPack) -> list[Series]:
    """The same curve of the earlier run that the recipe names, with the noise of its items and checkpoints."""
    points = facts.reference_curves.get(pack.key, ())
    if not points:
        return []
    around = [band_at(points, point.tokens) for point in points]
    return [
        Series(
            name="reference",
            xs=[float(point.tokens) for point in points],
            ys=[point.value for point in points],
            intervals=[
                None
                if one is None or one.low is None or one.high is None or math.isinf(one.half)
                else (one.low, one.high)
                for one in around
            ],
        )
    ]


def _happened(events: Sequence[AnyEvent]) -> Markup:
    """The newest events in a table, with how many there were before."""
    earlier = len(events) - SHOWN_EVENTS
    rows = [(f"{event.step:,}", str(event), event.outcome, event.origin or "") for event in events[-SHOWN_EVENTS:]]
    return table(
        "What happened in training. A spike is a step whose loss or gradient norm lies 6 standard deviations above the steps before; after a "
        "change of mixture each source is followed until its loss is back."
        + (f" {earlier:,} earlier ones are in events.jsonl." if earlier > 0 else ""),
        ("step", "what", "outcome", "of run"),
        rows,
        has_sentences=True,
    )


def post_training(facts: Facts) -> Section | None:
    """Conversations, fine-tuning, preference pairs, preference optimisation."""
    if not facts.has("sft"):
        return None
    kinds = ", ".join(f"{count:,} {in_words(kind)}" for kind, count in facts.chat_kinds.items())
    blocks = [
        paragraph(f"Conversations by kind: {kinds}. The loss counts only the assistant's tokens."),
        _curve(
            [_series(facts.logged("sft", "train"), train_metric("loss"), "loss", x="step")],
            "Supervised fine-tuning.",
            y_label="loss, nats per token",
            from_zero=True,
        ),
    ]
    if facts.has("pairs"):
        report = facts.left("pairs", PreferencePairs).counts
        blocks.append(heading("Preference pairs"))
        blocks.append(paragraph(f"{report.words}. Sampled answers: {report.answers}."))
    if facts.has("dpo"):
        rows = facts.logged("dpo", "train")
        margin = [
            _series(rows, train_metric("margin"), "margin", x="step"),
            _series(rows, train_metric("accuracy"), "share of pairs with a positive margin", x="step"),
        ]
        blocks.append(
            _curve(
                [one for one in margin if len(one.xs)],
                "Direct preference optimisation: the margin between chosen and rejected answers, and how often it is positive.",
                y_label="margin, accuracy",
            )
        )
    for name in CHAT_STEPS:
        answers = facts.texts(name)
        if answers:
            blocks.append(heading(f"Asked after {name}"))
            blocks += [quote(f"{sample.prompt}  →  ", sample.text) for sample in answers]
    return Section(
        title="Conversation and preference",
        intro="A model this small speaks the format; sense needs more data and parameters."
        if facts.pretraining.parameters < 50e6
        else "",
        blocks=blocks,
    )


def _curve(series: Sequence[Series], caption: str, *, y_label: str, from_zero: bool = False) -> Markup:
    """A chart over steps; what was logged only once, in words."""
    if series and all(len(one.xs) == 1 for one in series):
        logged = ", ".join(f"{one.name} {one.ys[0]:.3g}" for one in series)
        return paragraph(f"{caption} Logged once, at step {series[0].xs[0]:,.0f}: {logged}.")
    return figure(line_chart(series, x_label="step", y_label=y_label, from_zero=from_zero), caption)


def _series(
    lines: Sequence[LoggedLine], key: str, name: str, *, x: Literal["tokens", "step"] = "tokens", bars: bool = False
) -> Series:
    found = [(line, value) for line in lines if (value := line.values.get(key)) is not None]
    bottom, top = interval_of(key)
    edges = [(line.values.get(bottom), line.values.get(top)) for line, _ in found] if bars else []
    points = [(float(line.tokens if x == "tokens" else line.step), value) for line, value in found]
    if not bars:
        points = thinned(points)
    return Series(
        name=name,
        xs=[at for at, _ in points],
        ys=[value for _, value in points],
        intervals=[None if low is None or high is None else (low, high) for low, high in edges],
    )


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """As many points as a chart can show: the means of neighbours, of equal numbers of points but for the last."""
    group = -(-len(points) // MOST_POINTS)
    groups = [points[first : first + group] for first in range(0, len(points), max(1, group))]
    return (
        [(fmean(at for at, _ in near), fmean(value for _, value in near)) for near in groups]
        if group > 1
        else [*points]
    )
