"""How much is measured while a model trains, and when: no more than a share of the time of training.

Two choices, each made before what it is about:

    how much    before the first step, by counts of tokens: a forward pass takes a third of the work of a training step. What is measured at
                stage ends takes half of the share at most; where it would take more, there are fewer items and less text
    when        at each point, by the seconds that steps and measurements took so far: stage ends are always measured, and points between
                them as the share allows, evenly over the steps

Nothing here reads a clock: the record of a training says of each point why it was measured or passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FORWARD_WORK = 1 / 3  # of the work of a training step on as many tokens
AT_STAGE_ENDS = 0.5  # of the share
NO_LIMIT = 1.0  # a share: whatever is asked for is measured
FREE_SECONDS = 5.0  # nobody waits for less
FEWEST_ITEMS = 100  # fewer tell nothing apart
FEWEST_BYTES = 10_000


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Items of each pack, bytes of each source."""

    max_items: int
    validation_bytes: int

    def reduced(self, part: float) -> Amounts:
        """A part of them, but not less than tells anything, and never more."""
        return Amounts(
            max_items=max(min(self.max_items, FEWEST_ITEMS), math.floor(self.max_items * part)),
            validation_bytes=max(min(self.validation_bytes, FEWEST_BYTES), math.floor(self.validation_bytes * part)),
        )


def affordable_part(*, scored_tokens: float, trained_tokens: int, max_share: float) -> float:
    """Which part of what stage ends ask for fits into their part of the share. scored_tokens: of all of them, in full."""
    if max_share >= NO_LIMIT or not scored_tokens:
        return 1.0
    return min(1.0, AT_STAGE_ENDS * max_share * trained_tokens / FORWARD_WORK / scored_tokens)


@dataclass(kw_only=True)
class Pace:
    """When to measure. stage_ends: steps, the last one the end of training. tokens: of one measurement, by kind. between: the kinds that are
    measured between stage ends; each has an equal part of the time for that, so that none takes it from the others. seconds_at_ends: of all
    measurements so far; seconds_between: by kind. last: seconds of the last measurement, by kind."""

    stage_ends: Sequence[int]
    max_share: float
    tokens: Mapping[str, float]
    between: Sequence[str]
    seconds_at_ends: float = 0.0
    seconds_between: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)

    def allows(self, kind: str, *, step: int, training_seconds: float) -> bool:
        """Whether it is measured after this step. training_seconds: of the steps up to there."""
        if self.max_share >= NO_LIMIT or step == 0 or step in self.stage_ends:
            return True
        room = self._room(step, training_seconds) / len(self.between)
        return self.seconds_between.get(kind, 0.0) + self.cost([kind]) <= room

    def cost(self, kinds: Iterable[str]) -> float:
        """Seconds of one measurement of these kinds: as the last one, or at the speed of the others."""
        measured = sum(self.tokens[kind] for kind in self.last)
        seconds_per_token = sum(self.last.values()) / measured if measured else 0.0
        return sum(self.last.get(kind, self.tokens[kind] * seconds_per_token) for kind in kinds)

    def _room(self, step: int, training_seconds: float) -> float:
        """Seconds for measurements between stage ends, up to this step."""
        num_steps = self.stage_ends[-1]
        left = sum(end > step for end in self.stage_ends)
        share = max(FREE_SECONDS, self.max_share * training_seconds / step * num_steps)
        room = max(0.0, share - self.seconds_at_ends - left * self.cost(self.tokens))
        return max(room * step / num_steps, min(room, FREE_SECONDS))

    def took(self, seconds: Mapping[str, float], *, step: int) -> None:
        """Notes a measurement, by kind."""
        self.last = {**self.last, **seconds}
        if step in self.stage_ends:
            self.seconds_at_ends += sum(seconds.values())
        else:
            spent = {kind: self.seconds_between.get(kind, 0.0) + took for kind, took in seconds.items()}
            self.seconds_between = {**self.seconds_between, **spent}

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint carries along: the times."""
        return {
            "seconds_at_ends": self.seconds_at_ends,
            "seconds_between": dict(self.seconds_between),
            "last": dict(self.last),
        }
