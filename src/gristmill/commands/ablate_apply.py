"""Going by an ablation: what an arm was judged by is written into the run of its recipe, as an intervention, or into a recipe of its own.

An arm leaves the trunk and decays to zero on one mixture. An intervention gives the stages to come that mixture and can change neither their
lengths nor the decay; a fork is the arm itself, stage for stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gristmill.ablate.arms import Arm
from gristmill.ablate.declared import RESULTS, check_declared
from gristmill.ablate.design import Design, design_of
from gristmill.ablate.judged import as_judged, otherwise_than_judged, stages_to_come, where_in_force
from gristmill.ablate.outcome import DECIDED, ArmEffect, Outcome, unit_of
from gristmill.commands.ablate_checks import shaped_by
from gristmill.commands.intervene import intervene, write_fork
from gristmill.errors import ArtifactError, RecipeError
from gristmill.graph.machine import Machine
from gristmill.recipe.interventions import with_interventions
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.ablation import CONTROL, EXTENSION
from gristmill.recipe.schema.changes import Change
from gristmill.store.durable import read_json
from gristmill.store.store import RunLinks, Store


def apply(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    name: str | None,
    arm: str,
    fork: str | None,
    overrides: Sequence[str],
    console: Console,
    is_sure: bool = False,
) -> Path:
    """Writes the mixture of an arm into the run, as an intervention at the step where the arms left the trunk; see `intervene`. What of the arm
    the run will do otherwise is told. fork: the name of a recipe that does what the arm did. Returns the file, also where it was there already.

    is_sure: an arm that is worse than the control is written too. Raises RecipeError where it is worse and `is_sure` is not set, for an
    arm that is none, for a kind without a trunk, where no stage begins at that step, and where the recipe asks otherwise now than the outcome
    answers; ArtifactError before there is an outcome.
    """
    links = RunLinks(Store(machine.runs_dir), loaded.recipe.name)
    became = with_interventions(loaded, links.folder)
    design = design_of(became, name)
    results = machine.runs_dir / design.run / RESULTS
    if not results.is_file():
        raise ArtifactError(f"{design.run} has no outcome yet.\n  `gristmill ablate {loaded.path}` makes it.")
    check_declared(results.parent, design, shaped_by=shaped_by(design, machine))
    chosen = _arm_of(design, arm, page=results.with_name("index.html"))
    outcome = Outcome.from_json(
        {key: value for key, value in read_json(results).items() if key != "verdict"}, where=results
    )
    row = next(one for one in outcome.endpoint if one.arm == arm)
    if row.verdict == "worse" and not is_sure:
        raise RecipeError(
            f"{_judged(row)}.\n  Apply another arm, or leave the run as it is. --yes writes {arm} all the same."
        )
    why = f"ablation {design.run}: {arm}: {row.verdict} on {row.task}, {row.difference:+.4f}, p {row.p_adjusted:.2g}"
    pretrain = became.recipe.pretrain
    mixture = [draw.model_dump(exclude_none=True) for draw in chosen.draws]
    stages = stages_to_come(pretrain, design)
    settings = {f"stages.{stage.name}.mixture": mixture for stage in stages}
    change = Change.model_validate({"after_step": design.after_step, "set": settings, "why": why})
    otherwise = otherwise_than_judged(pretrain, design, stages)
    if fork is not None and otherwise:
        path = write_fork(
            loaded,
            as_judged(design, chosen),
            fork,
            machine=machine,
            overrides=overrides,
            console=console,
            description=why,
        )
    elif fork is None and (written := where_in_force(became, change)) is not None:
        path = Path(written)
        console.print(Text(f"{path} is there already and says the same; nothing is written."), soft_wrap=True)
    else:
        path = intervene(
            loaded,
            machine,
            settings=settings,
            after_step=design.after_step,
            why=why,
            fork=fork,
            overrides=overrides,
            console=console,
        )
    if row.verdict != "better":
        console.print(Text(f"Mind: {_judged(row)}."), soft_wrap=True)
    if fork is None and otherwise:
        differs = f"Mind: {arm} was judged otherwise than this run continues: {'; '.join(otherwise)}."
        console.print(Text(f"{differs} --fork NAME writes a recipe that does what was judged."), soft_wrap=True)
    return path


def _arm_of(design: Design, arm: str, *, page: Path) -> Arm:
    """The arm of that name. Raises RecipeError where there is none, or none that can be written into a run."""
    chosen = next((one for one in design.arms if one.name == arm and one.name != CONTROL), None)
    if chosen is None:
        raise RecipeError(f"{design.run} has no arm {arm!r}; it has {', '.join(one.name for one in design.arms[1:])}.")
    if design.ablation.kind == EXTENSION:
        raise RecipeError(
            f"{design.run} judges the extension that the recipe has already; there is nothing to write into it."
        )
    if not design.after_step:
        raise RecipeError(
            f"{design.run} was trained from the first step on, so there is no run to change. Write the mixture of {arm} into the recipe; {page} "
            "has it."
        )
    return chosen


def _judged(row: ArmEffect) -> str:
    """The verdict with its interval, in words."""
    interval = (
        "no interval is known"
        if row.interval is None
        else f"95 % interval {row.interval[0]:+.4f} to {row.interval[1]:+.4f}"
    )
    against = "than" if row.verdict in DECIDED else "against"
    needs = "" if row.needs is None else f"; {row.needs}"
    return (
        f"{row.arm} is judged {row.verdict!r} {against} the {row.other} on {row.task}: {row.difference:+.4f} {unit_of(row.metric)}, "
        f"{interval}{needs}"
    )
