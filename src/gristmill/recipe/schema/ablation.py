"""Sections of ablations: which data is worth it, asked by trainings that differ in their data and in nothing else; and what a context
extension costs within the old length.

ablations:
  decay-data:
    candidates: {wiki: {wiki: 1}, prose: [books, letters]}
    endpoint: encyclopaedia
  long:
    kind: extension
    endpoint: encyclopaedia
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gristmill.recipe.schema.mixture import Draw, as_draws, check_mixture
from gristmill.recipe.schema.section import (
    MAX_WEIGHT_DECIMALS,
    Bytes,
    KeyPath,
    Misfit,
    Name,
    Section,
    Tokens,
    Unit,
    Weight,
)

CONTROL, EXTENSION = "control", "extension"
NOT_OF = {
    "anneal": ("plans",),
    "scratch": ("plans", "after_step"),
    "stages": ("candidates", "shares", "after_step", "tokens"),
    EXTENSION: ("candidates", "plans", "shares", "after_step", "tokens"),
}  # by kind: what would say nothing
Mixture = Annotated[list[Draw], Field(min_length=1)]


class Ablation(Section):
    """Arms that share everything but their data, each with several seeds, and a control on the mixture as it is."""

    kind: Literal["anneal", "scratch", "stages", "extension"] = Field(
        default="anneal",
        description="branches of one trunk that decay to zero; trainings from the beginning on one mixture each, or through the "
        "recipe's stages; extension: the stages from the one that reads longer sequences on, against as many tokens at the length before",
    )
    candidates: dict[Name, Mixture] = Field(
        default={}, description="name: source: weight, or name: [sources at equal weights]"
    )
    plans: dict[Name, dict[Name, Mixture]] = Field(
        default={}, description="kind stages, name: stage: mixture; what a plan does not name is as in the recipe"
    )
    shares: list[Weight] = Field(
        default=[0.6], min_length=1, description="of an arm's tokens that are the candidate's; one arm each"
    )
    endpoint: Name = Field(description="the source whose held-out text decides; declared before anything is trained")
    seeds: Annotated[int, Field(ge=2, le=1000), Unit("seeds", "no ablation repeats more")] = Field(
        default=5, description="trainings of each arm; below 5 nothing is decided"
    )
    after_step: Annotated[int, Field(gt=0, le=10**9), Unit("steps", "no training takes more")] | None = Field(
        default=None, description="anneal: where the arms leave the trunk; absent: where the decay begins"
    )
    tokens: Tokens | None = Field(
        default=None,
        description="of each arm, beyond the trunk; absent: those of the decay, or of all stages from scratch",
    )
    validation_bytes: Bytes | None = Field(
        default=None, description="held-out text per source that arms are measured on; absent: evaluate's"
    )

    @field_validator("candidates", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        return {name: _as_mixture(item) for name, item in value.items()} if isinstance(value, Mapping) else value

    @field_validator("plans", mode="before")
    @classmethod
    def _short_forms_of_plans(cls, value: Any) -> Any:
        return {name: cls._short_forms(item) for name, item in value.items()} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _parts_fit(self) -> Ablation:
        arms: KeyPath = ("plans",) if self.kind == "stages" else ("candidates",)
        asked = self.plans if self.kind == "stages" else self.candidates
        if not asked and self.kind != EXTENSION:
            raise Misfit((arms, f"an ablation of kind {self.kind} compares {arms[0]}; name at least one"))
        if CONTROL in asked:
            raise Misfit(((*arms, CONTROL), f"{CONTROL!r} is the arm on the mixture as it is; name it otherwise"))
        for at, mixture in self.mixtures():
            try:
                check_mixture(mixture, f"{'plan' if at[0] == 'plans' else 'candidate'} {'.'.join(map(str, at[1:]))!r}")
            except ValueError as error:
                raise Misfit((at, str(error))) from None
        if len(set(self.shares)) != len(self.shares):
            raise Misfit((("shares",), f"a share is listed twice: {self.shares}"))
        for key in NOT_OF[self.kind]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise Misfit(((key,), f"an ablation of kind {self.kind} has no {key}; remove it, or use another kind"))
        return self

    def mixtures(self) -> Iterator[tuple[KeyPath, Sequence[Draw]]]:
        """Every mixture that is written in this section, with the place where."""
        for name, mixture in self.candidates.items():
            yield ("candidates", name), mixture
        for name, stages in self.plans.items():
            for stage, mixture in stages.items():
                yield ("plans", name, stage), mixture


def _as_mixture(value: Any) -> Any:
    """A list of sources at equal weights and the short form as draws; anything else as it is."""
    if (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and value
        and all(isinstance(item, str) for item in value)
    ):
        unit = 10**MAX_WEIGHT_DECIMALS
        each, rest = divmod(unit, len(value))
        return [{"source": name, "weight": (each + (place < rest)) / unit} for place, name in enumerate(value)]
    return as_draws(value)
