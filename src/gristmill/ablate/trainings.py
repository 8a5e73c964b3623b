"""The recipe of each training of an ablation: the trunk up to where the arms leave it, then what is the arm's own, in the order of a seed.

A seed of an annealing arm is another order of what is left of each source; one of an arm from the first step on is also other first weights. The
prefix of a checkpoint is all that shaped it, so the trunk is found in the store and trained by no arm again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from gristmill.ablate.arms import Arm
from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.ablation import EXTENSION, Ablation
from gristmill.recipe.schema.mixture import Draw
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.training import Pretrain, Stage
from gristmill.store.fingerprint import derive_seed

POST_TRAINING = ("chat", "sft", "pairs", "dpo", "ablations")
NOT_WATCHED = 10**15  # tokens between two measurements on the way: only the ends are measured


def recipe_of_training(
    loaded: LoadedRecipe,
    ablation: Ablation,
    pretrain: Pretrain,
    arm: Arm,
    seed: int,
    *,
    after_step: int,
    tokens: int,
    run: str,
) -> LoadedRecipe:
    """The recipe of a training."""
    data: dict[str, Any] = loaded.recipe.model_dump(exclude_unset=True)
    data = {key: value for key, value in data.items() if key not in POST_TRAINING}
    data["name"] = f"{run}.{arm.name}.{seed}"
    data["description"] = f"{arm.name}, seed {seed}, of the ablation {run}"
    data["pretrain"] |= {
        "stages": _stages(ablation, pretrain, arm, seed, after_step=after_step, tokens=tokens),
        "changes": [
            change.model_dump(exclude_unset=True)
            for change in pretrain.changes
            if change.after_step < after_step or ablation.kind == "stages"
        ],
        **_schedule(ablation, pretrain, tokens),
        "watch": {
            "every_tokens": NOT_WATCHED,
            "packs_every_tokens": NOT_WATCHED,
            "stage_packs": [],
            "validation_bytes": pretrain.watch.validation_bytes,
        },
        "sample_prompts": [],
    }
    if pretrain.on_spike != "skip":  # a rewind would pass over data of one arm and not of another
        data["pretrain"]["on_spike"] = "log"
    if not after_step:
        data["pretrain"]["seed"] = derive_seed(loaded.recipe.seed, "ablation", seed) % 2**63
    unlocked = [name for name in loaded.recipe.evaluate.packs if not loaded.recipe.packs[name].locked]
    data["evaluate"] = {**data.get("evaluate", {}), "packs": unlocked, "xz_yardstick": False}
    if ablation.kind == EXTENSION:  # what the extension costs within the old length
        data["evaluate"]["window"] = stage_at(pretrain, after_step - 1).seq_len
    if ablation.validation_bytes is not None:
        data["evaluate"]["validation_bytes"] = ablation.validation_bytes
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(str(problem["msg"]) for problem in error.errors())
        raise RecipeError(f"arm {arm.name} of {run} does not fit the recipe: {problems}") from None
    return LoadedRecipe(recipe=recipe, path=loaded.path, origins=loaded.origins)


def _stages(
    ablation: Ablation, pretrain: Pretrain, arm: Arm, seed: int, *, after_step: int, tokens: int
) -> list[dict[str, Any]]:
    """The trunk's stages up to where the arm leaves it, and the arm's own."""
    if ablation.kind == "stages":
        return [
            {**stage.model_dump(exclude_unset=True), "mixture": _dumped(arm.mixtures[stage.name])}
            for stage in pretrain.stages
        ]
    batch, stages, left = pretrain.global_batch_tokens, list[dict[str, Any]](), after_step
    for stage in pretrain.stages:
        steps = min(left, stage.tokens // batch)
        if steps:
            stages.append({**stage.model_dump(exclude_unset=True), "tokens": steps * batch})
            left -= steps
    if arm.stages:
        own = [stage.model_dump(exclude_unset=True) for stage in arm.stages]
        return [*stages, {**own[0], "reshuffle": seed}, *own[1:]]
    [(name, mixture)] = arm.mixtures.items()
    added: dict[str, Any] = {
        "name": _free_name(name, stages),
        "tokens": tokens,
        "seq_len": stage_at(pretrain, max(0, after_step - 1)).seq_len,
        "mixture": _dumped(mixture),
    }
    if after_step:
        added["reshuffle"] = seed
    return [*stages, added]


def _dumped(mixture: Sequence[Draw]) -> list[dict[str, Any]]:
    return [draw.model_dump(exclude_unset=True) for draw in mixture]


def _schedule(ablation: Ablation, pretrain: Pretrain, tokens: int) -> dict[str, int]:
    """Anneal: all of the arm decays. Scratch: the recipe's shares of warm-up and decay. Stages and extension: the recipe's schedule as it is."""
    if ablation.kind == "anneal":
        return {"decay_tokens": tokens}
    if ablation.kind in ("stages", EXTENSION):
        return {}
    batch = pretrain.global_batch_tokens

    def steps(part: int) -> int:
        return round(part / pretrain.total_tokens * tokens / batch)

    return {
        "warmup_tokens": steps(pretrain.warmup_tokens) * batch,
        "decay_tokens": max(1, steps(pretrain.decay_tokens)) * batch,
    }


def _free_name(wanted: str, stages: Sequence[Mapping[str, Any]]) -> str:
    taken = {stage["name"] for stage in stages}
    while wanted in taken:
        wanted += "-arm"
    return wanted


def stage_at(pretrain: Pretrain, step: int) -> Stage:
    """The stage that step `step`, from 0, is trained in."""
    end = 0
    for stage in pretrain.stages:
        end += stage.tokens // pretrain.global_batch_tokens
        if step < end:
            return stage
    return pretrain.stages[-1]


def stages_after(pretrain: Pretrain, step: int) -> Iterator[Stage]:
    """The stages that have steps from `step` on, from 0."""
    end = 0
    for stage in pretrain.stages:
        end += stage.tokens // pretrain.global_batch_tokens
        if end > step:
            yield stage
