"""The design of an ablation: where its arms leave the trunk, how far each is trained, and which trainings that makes.

anneal    trunk up to after_step, which all share ─┬─ control     the mixture as it is     decays to zero, seed 1 … n
                                                   └─ candidate   share of it + the rest   decays to zero, seed 1 … n
scratch   the same from the first step on, at equal tokens
stages    from the first step on through the recipe's stages, whose mixtures a plan may give otherwise: which data, and when
extension trunk up to the stage that reads longer sequences ─┬─ control     as many tokens at the length and mixture before
                                                             └─ extension   the recipe's own stages from there on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gristmill.ablate.arms import Arm, arms_of_extension, arms_of_plans, arms_of_shares, drawn, refuse_twins
from gristmill.ablate.trainings import recipe_of_training, stage_at, stages_after
from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.ablation import EXTENSION, Ablation
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import did_you_mean
from gristmill.recipe.schema.training import Pretrain


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training: an arm with one seed, from 1. `loaded` is its recipe; the run is named after it."""

    arm: Arm
    seed: int
    loaded: LoadedRecipe


@dataclass(frozen=True, kw_only=True)
class Design:
    """An ablation before it is made. run: the folder of its results; trunk: the recipe's own run. after_step: of the trunk, 0 from scratch.
    tokens: of each arm beyond it.

    has_other_plan: whether the recipe has another mixture after that step, which the control then has not.
    arms: the control first. trials: all arms of a seed before the next seed, so that an early end leaves whole pairs.
    """

    name: str
    run: str
    trunk: str
    ablation: Ablation
    after_step: int
    tokens: int
    has_other_plan: bool
    arms: Sequence[Arm]
    trials: Sequence[Trial]

    @property
    def num_comparisons(self) -> int:
        """With the control: what Holm's correction of the endpoint counts."""
        return len(self.arms) - 1


def design_of(loaded: LoadedRecipe, name: str | None) -> Design:
    """The ablation of that name, or the only one. Raises RecipeError for a name that is none, where the arms do not fit the recipe, and for
    two arms on one mixture."""
    recipe = loaded.recipe
    chosen = _chosen(recipe, name)
    ablation, pretrain = recipe.ablations[chosen], recipe.pretrain.as_changed()
    try:
        after_step, tokens = _extent(ablation, pretrain)
    except ValueError as error:
        raise RecipeError(f"ablations.{chosen}: {error}") from None
    base = stage_at(pretrain, max(0, after_step - 1)).mixture
    if ablation.kind == EXTENSION:
        arms = arms_of_extension(base, [*stages_after(pretrain, after_step)])
    else:
        is_of_plans = ablation.kind == "stages"
        arms = arms_of_plans(ablation, pretrain, chosen) if is_of_plans else arms_of_shares(ablation, base)
        refuse_twins(chosen, arms)
    run = f"{recipe.name}.{chosen}"
    trials = [
        Trial(
            arm=arm,
            seed=seed,
            loaded=recipe_of_training(
                loaded, ablation, pretrain, arm, seed, after_step=after_step, tokens=tokens, run=run
            ),
        )
        for seed in range(1, ablation.seeds + 1)
        for arm in arms
    ]
    return Design(
        name=chosen,
        run=run,
        trunk=recipe.name,
        ablation=ablation,
        after_step=after_step,
        tokens=tokens,
        has_other_plan=ablation.kind == "anneal"
        and any(drawn(stage.mixture) != drawn(base) for stage in stages_after(pretrain, after_step)),
        arms=arms,
        trials=trials,
    )


def _chosen(recipe: Recipe, name: str | None) -> str:
    known = [*recipe.ablations]
    if not known:
        raise RecipeError(
            f"the recipe {recipe.name} has no section ablations.\n  Add one: candidates by name, and the endpoint that decides; "
            "docs/ablations.md has an example."
        )
    if name is None and len(known) > 1:
        raise RecipeError(
            f"the recipe has several ablations: {', '.join(known)}. Name one after the recipe: --name {known[0]}."
        )
    if name is not None and name not in known:
        raise RecipeError(f"the recipe has no ablation {name!r}; {did_you_mean(name, known)}it has {', '.join(known)}.")
    return known[0] if name is None else name


def _extent(ablation: Ablation, pretrain: Pretrain) -> tuple[int, int]:
    """(steps of the trunk, tokens of an arm). Raises ValueError where they do not fit the schedule."""
    batch = pretrain.global_batch_tokens
    tokens = ablation.tokens
    if tokens is not None and tokens % batch:
        raise ValueError(
            f"tokens {tokens:,} is not a whole number of steps of {batch:,}; use {tokens // batch * batch + batch:,}"
        )
    if ablation.kind == EXTENSION:
        return _before_extension(pretrain)
    if ablation.kind != "anneal":
        return 0, pretrain.total_tokens if tokens is None else tokens
    begins = (pretrain.total_tokens - pretrain.decay_tokens) // batch
    after_step = begins if ablation.after_step is None else ablation.after_step
    if after_step > begins:
        raise ValueError(
            f"after_step {after_step:,} lies in the decay, which begins after step {begins:,}; a branch leaves the trunk before it"
        )
    if after_step * batch < pretrain.warmup_tokens or after_step == 0:
        raise ValueError(
            f"after_step {after_step:,} lies in the warm-up of {pretrain.warmup_tokens // batch:,} steps; a branch leaves the trunk after it"
        )
    return after_step, pretrain.decay_tokens // batch * batch if tokens is None else tokens


def _before_extension(pretrain: Pretrain) -> tuple[int, int]:
    """(steps before the first stage that reads longer sequences than the one before it, tokens from there on)."""
    for number, (stage, longer) in enumerate(pairwise(pretrain.stages), start=1):
        if longer.seq_len > stage.seq_len:
            before = sum(one.tokens for one in pretrain.stages[:number])
            if before < pretrain.warmup_tokens:
                raise ValueError(f"stage {longer.name} begins in the warm-up; a branch leaves the trunk after it")
            return before // pretrain.global_batch_tokens, pretrain.total_tokens - before
    raise ValueError("no stage reads longer sequences than the one before it, so there is no extension to judge")
