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

from gristmill.ablate.declared import RESULTS, declare
from gristmill.ablate.design import Design, design_of
from gristmill.ablate.groups import grouped, groups_of
from gristmill.ablate.outcome import ArmEffect, Outcome, outcome_of
from gristmill.ablate.trials import extensions, measured, other_environments, seconds_of
from gristmill.commands.ablate_checks import check_endpoint, check_trunk, seeds_seen, shaped_by
from gristmill.commands.ablate_plan import print_plan
from gristmill.display import plain_table, print_whole
from gristmill.errors import RecipeError
from gristmill.graph.machine import Machine
from gristmill.graph.share import Share
from gristmill.recipe.interventions import with_interventions
from gristmill.recipe.load import LoadedRecipe
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
    tokenized = Tokenized(_artefact(store, mine[0].loaded.recipe.name, "tokenize"))
    check_endpoint(design, mine[0], tokenized, store)
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
