"""What an ablation would take, before it is made: its arms, its price, and the smallest difference that it could show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from gristmill.ablate.arms import Arm
from gristmill.ablate.declared import RESULTS
from gristmill.ablate.design import Design, Trial
from gristmill.ablate.draws import held_out_draws
from gristmill.ablate.effect import foreseen_detectable
from gristmill.ablate.outcome import ArmEffect, verdict_needs
from gristmill.commands.ablate_checks import made_trials
from gristmill.display import plain_table, print_whole
from gristmill.durations import StepForecast
from gristmill.forecast import Forecast, check_caps, check_present, make_forecast
from gristmill.graph.machine import Machine
from gristmill.graph.state import States
from gristmill.planning.speed import load_note
from gristmill.recipe.schema.ablation import EXTENSION
from gristmill.remake import PRETRAIN
from gristmill.select.outputs import Selected
from gristmill.statistics import FloatArray, effective_number, sums_by_cluster
from gristmill.store.durable import read_json
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.units import counted, scale, seconds

SEED_SD = {
    "anneal": 0.002,
    "scratch": 0.02,
    "stages": 0.02,
    "extension": 0.002,
}  # bits per byte, of a run of the quickstart; until runs of this ablation say
NEARLY = 0.01  # of the tokens of a source, by which plans may differ without a word
ITEM_SD = 0.05  # bits per byte, of a document's difference between two arms; likewise


@dataclass(frozen=True, kw_only=True)
class Price:
    """What the trainings that are missing take. once_seconds: of what all share and is not there yet: the text, the trunk.

    load: what other processes on the cores mean for it, in words; empty where they mean nothing.
    """

    each_seconds: float
    missing: int
    once_seconds: float
    load: str

    @property
    def total_seconds(self) -> float:
        """Of all that is missing."""
        return self.each_seconds * self.missing + self.once_seconds


def print_plan(design: Design, machine: Machine, console: Console) -> None:
    """The arms, the price, and the difference that could be seen."""
    ablation = design.ablation
    has_shares = design.arms[0].share is not None
    table = plain_table("arm", *(("share >",) if has_shares else ()), "trained on")
    for arm in design.arms:
        table.add_row(arm.name, *((f"{arm.share:.0%}",) if has_shares else ()), arm.trained_on(design.arms[0]))
    print_whole(table, console)
    forecasts = [_forecast(trial, machine) for trial in design.trials[: len(design.arms)]]
    states = forecasts[0].states
    price = _price(design, forecasts, made_trials(design, machine) if states is not None else [], machine)
    trunk = (
        f"each leaves one trunk after step {design.after_step:,} and"
        if design.after_step
        else "each from the beginning,"
    )
    in_all = f"price: about {seconds(price.each_seconds)} each, {seconds(price.total_seconds)} in all on this machine"
    lines = [
        f"{counted(len(design.trials), 'training')}, {len(design.arms)} arms × {counted(ablation.seeds, 'seed')}, {trunk} "
        f"takes {scale(design.tokens)} tokens; {price.missing} to make",
        in_all if price.missing else "price: none, all is there",
        *([price.load] if price.load else []),
        f"endpoint: held-out text of {ablation.endpoint}; {_sight(design, states, machine)}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if ablation.kind == EXTENSION:
        short, long = (_trial_of(design, arm).loaded.recipe.pretrain.stages[-1].seq_len for arm in design.arms)
        told = (
            f"the control finishes in sequences of {short:,} tokens, {EXTENSION} as the recipe says, in {long:,}; both are then read in windows of "
            f"{short:,}: what the extension costs within the old length"
        )
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    drawn = [arm.name for arm in design.arms if arm.candidate and _draws(design, arm.candidate, ablation.endpoint)]
    if drawn:
        console.print(
            f"Mind: {', '.join(drawn)} trains on the source of the endpoint, so its verdict is about that kind of text.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for unequal in _unequal(design) if ablation.kind == "stages" else []:
        console.print(
            f"Mind: {unequal}, so its verdict is about how much as well as about when.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if design.has_other_plan:
        console.print(
            f"Mind: the control goes on with the mixture before step {design.after_step:,}; the recipe has another one after it, which no arm "
            "has unless it is a candidate with share 1.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print()


def _draws(design: Design, candidate: str, source: str) -> bool:
    return any(draw.source == source for draw in design.ablation.candidates.get(candidate, []))


def _unequal(design: Design) -> list[str]:
    """Plans that read more or less of a source than the control, in words: they differ in how much, beside when."""
    control, told = _tokens_by_source(design, design.arms[0]), list[str]()
    for arm in design.arms[1:]:
        own = _tokens_by_source(design, arm)
        pairs = {source: (own.get(source, 0), control.get(source, 0)) for source in dict.fromkeys([*own, *control])}
        parts = [
            f"{scale(ours)} tokens of {source} (control {scale(theirs)})"
            for source, (ours, theirs) in pairs.items()
            if abs(ours - theirs) > NEARLY * max(ours, theirs)
        ]
        if parts:
            told.append(f"{arm.name} reads {', '.join(parts)}")
    return told


def _tokens_by_source(design: Design, arm: Arm) -> dict[str, float]:
    sums: dict[str, float] = {}
    for stage in _trial_of(design, arm).loaded.recipe.pretrain.stages:
        for draw in stage.mixture:
            sums[draw.source] = sums.get(draw.source, 0.0) + draw.weight * stage.tokens
    return sums


def _trial_of(design: Design, arm: Arm) -> Trial:
    """The first training of an arm."""
    return next(trial for trial in design.trials if trial.arm is arm)


def _forecast(trial: Trial, machine: Machine) -> Forecast:
    """Of one training. Raises RecipeError for files that are missing, and for an arm that would read a source more often than its cap."""
    made = make_forecast(trial.loaded, machine)
    check_present(made)
    check_caps(made)
    return made


def _price(design: Design, forecasts: Sequence[Forecast], there: Sequence[Trial], machine: Machine) -> Price:
    """By the forecast of a training that is missing; the arms differ in nothing that costs. forecasts: of each arm's first training; there:
    trainings that are not missing."""
    missing = [number for number, trial in enumerate(design.trials) if trial not in there]
    number = missing[0] if missing else 0
    asked = design.trials[number]
    made = forecasts[number] if number < len(forecasts) else _forecast(asked, machine)
    by_step = {step.step: step for step in made.steps}
    training = by_step[PRETRAIN]
    pretrain = asked.loaded.recipe.pretrain
    own = training.seconds * design.tokens / pretrain.total_tokens
    num_steps = pretrain.total_tokens // pretrain.global_batch_tokens
    others = sum(
        step.left_seconds for name, step in by_step.items() if name not in (PRETRAIN, "evaluate", "export", "report")
    )
    return Price(
        each_seconds=own + by_step["evaluate"].seconds,
        missing=len(missing),
        once_seconds=others + trunk_seconds(training, design.after_step, num_steps) if missing else 0.0,
        load=load_note(made.busy_cores, made.speed) if missing else "",
    )


def trunk_seconds(training: StepForecast, after_step: int, num_steps: int) -> float:
    """Of the steps before arms of so many steps leave the trunk that no checkpoint has. training: of one arm that is missing."""
    if training.is_done:
        return 0.0
    there = 0 if training.resumes is None else training.resumes.step
    return training.seconds * max(0, after_step - there) / num_steps


def _sight(design: Design, states: States | None, machine: Machine) -> str:
    """The smallest difference that can be found with these items and seeds, in words; what is too few for any verdict."""
    text, tokens = (None, None) if states is None else (states[step].folder for step in ("select", "tokenize"))
    if text is None or tokens is None:
        return "what difference it can show is told once its text is selected and tokenized"
    endpoint = design.ablation.endpoint
    documents, sizes = _held_out_sizes(design, Selected(text, source=endpoint), Tokenized(tokens).of(endpoint))
    if not len(sizes):
        return "none is held out"
    seed_sd, item_sd, source = SEED_SD[design.ablation.kind], ITEM_SD, "assumed noise"
    results = machine.runs_dir / design.run / RESULTS
    if results.is_file():
        rows = [ArmEffect.from_json(row, where=results) for row in read_json(results)["endpoint"]]
        seed_sd = (rows[0].seed_stderr or 0.0) * (rows[0].seeds / 2) ** 0.5
        item_sd = max((row.item_stderr or 0.0) * row.effective_items**0.5 for row in rows)
        source = "the noise of the runs so far"
    found = foreseen_detectable(
        seed_sd=seed_sd,
        item_sd=item_sd,
        num_arms=len(design.arms),
        num_seeds=design.ablation.seeds,
        effective_items=effective_number(sizes),
        comparisons=design.num_comparisons,
    )
    of_texts = "" if len(sizes) == documents else f" of {counted(len(sizes), 'text')}"
    told = f"{counted(documents, 'document')}{of_texts}, worth {effective_number(sizes):.0f} of equal size"
    if needs := verdict_needs(design.ablation.seeds, len(sizes), effective_number(sizes)):
        return f"{told}; nothing would be decided: {needs}"
    assert found is not None, "as many seeds and documents as a verdict needs"
    return f"{told}; a difference of {found:.3f} bits per byte is found four times in five, by {source}"


def _held_out_sizes(design: Design, text: Selected, tokens: Tokenized) -> tuple[int, FloatArray]:
    """How many held-out documents of the endpoint arms are measured on, about, and the tokens of each of their texts."""
    shard = TokenShard(tokens.validation)
    most = design.trials[0].loaded.recipe.evaluate.validation_bytes
    share = min(1.0, most / max(1, shard.num_bytes))
    length_D = shard.document_lengths()
    length_D = length_D[length_D > 1]
    before_D = np.cumsum(length_D) - length_D
    kept = max(1, int((before_D < share * length_D.sum()).sum())) if len(length_D) else 0
    draw_D = held_out_draws(text, shard, design.trials[0].loaded.recipe.sources[design.ablation.endpoint].read)
    return kept, sums_by_cluster(length_D[:kept], draw_D[:kept])
