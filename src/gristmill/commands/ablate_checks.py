"""What is checked before an ablation trains anything: its endpoint, its trunk, and what else shapes its arms."""

from __future__ import annotations

import shlex
from typing import Any

from gristmill.ablate.design import Design, Trial
from gristmill.ablate.trials import draws_of
from gristmill.errors import ArtifactError, RecipeError
from gristmill.graph.machine import Machine
from gristmill.graph.state import States
from gristmill.pipeline import hashes_of, open_states
from gristmill.recipe.load import LoadedRecipe
from gristmill.remake import PRETRAIN, ResumePoint, resume_point
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.shared_text import shared_documents
from gristmill.units import counted


def check_endpoint(design: Design, trial: Trial, tokenized: Tokenized, store: Store) -> None:
    """Raises RecipeError for an endpoint without held-out text, and for an arm that is trained on some of it; ArtifactError where which of its
    documents are of one text cannot be told. trial: the training whose run has the tokens."""
    endpoint = design.ablation.endpoint
    held_out = TokenShard(tokenized.of(endpoint).validation)
    if not held_out.num_documents:
        raise RecipeError(
            f"the endpoint {endpoint} has no held-out text. Raise select.validation, or name another source as ablations.{design.name}.endpoint."
        )
    draws_of(trial, store, endpoint)
    drawn = dict.fromkeys(draw.source for arm in design.arms for draw in arm.draws)
    for source in drawn:
        shared = shared_documents(TokenShard(tokenized.of(source).train), held_out)
        if shared:
            raise RecipeError(
                f"{source}, which arms of {design.run} are trained on, has {counted(len(shared), 'document')} of the held-out text of "
                f"{endpoint} word for word, so the endpoint would reward memory.\n  Remove them from {source}, or name another endpoint."
            )


def check_trunk(loaded: LoadedRecipe, design: Design, trial: Trial, machine: Machine) -> None:
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


def shaped_by(design: Design, machine: Machine) -> dict[str, Any]:
    """What shapes the arms beside their mixtures: all that the identity of the control's training has in it, and all text."""
    found: dict[str, Any] = {}
    for trial in reversed(design.trials[: len(design.arms)]):
        states = _states(trial.loaded, machine)
        training = states[PRETRAIN].document or {}
        found = {**training, "inputs": {**found.get("inputs", {}), **training.get("inputs", {})}}
    validation = states.steps["evaluate"].given.inputs[f"tokens of {design.ablation.endpoint}"]
    return {**found, "endpoint": states.content(validation)}


def made_trials(design: Design, machine: Machine) -> list[Trial]:
    """The trainings that were made and measured, under whatever name of a run, and are there."""
    return [trial for trial in design.trials if _states(trial.loaded, machine)["evaluate"].folder is not None]


def seeds_seen(design: Design, machine: Machine) -> int:
    """How many seeds have an arm and the control measured, under whatever name."""
    made = {
        (trial.seed, trial.arm.candidate is None)
        for trial in design.trials
        if _states(trial.loaded, machine)["evaluate"].state == "done"
    }
    return sum((seed, True) in made and (seed, False) in made for seed in range(1, design.ablation.seeds + 1))
