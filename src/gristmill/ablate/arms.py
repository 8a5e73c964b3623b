"""The arms of an ablation as recipes of their own: what an arm trains on is the only thing in which they differ.

    anneal    trunk up to after_step, which all share ─┬─ control     the mixture as it is     decays to zero, seed 1 … n
                                                       └─ candidate   share of it + the rest   decays to zero, seed 1 … n
    scratch   the same from the first step on, at equal tokens
    stages    from the first step on through the recipe's stages, whose mixtures a plan may give otherwise: which data, and when
    extension trunk up to the stage that reads longer sequences ─┬─ control     as many tokens at the length and mixture before
                                                                 └─ extension   the recipe's own stages from there on

A seed of an annealing arm is another order of what is left of each source; one of an arm from the first step on is also other first weights. The
prefix of a checkpoint is all that shaped it, so the trunk is found in the store and trained by no arm again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.ablation import CONTROL, EXTENSION, Ablation
from gristmill.recipe.schema.mixture import Draw
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import MAX_WEIGHT_DECIMALS, did_you_mean
from gristmill.recipe.schema.training import Pretrain, Stage
from gristmill.store.fingerprint import derive_seed

POST_TRAINING = ("chat", "sft", "pairs", "dpo", "ablations")
UNIT = 10**MAX_WEIGHT_DECIMALS
SHORT = "short"  # the stage of an extension's control
NOT_WATCHED = 10**15  # tokens between two measurements on the way: only the ends are measured


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is compared: the mixture of each stage that is the arm's own, by the stage's name.

    candidate: None for the control. share: of a candidate in the mixture, 0 in the control's; None for a plan, which is not mixed in.
    stages: of an extension, the recipe's own.
    """

    name: str
    candidate: str | None
    share: float | None
    mixtures: Mapping[str, Sequence[Draw]]
    stages: Sequence[Stage] = ()

    @property
    def draws(self) -> list[Draw]:
        """Of all its stages."""
        return [draw for mixture in self.mixtures.values() for draw in mixture]

    def trained_on(self, control: Arm) -> str:
        """In words: its mixture, or those of its stages that are not the control's."""
        told = {
            stage: ", ".join(_draw_in_words(draw) for draw in mixture)
            for stage, mixture in self.mixtures.items()
            if self is control or _drawn(mixture) != _drawn(control.mixtures.get(stage, ()))
        }
        return "; ".join(
            told.values() if len(self.mixtures) == 1 else (f"{stage}: {text}" for stage, text in told.items())
        )


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
    base = _stage_at(pretrain, max(0, after_step - 1)).mixture
    if ablation.kind == EXTENSION:
        arms = _arms_of_extension(base, [*_after(pretrain, after_step)])
    else:
        is_of_plans = ablation.kind == "stages"
        arms = _arms_of_plans(ablation, pretrain, chosen) if is_of_plans else _arms_of_shares(ablation, base)
        _refuse_twins(chosen, arms)
    run = f"{recipe.name}.{chosen}"
    trials = [
        Trial(
            arm=arm,
            seed=seed,
            loaded=_loaded(loaded, ablation, pretrain, arm, seed, after_step=after_step, tokens=tokens, run=run),
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
        and any(_drawn(stage.mixture) != _drawn(base) for stage in _after(pretrain, after_step)),
        arms=arms,
        trials=trials,
    )


def _arms_of_shares(ablation: Ablation, base: Sequence[Draw]) -> list[Arm]:
    """The control on `base`, and of each candidate an arm per share, all in one stage, which is named after the kind."""
    arms = [Arm(name=CONTROL, candidate=None, share=0.0, mixtures={ablation.kind: base})]
    for candidate, mixture in ablation.candidates.items():
        arms += [
            Arm(
                name=_arm_name(ablation, candidate, share),
                candidate=candidate,
                share=share,
                mixtures={ablation.kind: blend(mixture, base, share)},
            )
            for share in ablation.shares
        ]
    return arms


def _arms_of_plans(ablation: Ablation, pretrain: Pretrain, chosen: str) -> list[Arm]:
    """The control on the recipe's stages, and an arm per plan. Raises RecipeError for a stage that the recipe has not."""
    usual = {stage.name: stage.mixture for stage in pretrain.stages}
    for name, plan in ablation.plans.items():
        for stage in plan.keys() - usual.keys():
            raise RecipeError(
                f"ablations.{chosen}.plans.{name}: pretrain has no stage {stage!r}; {did_you_mean(stage, usual)}it has {', '.join(usual)}."
            )
    control = Arm(name=CONTROL, candidate=None, share=None, mixtures=usual)
    return [
        control,
        *(Arm(name=name, candidate=name, share=None, mixtures=usual | plan) for name, plan in ablation.plans.items()),
    ]


def _arms_of_extension(base: Sequence[Draw], stages: Sequence[Stage]) -> list[Arm]:
    """The control goes on with `base` at the length before; the other arm has the recipe's stages."""
    own = {stage.name: stage.mixture for stage in stages}
    return [
        Arm(name=CONTROL, candidate=None, share=None, mixtures={SHORT: base}),
        Arm(name=EXTENSION, candidate=EXTENSION, share=None, mixtures=own, stages=stages),
    ]


def blend(candidate: Sequence[Draw], base: Sequence[Draw], share: float) -> list[Draw]:
    """`share` of the candidate and the rest of the base, selection by selection, in weights of six decimals that sum to 1."""
    parts: dict[tuple[str, int | None], int] = {}
    ours = round(share * UNIT)
    for mixture, part in ((candidate, ours), (base, UNIT - ours)):
        for draw in mixture:
            key = (draw.source, draw.min_document_tokens)
            parts[key] = parts.get(key, 0) + part * round(draw.weight * UNIT)
    floors = {key: exact // UNIT for key, exact in parts.items()}
    left = UNIT - sum(floors.values())
    for key in sorted(parts, key=lambda one: parts[one] % UNIT, reverse=True)[:left]:
        floors[key] += 1
    return [
        Draw(source=source, weight=weight / UNIT, min_document_tokens=limit)
        for (source, limit), weight in floors.items()
        if weight
    ]


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


def _refuse_twins(ablation: str, arms: Sequence[Arm]) -> None:
    """Raises RecipeError for two arms on one mixture."""
    if twins := _twins(arms):
        raise RecipeError(
            f"ablations.{ablation}: {twins[1]} trains on the mixture of {twins[0]}, draw for draw. Its runs would be the same runs, counted as if "
            "they were others, and all noise would look smaller than it is.\n  Remove one of the two. What two runs of one mixture differ by is "
            "told without it."
        )


def _twins(arms: Sequence[Arm]) -> tuple[str, str] | None:
    """The names of the first two arms that draw the same, in whatever order."""
    known: dict[tuple[frozenset[tuple[str, int | None, float]], ...], str] = {}
    for arm in arms:
        first = known.setdefault(tuple(_drawn(mixture) for mixture in arm.mixtures.values()), arm.name)
        if first != arm.name:
            return first, arm.name
    return None


def _drawn(mixture: Sequence[Draw]) -> frozenset[tuple[str, int | None, float]]:
    """What a mixture draws, in no order."""
    return frozenset((draw.source, draw.min_document_tokens, draw.weight) for draw in mixture)


def _draw_in_words(draw: Draw) -> str:
    long = "" if draw.min_document_tokens is None else f" (documents of {draw.min_document_tokens:,} tokens and more)"
    return f"{draw.source}{long} {draw.weight:.4g}"


def _arm_name(ablation: Ablation, candidate: str, share: float) -> str:
    return candidate if len(ablation.shares) == 1 else f"{candidate}-{share * 100:g}".replace(".", "_")


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


def _stage_at(pretrain: Pretrain, step: int) -> Stage:
    """The stage that step `step`, from 0, is trained in."""
    end = 0
    for stage in pretrain.stages:
        end += stage.tokens // pretrain.global_batch_tokens
        if step < end:
            return stage
    return pretrain.stages[-1]


def _after(pretrain: Pretrain, step: int) -> Iterator[Stage]:
    """The stages that have steps from `step` on, from 0."""
    end = 0
    for stage in pretrain.stages:
        end += stage.tokens // pretrain.global_batch_tokens
        if end > step:
            yield stage


def _loaded(
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
        data["evaluate"]["window"] = _stage_at(pretrain, after_step - 1).seq_len
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
        "seq_len": _stage_at(pretrain, max(0, after_step - 1)).seq_len,
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
