"""Sections of ablations: which data is worth it, asked by trainings that differ in their data and in nothing else; and whether a context
extension costs anything within the old length.

ablations:
  decay-data:
    candidates: {wiki: {wiki: 1}, prose: [books, letters]}
    endpoint: encyclopaedia
  long:
    kind: extension
    endpoint: encyclopaedia
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gristmill.recipe.schema.mixture import Draw, as_draws, check_mixture
from gristmill.recipe.schema.section import (
    MAX_WEIGHT_DECIMALS,
    Bytes,
    Misfit,
    Name,
    Section,
    Tokens,
    Unit,
    Weight,
)

CONTROL, EXTENSION = "control", "extension"
OF_DATA = {"candidates", "shares", "after_step", "tokens"}  # what only ablations of data are asked
Mixture = Annotated[list[Draw], Field(min_length=1)]


class Ablation(Section):
    """Arms that share everything but what is asked, each with several seeds, and a control."""

    kind: Literal["anneal", "scratch", "extension"] = Field(
        default="anneal",
        description="branches of one trunk that decay to zero, or trainings from the beginning; extension: the recipe's own stages from "
        "the one that extends the context on, against as many tokens at the length before",
    )
    candidates: dict[Name, Mixture] = Field(
        default={},
        description="name: source: weight, or name: [sources at equal weights]; one or more, none of an extension",
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

    @model_validator(mode="after")
    def _parts_fit(self) -> Ablation:
        if self.kind == "extension":
            if given := sorted(self.model_fields_set & OF_DATA):
                raise Misfit(
                    (
                        (given[0],),
                        f"the arms of an extension are the recipe's own stages, without and with it; remove {', '.join(given)}",
                    )
                )
        elif not self.candidates:
            raise Misfit((("candidates",), "name one candidate or more, such as `wiki: {wiki: 1}`"))
        if CONTROL in self.candidates:
            raise Misfit(
                (("candidates", CONTROL), f"{CONTROL!r} is the arm on the mixture as it is; name it otherwise")
            )
        for name, mixture in self.candidates.items():
            try:
                check_mixture(mixture, f"candidate {name!r}")
            except ValueError as error:
                raise Misfit((("candidates", name), str(error))) from None
        if len(set(self.shares)) != len(self.shares):
            raise Misfit((("shares",), f"a share is listed twice: {self.shares}"))
        if self.kind == "scratch" and self.after_step is not None:
            raise Misfit((("after_step",), "arms from scratch leave no trunk; remove after_step, or use kind: anneal"))
        return self


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
