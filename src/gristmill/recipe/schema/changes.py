"""Changes in the middle of a pretraining: new values from some step on, and the reason.

    changes:
      - after_step: 4000
        set: {optimizer.peak_lr: 2.0e-3, skip_steps: 20}
        why: loss spikes from step 4,000 on, with bad text around

A change leaves every step before it as it was, so training resumes from a checkpoint instead of starting over.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, WithJsonSchema, field_validator

from gristmill.recipe.schema.mixture import Draw, as_draws, check_mixture
from gristmill.recipe.schema.section import LABEL, MAX_PEAK_LR, Misfit, Section, Unit, did_you_mean, expected_words
from gristmill.units import counted

PEAK_LR = "optimizer.peak_lr"
SKIP_STEPS = "skip_steps"
MIXTURE = re.compile(r"stages\.([^.]+)\.mixture")
MAX_STEPS = 10**9
ALLOWED = (
    f"{PEAK_LR} (a number above 0, at most {MAX_PEAK_LR:g}), stages.<name>.mixture, "
    f"{SKIP_STEPS} (a whole number above 0, at most {MAX_STEPS:,})"
)

_DRAWS = TypeAdapter(Annotated[list[Draw], Field(min_length=1)])
_SET_SCHEMA = {
    "type": "object",
    "minProperties": 1,
    "properties": {
        PEAK_LR: {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_PEAK_LR},
        SKIP_STEPS: {"type": "integer", "exclusiveMinimum": 0, "maximum": MAX_STEPS},
    },
    "additionalProperties": False,
}
Settings = Annotated[dict[str, float | int | list[Draw]], WithJsonSchema(_SET_SCHEMA)]


class Change(Section):
    """New values for all that follows step `after_step`."""

    after_step: Annotated[int, Field(gt=0, le=MAX_STEPS), Unit("steps", "no training takes more")] = Field(
        description="the number of steps after which it takes effect"
    )
    set: Settings = Field(
        min_length=1,
        description="optimizer.peak_lr; stages.<name>.mixture of a later stage; skip_steps: steps of data to skip",
    )
    why: Annotated[str, LABEL] = Field(min_length=10, description="for the record; at least ten letters")

    @field_validator("set", mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        return {key: _setting(key, item) for key, item in value.items()} if isinstance(value, Mapping) else value

    @property
    def peak_lr(self) -> float | None:
        """The new peak of the learning rate."""
        found = self.set.get(PEAK_LR)
        return found if isinstance(found, (int, float)) else None

    @property
    def skip_steps(self) -> int:
        """How many steps of data are skipped; 0 for none."""
        found = self.set.get(SKIP_STEPS, 0)
        return found if isinstance(found, int) else 0

    @property
    def mixtures(self) -> dict[str, list[Draw]]:
        """Stage name → its new mixture."""
        return {
            found[1]: item
            for key, item in self.set.items()
            if (found := MIXTURE.fullmatch(key)) and isinstance(item, list)
        }

    @property
    def in_words(self) -> str:
        """What it sets: "the peak of the learning rate becomes 0.002; stage decay draws web 60%, book 40%"."""
        parts = [] if self.peak_lr is None else [f"the peak of the learning rate becomes {self.peak_lr:g}"]
        for stage, draws in self.mixtures.items():
            shares = ", ".join(f"{draw.source} {draw.weight:.0%}" for draw in draws)
            parts.append(f"stage {stage} draws {shares}")
        if self.skip_steps:
            parts.append(f"data of {counted(self.skip_steps, 'step')} passed over")
        return "; ".join(parts)


def _setting(key: Any, value: Any) -> Any:
    """The value in its type. Raises ValueError with what was found, what is allowed and what to do."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if MIXTURE.fullmatch(str(key)):
        try:
            draws = _DRAWS.validate_python(as_draws(value), strict=True)
        except ValidationError as error:
            problem = error.errors()[0]
            where = "".join(f"[{part}]" for part in problem["loc"])
            raise ValueError(f"a change's {key}{where} is {problem['input']!r}; {expected_words(problem)}") from None
        check_mixture(draws, f"a change's {key}")
        return draws
    if key == PEAK_LR and is_number and 0 < value <= MAX_PEAK_LR:
        return float(value)
    if key == SKIP_STEPS and isinstance(value, int) and is_number and 0 < value <= MAX_STEPS:
        return value
    if key in (PEAK_LR, SKIP_STEPS):
        raise ValueError(f"a change sets {key} to {value!r}; allowed are {ALLOWED}")
    stage = str(key).removeprefix("stages.").partition(".")[0]
    close = difflib.get_close_matches(str(key), [PEAK_LR, SKIP_STEPS, f"stages.{stage}.mixture"], n=1, cutoff=0.8)
    raise ValueError(
        f"a change sets {key!r}, which cannot change in the middle of a run; "
        f"{f'did you mean {close[0]!r}? A' if close else 'a'}llowed are {ALLOWED}. "
        "Anything else is another recipe: edit it there, and the steps that it shaped are remade"
    )


def check_changes(changes: Sequence[Change], stages: Mapping[str, int], num_steps: int) -> None:
    """Raises Misfit for a change that comes out of order or too late. `stages`: name → the steps done when it begins."""
    before = 0
    for index, change in enumerate(changes):
        at, key = change.after_step, ("changes", index)
        if at < before:
            words = f"pretrain.changes: after_step {at:,} comes after {before:,}; put them in ascending order"
            raise Misfit(((*key, "after_step"), words))
        if at >= num_steps:
            words = (
                f"pretrain.changes: after_step {at:,} is not below the {num_steps:,} steps of all stages, so nothing follows "
                "it; lower it, or lengthen a stage"
            )
            raise Misfit(((*key, "after_step"), words))
        before = at
        for name in change.mixtures:
            if (problem := _not_to_come(name, at, stages)) is not None:
                raise Misfit(((*key, "set", f"stages.{name}.mixture"), f"pretrain.changes: {problem}"))


def _not_to_come(name: str, after_step: int, stages: Mapping[str, int]) -> str | None:
    """Why a stage cannot have another mixture after that step; None when it can."""
    to_come = ", ".join(f"{stage} (step {first:,})" for stage, first in stages.items() if first >= after_step) or "none"
    if name not in stages:
        return (
            f"there is no stage {name!r}; {did_you_mean(name, stages)}stages that begin at or after step {after_step:,}: "
            f"{to_come}"
        )
    if stages[name] < after_step:
        return (
            f"stage {name!r} begins at step {stages[name]:,}, before after_step {after_step:,}; only a stage "
            f"to come can have another mixture: {to_come}. Split the stage at step {after_step:,} and change its second part"
        )
    return None
