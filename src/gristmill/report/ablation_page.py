"""The page of an ablation: what was asked, the verdict, the noise beside it, where candidates complement each other, what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from gristmill.ablate.design import Design
from gristmill.ablate.effect import FEWEST_ITEMS, FEWEST_SEEDS
from gristmill.ablate.outcome import DECIDED, ArmEffect, Outcome, in_words, unit_of
from gristmill.evaluate.extension import Extension
from gristmill.recipe.schema.ablation import EXTENSION
from gristmill.report.blocks import Section, figure, paragraph, quiet, table
from gristmill.report.charts import Score, interval_chart
from gristmill.report.extension_blocks import extension_blocks
from gristmill.report.page import render_sections
from gristmill.units import counted, scale, seconds

MARKS = {"better": " ▲", "worse": " ▼"}


@dataclass(frozen=True, kw_only=True)
class AblationFacts:
    """took_seconds: of all trainings and measurements. looks: seeds of each look at the results. other_environments: what trainings were
    made with otherwise than the first. extensions: by training, of those that extend the context."""

    design: Design
    outcome: Outcome
    took_seconds: float
    looks: Sequence[Mapping[str, object]]
    other_environments: Sequence[str]
    extensions: Mapping[str, Extension] = field(default_factory=dict)


def render_ablation(facts: AblationFacts) -> str:
    """The whole page, one file, nothing fetched."""
    design = facts.design
    trials = len(design.trials)
    tiles = (
        (str(len(design.arms)), "arms, the control among them"),
        (str(design.ablation.seeds), "seeds of each arm"),
        (scale(design.tokens), "tokens of each training"),
        (seconds(facts.took_seconds), f"for {counted(trials, 'training')} and their measurement"),
    )
    kind = (
        f"annealed from step {design.after_step:,} of one trunk" if design.after_step else "trained from the beginning"
    )
    is_of_data = design.ablation.kind != EXTENSION
    asked = "Which data is worth it" if is_of_data else "What a context extension costs within the old length"
    return render_sections(
        [_verdict(facts), *_positions(facts), _others(facts.outcome), _asked(facts)],
        labels={"name": design.run, "description": ""},
        verdict=verdict_in_words(design, facts.outcome),
        sentence=f"{asked}: {counted(len(design.arms) - 1, 'arm')} and a control, {kind}, judged on {design.ablation.endpoint}.",
        tiles=tiles,
    )


def verdict_in_words(design: Design, outcome: Outcome) -> str:
    """The answer, in a sentence or three."""
    where = "for this trunk" if design.ablation.kind == "anneal" else f"at {scale(design.tokens)} tokens from scratch"
    undecided = next((row for row in outcome.endpoint if row.verdict == "cannot tell"), None)
    if undecided is not None:
        return f"Cannot tell: {undecided.needs}."
    if design.ablation.kind == EXTENSION:
        return _cost_of_extension(design, outcome.endpoint[0])
    words = []
    best = outcome.best
    if best is not None:
        words.append(
            f"{best.arm} is better than the mixture as it is on {best.task}, by {abs(best.difference):.4f} {unit_of(best.metric)}, {where}."
        )
        words += _against_others(best, outcome)
    worse = [row.arm for row in outcome.endpoint if row.verdict == "worse"]
    if worse:
        words.append(f"Worse: {', '.join(worse)}.")
    open_rows = [row for row in outcome.endpoint if row.verdict not in DECIDED]
    if open_rows:
        smallest = [row.smallest for row in open_rows if row.smallest is not None]
        seen = f"; a difference of {max(smallest):.4f} would be seen four times in five" if smallest else ""
        words.append(f"No evidence either way: {', '.join(row.arm for row in open_rows)}{seen}.")
    return " ".join(words)


def _cost_of_extension(design: Design, row: ArmEffect) -> str:
    """What the extension costs within the old length, for this trunk."""
    length = design.trials[0].loaded.recipe.evaluate.window
    where = f"{unit_of(row.metric)} of {row.task} within {length:,} tokens, for this trunk"
    if row.verdict in DECIDED:
        return f"The extension {'costs' if row.verdict == 'worse' else 'saves'} {abs(row.difference):.4f} {where}."
    low, high = row.interval or (-math.inf, math.inf)
    seen = "" if row.smallest is None else f"; a difference of {row.smallest:.4f} would be seen four times in five"
    return f"Within the noise of the control: the extension adds {row.difference:+.4f} ({low:+.4f} to {high:+.4f}) {where}{seen}."


def _positions(facts: AblationFacts) -> list[Section]:
    """What the extension did beyond the old length; none for ablations of data."""
    if not facts.extensions:
        return []
    first = next(iter(facts.extensions.values()))
    blocks = [paragraph(f"{name}: {found.words}") for name, found in facts.extensions.items()]
    blocks += extension_blocks([line for line in (first.before, first.after) if line is not None])
    return [Section(title="Beyond the old length", intro="Before is the trunk that all arms share.", blocks=blocks)]


def environments_in_words(facts: AblationFacts) -> str:
    """That not all trainings were made alike, and which."""
    return (
        "Mind: trainings differ in more than data and seed, which can pass for an effect of the data where arms differ in it: "
        f"{'; '.join(facts.other_environments)}."
    )


def _against_others(best: ArmEffect, outcome: Outcome) -> Iterator[str]:
    """Whether the best arm is told apart from those that are better than the control too."""
    rivals = {row.arm for row in outcome.endpoint if row.verdict == "better"} - {best.arm}
    tied = [
        (rivals & {row.arm, row.other}).pop()
        for row in outcome.between
        if best.arm in (row.arm, row.other) and rivals & {row.arm, row.other} and row.verdict not in DECIDED
    ]
    if tied:
        yield f"Whether it is better than {', '.join(sorted(tied))} cannot be told."


def _verdict(facts: AblationFacts) -> Section:
    outcome = facts.outcome
    caption = (
        f"Against the control, on {outcome.endpoint_task}. The endpoint was declared before the first training. The interval has the noise of "
        "seeds and of items in it; p is Holm's over the arms. The last column is the difference that is found four times in five."
    )
    chart = interval_chart(
        [
            Score(
                name=row.arm,
                value=row.difference,
                low=row.interval[0],
                high=row.interval[1],
                grey=row.verdict not in DECIDED,
            )
            for row in outcome.endpoint
            if row.interval
        ],
        x_label=f"{unit_of(outcome.endpoint[0].metric)} on {outcome.endpoint_task}, arm less control",
        level=0.0,
        level_name="control",
    )
    blocks = [_effects(caption, outcome.endpoint), figure(chart, "Grey: undecided.")]
    blocks += [paragraph(in_words(row)) for row in outcome.endpoint]
    if outcome.noise is not None:
        noise = outcome.noise
        blocks.append(
            paragraph(
                f"A/A: runs of one arm with other seeds have a standard deviation of {noise.sd:.4f} ({noise.degrees} degrees of freedom, arm "
                f"and seed means removed); the two that lie farthest apart differ by {noise.largest:.4f}."
            )
        )
    if outcome.looks > 1:
        blocks.append(
            paragraph(
                f"Results had been looked at before: this is look {outcome.looks}, and every p is multiplied by "
                f"{outcome.looks * (outcome.looks + 1) // 2}."
            )
        )
    if facts.other_environments:
        blocks.append(paragraph(environments_in_words(facts)))
    if outcome.between:
        blocks.append(_effects("Arms against each other. On the endpoint; Holm over all pairs.", outcome.between))
    return Section(title="Verdict", intro="", blocks=blocks)


def _others(outcome: Outcome) -> Section:
    """A row an arm, a column a task: where the candidates complement each other."""
    tasks = list(dict.fromkeys(score.task for score in outcome.scores))
    arms = list(dict.fromkeys(score.arm for score in outcome.scores))
    values = {(score.arm, score.task): score.value for score in outcome.scores}
    marks = {(row.arm, row.task): row for row in (*outcome.endpoint, *outcome.others)}

    def cell(arm: str, task: str) -> str:
        row = marks.get((arm, task))
        mark = MARKS.get(row.verdict, "") if row is not None else ""
        return f"{values[arm, task]:.3f}{mark}"

    rows = [(arm, *(cell(arm, task) for task in tasks)) for arm in arms]
    caption = (
        "Every arm on everything that was measured. Means over seeds; ▲ better and ▼ worse than the control by more than the noise. Of bits per "
        "byte, fewer are better."
    )
    blocks = [table(caption, ("arm", *tasks), rows, numbers=range(1, len(tasks) + 1))]
    if outcome.groups:
        blocks.insert(0, _groups(outcome.groups))
    if outcome.others:
        more = "Beside the endpoint. Holm over all of these rows; they suggest, the endpoint decides."
        blocks.append(_effects(more, outcome.others, with_task=True))
    return Section(title="Where they complement each other", intro="", blocks=blocks)


def _groups(rows: Sequence[ArmEffect]) -> Markup:
    """A row an arm, a column a group of packs: the difference from the control with its interval."""
    groups = list(dict.fromkeys(row.task for row in rows))
    found = {(row.arm, row.task): row for row in rows}
    shown = [
        (arm, *(_difference(found[arm, group]) for group in groups)) for arm in dict.fromkeys(row.arm for row in rows)
    ]
    caption = (
        "Arms by groups of packs. Difference from the control with its 95 % interval; packs of a group weigh alike. ▲ better and ▼ worse by more "
        "than the noise, Holm over all cells."
    )
    return table(caption, ("arm", *groups), shown, numbers=range(1, len(groups) + 1))


def _difference(row: ArmEffect) -> str:
    interval = "" if row.interval is None else f" ({row.interval[0]:+.3f} to {row.interval[1]:+.3f})"
    return f"{row.difference:+.3f}{interval}{MARKS.get(row.verdict, '')}"


def _asked(facts: AblationFacts) -> Section:
    design = facts.design
    has_shares = design.arms[0].share is not None
    rows = [
        (arm.name, *((f"{arm.share:.0%}",) if has_shares else ()), arm.trained_on(design.arms[0]))
        for arm in design.arms
    ]
    columns = ("arm", *(("candidate's share",) if has_shares else ()), "mixture")
    rule = (
        f"A verdict takes {FEWEST_SEEDS} seeds and items worth {FEWEST_ITEMS:g} of equal size. Arms share everything but their mixture: the trunk, "
        "the schedule, the tokens, the seeds and the items."
    )
    looks = "; ".join(f"{look['seeds']} seeds, {look['declared_at']}" for look in facts.looks)
    runs = f"Each training is a run: {design.trials[0].loaded.recipe.name} to {design.trials[-1].loaded.recipe.name}."
    return Section(
        title="What was asked",
        intro="",
        blocks=[
            table("Arms. What each is trained on.", columns, rows, has_sentences=True),
            paragraph(rule),
            quiet(f"Declared: {looks}. {runs}"),
        ],
    )


def _effects(caption: str, rows: Sequence[ArmEffect], *, with_task: bool = False) -> Markup:
    shown = [
        (
            row.arm if row.other == "control" else f"{row.arm} − {row.other}",
            *((row.task,) if with_task else ()),
            f"{row.difference:+.4f}",
            f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}" if row.interval else "",
            "" if row.seed_stderr is None else f"{row.seed_stderr:.4f}",
            "" if row.item_stderr is None else f"{row.item_stderr:.4f}",
            f"{row.p_adjusted:.2g}",
            row.verdict,
            "" if row.smallest is None else f"{row.smallest:.4f}",
        )
        for row in rows
    ]
    task = ("task",) if with_task else ()
    headings = (
        "arm",
        *task,
        "difference",
        "95 % interval",
        "error of seeds",
        "error of items",
        "p, Holm",
        "verdict",
        "would be seen",
    )
    numbers = [index + len(task) for index in (1, 2, 3, 4, 5, 7)]
    return table(caption, headings, shown, numbers=numbers, grey=[row.verdict not in DECIDED for row in rows])
