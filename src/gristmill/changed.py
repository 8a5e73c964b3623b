"""What a recipe asks otherwise than the run that is there was asked: old value → new value, the steps that it remakes, their time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gristmill.durations import StepForecast
from gristmill.graph.state import States


@dataclass(frozen=True, kw_only=True)
class RecipeChange:
    """One difference. asked_of: the steps whose own values it changes. remade: these and all that read what they make, as far as they
    are not made yet, in the order of the table; fewer where an input comes out the same. seconds: of these steps together."""

    line: str
    asked_of: tuple[str, ...]
    remade: tuple[str, ...]
    seconds: float


def recipe_changes(states: States, forecasts: Iterable[StepForecast]) -> tuple[RecipeChange, ...]:
    """The differences from the artefacts that the run has, in the order of the steps; none where it has none yet."""
    left = {made.step: made.left_seconds for made in forecasts}
    found: dict[str, list[str]] = {}
    for name in states.steps:
        for line in states.asked_otherwise(name):
            found.setdefault(line, []).append(name)
    return tuple(_change(states, line, asked_of, left) for line, asked_of in found.items())


def _change(states: States, line: str, asked_of: list[str], left: dict[str, float]) -> RecipeChange:
    touched = set(asked_of).union(*(states.after(name) for name in asked_of))
    remade = tuple(name for name in states.steps if name in touched and states[name].state != "done")
    return RecipeChange(line=line, asked_of=tuple(asked_of), remade=remade, seconds=sum(left[name] for name in remade))
