"""COMMAND ablate: which data is worth it. Arms that differ in their data and in nothing else, with the same seeds, judged on one endpoint.

    plan ──→ declared.json ──→ one run an arm and seed, the trunk shared ──→ results.json, index.html, the table ──→ --apply

The endpoint is declared before the first training. Every training is a run (`trace`, `compare` and `chat` work on it), so a kill loses
nothing, and tasks of a job array can make them side by side.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gristmill.ablate.arms import Design, Trial, design_of
from gristmill.ablate.declared import RESULTS, check_declared, declare
from gristmill.ablate.effect import foreseen_detectable
from gristmill.ablate.outcome import ArmEffect, Outcome, outcome_of
from gristmill.ablate.trials import is_made, measured, other_environments, seconds_of
from gristmill.commands.intervene import intervene
from gristmill.display import plain_table, print_whole
from gristmill.errors import ArtifactError, RecipeError
from gristmill.forecast import check_caps, check_present, make_forecast
from gristmill.graph.machine import Machine
from gristmill.graph.share import Share
from gristmill.graph.state import States
from gristmill.pipeline import hashes_of, open_states
from gristmill.recipe.interventions import with_interventions
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.ablation import CONTROL
from gristmill.remake import PRETRAIN, ResumePoint, resume_point
from gristmill.report.ablation_page import AblationFacts, environments_in_words, render_ablation, verdict_in_words
from gristmill.runner import given_command
from gristmill.runner import run as run_recipe
from gristmill.statistics import effective_number
from gristmill.store.durable import read_json, write_json, write_text
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.shared_text import shared_documents
from gristmill.units import counted, scale, seconds

PAGE = "index.html"
SEED_SD = 0.02  # bits per byte, of a run of a few million parameters; until runs of this ablation say
ITEM_SD = 0.1  # bits per byte, of a document's difference between two arms; likewise


@dataclass(frozen=True, kw_only=True)
class Price:
    """What the trainings that are missing take. once_seconds: of what all share and is not there yet: the text, the trunk."""

    each_seconds: float
    missing: int
    once_seconds: float

    @property
    def total_seconds(self) -> float:
        """Of all that is missing."""
        return self.each_seconds * self.missing + self.once_seconds


def ablate(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    name: str | None,
    console: Console,
    plan_only: bool = False,
    share: Share | None = None,
    as_json: bool = False,
) -> Outcome | None:
    """Makes what is missing of an ablation and tells its outcome; None with `plan_only`, and for one task of an array.

    name: of the ablation, where the recipe has several. share: the trainings of one task of an array. Raises RecipeError for arms that do
    not fit the recipe, for a question that was declared otherwise, and for a candidate that shares text with the endpoint; ArtifactError
    where the trunk has no checkpoint to leave from.
    """
    store = Store(machine.runs_dir)
    loaded = with_interventions(loaded, RunLinks(store, loaded.recipe.name).folder)
    design = design_of(loaded, name)
    folder = machine.runs_dir / design.run
    out, console = console, Console(stderr=True) if as_json else console
    _print_plan(design, machine, console)
    if plan_only:
        return None
    mine = design.trials if share is None else design.trials[share.rank :: share.size]
    if not mine:
        raise RecipeError(
            f"rank {share} has nothing to do: {design.run} has {counted(len(design.trials), 'training')}."
        )
    run_recipe(mine[0].loaded, machine, console=console, until="tokenize", brief=True)
    _check_endpoint(design, Tokenized(_artefact(store, mine[0].loaded.recipe.name, "tokenize")))
    for trial in mine:
        _check_trunk(loaded, design, trial, machine)
    looks = declare(
        folder, design, shaped_by=_shaped_by(design, machine), seeds_seen=lambda: _seeds_seen(design, machine)
    )
    for number, trial in enumerate(mine, start=1):
        _check_trunk(loaded, design, trial, machine)  # it may have been removed meanwhile
        told = f"{trial.arm.name}, seed {trial.seed} of {design.ablation.seeds}  ({number} of {len(mine)})"
        console.print(Text(told, style="bold"))
        run_recipe(trial.loaded, machine, console=console, until="evaluate", brief=True)
    if share is not None:
        console.print(
            f"rank {share} has made its trainings; the same command without --array tells the outcome.",
            highlight=False,
            markup=False,
        )
        return None
    found = outcome_of(
        [arm.name for arm in design.arms], measured(design, store), endpoint=design.ablation.endpoint, looks=len(looks)
    )
    facts = AblationFacts(
        design=design,
        outcome=found,
        took_seconds=seconds_of(design, store, (PRETRAIN, "evaluate")),
        looks=looks,
        other_environments=other_environments(design, store),
    )
    write_json(folder / RESULTS, {"verdict": verdict_in_words(design, found), **found.to_json()})
    write_text(folder / PAGE, render_ablation(facts))
    if as_json:
        out.print_json(json.dumps(read_json(folder / RESULTS)))
    else:
        _print_outcome(facts, folder, console)
    return found


def apply(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    name: str | None,
    arm: str,
    fork: str | None,
    overrides: Sequence[str],
    console: Console,
) -> Path:
    """Writes the mixture of an arm into the run, as an intervention at the step where the arms left the trunk; see `intervene`.

    Raises RecipeError for an arm that is none, for a kind without a trunk, where no stage begins at that step, and where the recipe asks
    otherwise now than the outcome answers; ArtifactError before there is an outcome.
    """
    links = RunLinks(Store(machine.runs_dir), loaded.recipe.name)
    became = with_interventions(loaded, links.folder)
    design = design_of(became, name)
    results = machine.runs_dir / design.run / RESULTS
    if not results.is_file():
        raise ArtifactError(f"{design.run} has no outcome yet.\n  `gristmill ablate {loaded.path}` makes it.")
    check_declared(results.parent, design, shaped_by=_shaped_by(design, machine))
    chosen = next((one for one in design.arms if one.name == arm and one.name != CONTROL), None)
    if chosen is None:
        raise RecipeError(f"{design.run} has no arm {arm!r}; it has {', '.join(one.name for one in design.arms[1:])}.")
    if not design.after_step:
        raise RecipeError(
            f"{design.run} was trained from scratch, so there is no run to change. Write the mixture of {arm} into the recipe; "
            f"{results.with_name(PAGE)} has it."
        )
    stage = _stage_to_come(became, design.after_step)
    mixture = [draw.model_dump(exclude_none=True) for draw in chosen.mixture]
    outcome = Outcome.from_json(
        {key: value for key, value in read_json(results).items() if key != "verdict"}, where=results
    )
    row = next(one for one in outcome.endpoint if one.arm == arm)
    return intervene(
        loaded,
        machine,
        settings={f"stages.{stage}.mixture": mixture},
        after_step=design.after_step,
        why=f"ablation {design.run}: {arm} is {row.verdict} on {row.task}, {row.difference:+.4f}, p {row.p_adjusted:.2g}",
        fork=fork,
        overrides=overrides,
        console=console,
    )


def _stage_to_come(loaded: LoadedRecipe, after_step: int) -> str:
    pretrain, begins = loaded.recipe.pretrain, 0
    for stage in pretrain.stages:
        if begins == after_step:
            return stage.name
        begins += stage.tokens // pretrain.global_batch_tokens
    raise RecipeError(
        f"no stage begins after step {after_step:,}, where the arms left the trunk, so there is none to give the mixture to. Split the stage "
        "there in the recipe."
    )


# ── before ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _print_plan(design: Design, machine: Machine, console: Console) -> None:
    """The arms, the price, and the difference that could be seen."""
    ablation, store = design.ablation, Store(machine.runs_dir)
    table = plain_table("arm", "share >", "trained on")
    for arm in design.arms:
        table.add_row(
            arm.name, f"{arm.share:.0%}", ", ".join(f"{draw.source} {draw.weight:.3g}" for draw in arm.mixture)
        )
    print_whole(table, console)
    price = _price(design, machine, store)
    trunk = (
        f"each leaves one trunk after step {design.after_step:,} and"
        if design.after_step
        else "each from the beginning,"
    )
    lines = [
        f"{counted(len(design.trials), 'training')}, {len(design.arms)} arms × {counted(ablation.seeds, 'seed')}, {trunk} "
        f"takes {scale(design.tokens)} tokens; {price.missing} to make",
        f"price: about {seconds(price.each_seconds)} each, {seconds(price.total_seconds)} in all on this machine",
        f"endpoint: held-out text of {ablation.endpoint}; {_sight(design, machine, store)}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    drawn = [arm.name for arm in design.arms if arm.candidate and _draws(design, arm.candidate, ablation.endpoint)]
    if drawn:
        console.print(
            f"Mind: {', '.join(drawn)} trains on the source of the endpoint, so its verdict is about that kind of text.",
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
    return any(draw.source == source for draw in design.ablation.candidates[candidate])


def _price(design: Design, machine: Machine, store: Store) -> Price:
    """By the forecast of one training; the arms differ in nothing that costs. Raises RecipeError for an arm that would read a source
    more often than its cap."""
    missing = [trial for trial in design.trials if not is_made(trial, store)]
    asked = (missing or design.trials)[0]
    made = make_forecast(asked.loaded, machine)
    check_present(made)
    check_caps(made)
    for trial in design.trials[: len(design.arms)]:
        if trial.arm is not asked.arm:
            check_caps(make_forecast(trial.loaded, machine))
    by_step = {step.step: step for step in made.steps}
    whole = by_step[PRETRAIN].seconds
    own = whole * design.tokens / asked.loaded.recipe.pretrain.total_tokens
    others = sum(
        step.left_seconds for name, step in by_step.items() if name not in (PRETRAIN, "evaluate", "export", "report")
    )
    has_trunk = design.after_step == 0 or by_step[PRETRAIN].resumes is not None or len(missing) < len(design.trials)
    return Price(
        each_seconds=own + by_step["evaluate"].seconds,
        missing=len(missing),
        once_seconds=others + (0.0 if has_trunk else whole - own),
    )


def _sight(design: Design, machine: Machine, store: Store) -> str:
    """The smallest difference that can be found with these items and seeds, in words."""
    runs = (design.trials[0].loaded.recipe.name, design.trunk)
    folders = [folder for run in runs if (folder := RunLinks(store, run).artefact("tokenize")) is not None]
    if not folders or not (folders[0] / design.ablation.endpoint).is_dir():
        return "what difference it can show is told once its text is tokenized"
    sizes = _held_out_sizes(design, Tokenized(folders[0]))
    seed_sd, item_sd, source = SEED_SD, ITEM_SD, "assumed noise"
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
    told = f"{counted(len(sizes), 'document')}, worth {effective_number(sizes):.0f} of equal size"
    if found is None:
        return f"{told}: too few to show any difference"
    return f"{told}; a difference of {found:.3f} bits per byte is found four times in five, by {source}"


def _held_out_sizes(design: Design, tokenized: Tokenized) -> list[int]:
    """Tokens of the held-out documents of the endpoint that arms are measured on, about."""
    shard = TokenShard(tokenized.of(design.ablation.endpoint).validation)
    most = design.trials[0].loaded.recipe.evaluate.validation_bytes
    share = min(1.0, most / max(1, shard.num_bytes))
    lengths = shard.document_lengths().tolist()
    total, kept = 0, list[int]()
    for length in lengths:
        if kept and total >= share * sum(lengths):
            break
        total += length
        kept.append(length)
    return kept


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_endpoint(design: Design, tokenized: Tokenized) -> None:
    """Raises RecipeError for an endpoint without held-out text, and for an arm that is trained on some of it."""
    endpoint = design.ablation.endpoint
    held_out = TokenShard(tokenized.of(endpoint).validation)
    if not held_out.num_documents:
        raise RecipeError(
            f"the endpoint {endpoint} has no held-out text. Raise select.validation, or name another source as ablations.{design.name}.endpoint."
        )
    drawn = dict.fromkeys(draw.source for arm in design.arms for draw in arm.mixture)
    for source in drawn:
        shared = shared_documents(TokenShard(tokenized.of(source).train), held_out)
        if shared:
            raise RecipeError(
                f"{source}, which arms of {design.run} are trained on, has {counted(len(shared), 'document')} of the held-out text of "
                f"{endpoint} word for word, so the endpoint would reward memory.\n  Remove them from {source}, or name another endpoint."
            )


def _check_trunk(loaded: LoadedRecipe, design: Design, trial: Trial, machine: Machine) -> None:
    """Raises ArtifactError where no checkpoint of the trunk is there that a training could leave from: it would make a trunk of its own."""
    point = _resume_point(trial.loaded, machine) if design.after_step else None
    if point is None or point.step:
        return  # from scratch, made already, or resumes from a checkpoint
    of_trunk = _resume_point(loaded, machine)
    notes = "".join(f"\n  {note}" for note in (*point.notes, *(() if of_trunk is None else of_trunk.notes)))
    raise ArtifactError(
        f"the trunk of {design.run} has no checkpoint at or before step {design.after_step:,} that the arms could leave from.{notes}\n"
        f"  `gristmill run {shlex.quote(str(loaded.path))} --until {PRETRAIN}` trains it; or `kind: scratch` asks without a trunk."
    )


def _resume_point(loaded: LoadedRecipe, machine: Machine) -> ResumePoint | None:
    return resume_point(_states(loaded, machine), machine)


def _states(loaded: LoadedRecipe, machine: Machine) -> States:
    links = RunLinks(Store(machine.runs_dir), loaded.recipe.name)
    return open_states(loaded, links, hashes_of(loaded, machine))


def _shaped_by(design: Design, machine: Machine) -> dict[str, Any]:
    """What shapes the arms beside their mixtures: all that the identity of the control's training has in it, and all text."""
    found: dict[str, Any] = {}
    for trial in reversed(design.trials[: len(design.arms)]):
        states = _states(trial.loaded, machine)
        training = states[PRETRAIN].document or {}
        found = {**training, "inputs": {**found.get("inputs", {}), **training.get("inputs", {})}}
    validation = states.steps["evaluate"].given.inputs[f"tokens of {design.ablation.endpoint}"]
    return {**found, "endpoint": states.content(validation)}


