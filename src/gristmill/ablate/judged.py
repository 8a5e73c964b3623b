"""What an arm was judged by, as a recipe can say it: the stages that a run gives its mixture to, what the run then does otherwise, and the arm itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from gristmill.ablate.arms import Arm
from gristmill.ablate.design import Design
from gristmill.errors import RecipeError
from gristmill.recipe.interventions import CHANGES
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.changes import Change
from gristmill.recipe.schema.training import Pretrain, Stage
from gristmill.units import counted


def stages_to_come(pretrain: Pretrain, design: Design) -> list[Stage]:
    """The stages that get the arm's mixture: the one that begins where the arms left the trunk, and those after it that begin within the tokens of
    an arm and read sequences of the length that arms read. Raises RecipeError where none begins there."""
    batch = pretrain.global_batch_tokens
    begins = [0, *accumulate(stage.tokens // batch for stage in pretrain.stages)]
    ends = design.after_step + design.tokens // batch
    length = design.trials[0].loaded.recipe.pretrain.stages[-1].seq_len
    found = [stage for stage, step in zip(pretrain.stages, begins) if design.after_step <= step < ends]
    if design.after_step not in begins[:-1]:
        raise RecipeError(
            f"no stage begins after step {design.after_step:,}, where the arms left the trunk, so there is none to give the mixture to. Split the "
            "stage there in the recipe."
        )
    return [stage for stage in found if stage is found[0] or stage.seq_len == length]


def otherwise_than_judged(pretrain: Pretrain, design: Design, stages: Sequence[Stage]) -> list[str]:
    """What a run with the mixture in these stages does otherwise than the arm did, in words."""
    batch, told = pretrain.global_batch_tokens, list[str]()
    steps = pretrain.total_tokens // batch
    decay = steps - pretrain.decay_tokens // batch
    arm_steps = design.tokens // batch
    if (decay, steps) != (design.after_step, design.after_step + arm_steps):
        told.append(
            f"its rate falls to zero from step {design.after_step:,} to step {design.after_step + arm_steps:,}, that of the run from step "
            f"{decay:,} to step {steps:,}"
        )
    read = sum(stage.tokens for stage in stages) // batch
    if read != arm_steps:
        names = ", ".join(stage.name for stage in stages)
        told.append(f"it had its mixture for {counted(arm_steps, 'step')}, the run has it for the {read:,} of {names}")
    length = design.trials[0].loaded.recipe.pretrain.stages[-1].seq_len
    if longer := [f"{stage.name} {stage.seq_len:,}" for stage in stages if stage.seq_len != length]:
        told.append(f"it read sequences of {length:,} tokens, the run reads in {', '.join(longer)}")
    own = {f"stages.{stage.name}.mixture" for stage in stages}
    later = dict.fromkeys(
        change.after_step
        for change in pretrain.changes
        if change.after_step > design.after_step or (change.after_step == design.after_step and change.set.keys() - own)
    )
    if later:
        told.append(
            f"it had no change after that, the run has one after step {', '.join(f'{step:,}' for step in later)}"
        )
    return told


def as_judged(design: Design, arm: Arm) -> dict[str, object]:
    """What `pretrain` of an arm's recipe has otherwise than the recipe, the order of a seed apart."""
    judged = next(trial for trial in design.trials if trial.arm is arm).loaded.recipe.pretrain
    stages = [stage.model_dump(mode="json", exclude_none=True, exclude={"reshuffle"}) for stage in judged.stages]
    changes = [change.model_dump(mode="json", exclude_none=True) for change in judged.changes]
    return {"stages": stages, "decay_tokens": judged.decay_tokens, "changes": changes}


def where_in_force(loaded: LoadedRecipe, change: Change) -> str | None:
    """Where the recipe or an intervention of the run sets what a change does, after the same step; None where nothing does, or a later one sets
    any of it otherwise."""
    for place, one in reversed([*enumerate(loaded.recipe.pretrain.changes)]):
        if (one.after_step, one.set) == (change.after_step, change.set):
            return loaded.origins.get((*CHANGES, place), str(loaded.path))
        if one.set.keys() & change.set.keys():
            return None
    return None
