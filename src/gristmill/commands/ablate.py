"""COMMAND ablate: which data is worth it. Arms that differ in their data and in nothing else, with the same seeds, judged on one endpoint.

    plan ──→ declared.json ──→ one run an arm and seed, the trunk shared ──→ results.json, index.html, the table ──→ --apply

The endpoint is declared before the first training. Every training is a run (`trace`, `compare` and `chat` work on it), so a kill loses
nothing, and tasks of a job array can make them side by side.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gristmill.ablate.arms import Design, design_of
from gristmill.ablate.declared import RESULTS, check_declared, declare
from gristmill.ablate.groups import grouped, groups_of
from gristmill.ablate.outcome import ArmEffect, Outcome, outcome_of
from gristmill.ablate.trials import extensions, measured, other_environments, seconds_of
from gristmill.commands.ablate_checks import check_endpoint, check_trunk, seeds_seen, shaped_by
from gristmill.commands.ablate_plan import print_plan
from gristmill.commands.intervene import intervene
from gristmill.display import plain_table, print_whole
from gristmill.errors import ArtifactError, RecipeError
from gristmill.graph.machine import Machine
from gristmill.graph.share import Share
from gristmill.recipe.interventions import with_interventions
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.ablation import CONTROL, EXTENSION
from gristmill.remake import PRETRAIN
from gristmill.report.ablation_page import AblationFacts, environments_in_words, render_ablation, verdict_in_words
from gristmill.runner import given_command
from gristmill.runner import run as run_recipe
from gristmill.store.durable import read_json, write_json, write_text
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.outputs import Tokenized
from gristmill.units import counted

PAGE = "index.html"


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
    print_plan(design, machine, console)
    if plan_only:
        return None
    mine = design.trials if share is None else design.trials[share.rank :: share.size]
    if not mine:
        raise RecipeError(
            f"rank {share} has nothing to do: {design.run} has {counted(len(design.trials), 'training')}."
        )
    run_recipe(mine[0].loaded, machine, console=console, until="tokenize", brief=True)
    check_endpoint(design, Tokenized(_artefact(store, mine[0].loaded.recipe.name, "tokenize")))
    for trial in mine:
        check_trunk(loaded, design, trial, machine)
    looks = declare(
        folder, design, shaped_by=shaped_by(design, machine), seeds_seen=lambda: seeds_seen(design, machine)
    )
    for number, trial in enumerate(mine, start=1):
        check_trunk(loaded, design, trial, machine)  # it may have been removed meanwhile
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
    facts = _facts(design, store, looks)
    found = facts.outcome
    write_json(folder / RESULTS, {"verdict": verdict_in_words(design, found), **found.to_json()})
    write_text(folder / PAGE, render_ablation(facts))
    if as_json:
        out.print_json(json.dumps(read_json(folder / RESULTS)))
    else:
        _print_outcome(facts, folder, console)
    return found


def _facts(design: Design, store: Store, looks: Sequence[Mapping[str, Any]]) -> AblationFacts:
    """The outcome, by what the trainings measured. looks: at the results, this one last."""
    tasks = measured(design, store)
    found = outcome_of(
        [arm.name for arm in design.arms],
        tasks,
        endpoint=design.ablation.endpoint,
        groups=grouped(tasks, groups_of(design)),
        looks=len(looks),
    )
    return AblationFacts(
        design=design,
        outcome=found,
        took_seconds=seconds_of(design, store, (PRETRAIN, "evaluate")),
        looks=looks,
        other_environments=other_environments(design, store),
        extensions=extensions(design, store),
    )


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
    check_declared(results.parent, design, shaped_by=shaped_by(design, machine))
    chosen = next((one for one in design.arms if one.name == arm and one.name != CONTROL), None)
    if chosen is None:
        raise RecipeError(f"{design.run} has no arm {arm!r}; it has {', '.join(one.name for one in design.arms[1:])}.")
    if design.ablation.kind == EXTENSION:
        raise RecipeError(
            f"{design.run} judges the extension that the recipe has already; there is nothing to write into it."
        )
    if not design.after_step:
        raise RecipeError(
            f"{design.run} was trained from the first step on, so there is no run to change. Write the mixture of {arm} into the recipe; "
            f"{results.with_name(PAGE)} has it."
        )
    stage = _stage_to_come(became, design.after_step)
    mixture = [draw.model_dump(exclude_none=True) for draw in chosen.draws]
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


def _artefact(store: Store, run: str, step: str) -> Path:
    folder = RunLinks(store, run).artefact(step)
    assert folder is not None, f"{run} has no {step}"
    return folder


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
    for name, found in facts.extensions.items():
        console.print(Text(f"{name}: {found.words}"), soft_wrap=True)
    if outcome.best is not None and design.ablation.kind == "anneal":
        command = shlex.join([*given_command(design.trials[0].loaded, "ablate"), "--apply", outcome.best.arm])
        console.print(Text(f"to go by it: {command}"), soft_wrap=True)


def _cells(row: ArmEffect) -> tuple[str, ...]:
    interval = "·" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}"
    smallest = "·" if row.smallest is None else f"{row.smallest:.4f}"
    return f"{row.difference:+.4f}", interval, f"{row.p_adjusted:.2g}", row.verdict, smallest