def _seeds_seen(design: Design, machine: Machine) -> int:
    """How many seeds have an arm and the control measured, under whatever name."""
    made = {
        (trial.seed, trial.arm.candidate is None)
        for trial in design.trials
        if _states(trial.loaded, machine)["evaluate"].state == "done"
    }
    return sum((seed, True) in made and (seed, False) in made for seed in range(1, design.ablation.seeds + 1))


def _artefact(store: Store, run: str, step: str) -> Path:
    folder = RunLinks(store, run).artefact(step)
    assert folder is not None, f"{run} has no {step}"
    return folder


# ── after ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _print_outcome(facts: AblationFacts, folder: Path, console: Console) -> None:
    design, outcome = facts.design, facts.outcome
    table = plain_table(
        "arm",
        f"{outcome.endpoint_task} >",
        "less control >",
        "95 % interval",
        "p (Holm) >",
        "verdict",
        "would be seen >",
    )
    values = {score.arm: score.value for score in outcome.scores if score.task == outcome.endpoint_task}
    rows = {row.arm: row for row in outcome.endpoint}
    for arm in design.arms:
        row = rows.get(arm.name)
        table.add_row(arm.name, f"{values[arm.name]:.4f}", *(_cells(row) if row is not None else ("",) * 5))
    print_whole(table, console)
    if outcome.noise is not None:
        console.print(
            f"A/A: seeds of one arm differ by up to {outcome.noise.largest:.4f}, standard deviation {outcome.noise.sd:.4f}",
            highlight=False,
        )
    if facts.other_environments:
        console.print(Text(environments_in_words(facts)), soft_wrap=True)
    console.print()
    console.print(Text(verdict_in_words(design, outcome), style="bold"), soft_wrap=True)
    console.print(Text(f"page: {folder / PAGE}"), soft_wrap=True)
    if outcome.best is not None and design.after_step:
        command = shlex.join([*given_command(design.trials[0].loaded), "--apply", outcome.best.arm])
        console.print(Text(f"to go by it: {command}"), soft_wrap=True)


def _cells(row: ArmEffect) -> tuple[str, ...]:
    interval = "·" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}"
    smallest = "·" if row.smallest is None else f"{row.smallest:.4f}"
    return f"{row.difference:+.4f}", interval, f"{row.p_adjusted:.2g}", row.verdict, smallest
