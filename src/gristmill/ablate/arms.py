"""The arms of an ablation: the mixtures that each is trained on, which are all that arms differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gristmill.errors import RecipeError
from gristmill.recipe.schema.ablation import CONTROL, EXTENSION, Ablation
from gristmill.recipe.schema.mixture import Draw
from gristmill.recipe.schema.section import MAX_WEIGHT_DECIMALS, did_you_mean
from gristmill.recipe.schema.training import Pretrain, Stage

UNIT = 10**MAX_WEIGHT_DECIMALS
SHORT = "short"  # the stage of an extension's control


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
            if self is control or drawn(mixture) != drawn(control.mixtures.get(stage, ()))
        }
        return "; ".join(
            told.values() if len(self.mixtures) == 1 else (f"{stage}: {text}" for stage, text in told.items())
        )


def arms_of_shares(ablation: Ablation, base: Sequence[Draw]) -> list[Arm]:
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


def arms_of_plans(ablation: Ablation, pretrain: Pretrain, chosen: str) -> list[Arm]:
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


def arms_of_extension(base: Sequence[Draw], stages: Sequence[Stage]) -> list[Arm]:
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


def refuse_twins(ablation: str, arms: Sequence[Arm]) -> None:
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
        first = known.setdefault(tuple(drawn(mixture) for mixture in arm.mixtures.values()), arm.name)
        if first != arm.name:
            return first, arm.name
    return None


def drawn(mixture: Sequence[Draw]) -> frozenset[tuple[str, int | None, float]]:
    """What a mixture draws, in no order."""
    return frozenset((draw.source, draw.min_document_tokens, draw.weight) for draw in mixture)


def _draw_in_words(draw: Draw) -> str:
    long = "" if draw.min_document_tokens is None else f" (documents of {draw.min_document_tokens:,} tokens and more)"
    return f"{draw.source}{long} {draw.weight:.4g}"


def _arm_name(ablation: Ablation, candidate: str, share: float) -> str:
    return candidate if len(ablation.shares) == 1 else f"{candidate}-{share * 100:g}".replace(".", "_")
