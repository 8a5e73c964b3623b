"""How much is measured while a model trains, and when: trainings are simulated step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.train.cadence import every_steps
from gristmill.train.watch.pace import FEWEST_BYTES, FEWEST_ITEMS, FREE_SECONDS, Amounts, Pace, affordable_part


@dataclass(frozen=True, kw_only=True)
class Training:
    """every, costs: steps between two measurements, and seconds of one, by kind; all kinds are due at stage ends."""

    ends: list[int]
    step_seconds: float
    max_share: float
    every: Mapping[str, int]
    costs: Mapping[str, float]

    @property
    def limit(self) -> float:
        return max(FREE_SECONDS, self.max_share * self.step_seconds * self.ends[-1])

    def measured(self, pace: Pace | None = None) -> dict[str, list[int]]:
        """The steps at which each kind is measured."""
        found: dict[str, list[int]] = {kind: [] for kind in self.costs}
        pace = pace or self.pace()
        for step in range(self.ends[-1] + 1):
            due = self.costs if step in self.ends else [kind for kind, steps in self.every.items() if step % steps == 0]
            kinds = [kind for kind in due if pace.allows(kind, step=step, training_seconds=step * self.step_seconds)]
            pace.took({kind: self.costs[kind] for kind in kinds}, step=step)
            for kind in kinds:
                found[kind].append(step)
        return found

    def pace(self) -> Pace:
        tokens = {kind: 1000 * seconds for kind, seconds in self.costs.items()}
        return Pace(stage_ends=self.ends, max_share=self.max_share, tokens=tokens, between=[*self.every])


trainings = st.builds(
    lambda stages, step_seconds, max_share, every, costs: Training(
        ends=[sum(stages[: number + 1]) for number in range(len(stages))],
        step_seconds=step_seconds,
        max_share=max_share,
        every=dict(zip(("text", "packs"), every, strict=True)),
        costs=dict(zip(("text", "packs", "stage"), costs, strict=True)),
    ),
    stages=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    step_seconds=st.floats(1e-3, 100.0),
    max_share=st.floats(1e-3, 0.99),
    every=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    costs=st.tuples(*[st.floats(1e-3, 100.0)] * 3),
)


@given(trainings)
def test_watching_takes_no_more_than_its_share_but_for_the_start_and_stage_ends(training: Training) -> None:
    found = training.measured()
    took = sum(training.costs[kind] * len(steps) for kind, steps in found.items())
    start = sum(training.costs[kind] for kind in training.every)
    ends = sum(training.costs.values()) * len(training.ends)
    assert took <= max(training.limit, ends) + start + 1e-6


@given(trainings)
def test_stage_ends_and_the_start_are_always_measured(training: Training) -> None:
    found = training.measured()
    for kind, steps in found.items():
        assert set(training.ends) <= set(steps)
        assert (0 in steps) == (kind in training.every)


@given(trainings)
def test_where_there_is_time_for_all_nothing_is_passed_over(training: Training) -> None:
    cheap = replace(training, costs=dict.fromkeys(training.costs, 1e-09))
    for kind, every in training.every.items():
        due = {step for step in range(training.ends[-1] + 1) if step % every == 0}
        assert set(cheap.measured()[kind]) == due | set(training.ends)


@given(trainings)
def test_what_is_cheap_and_often_takes_no_time_from_what_is_dear_and_seldom(training: Training) -> None:
    """Whether packs are measured depends on what packs take, not on how often text is."""
    often = replace(training, every={**training.every, "text": 1})
    seldom = replace(training, every={**training.every, "text": 10**6})
    assert often.measured()["packs"] == seldom.measured()["packs"]


def test_points_that_there_is_no_time_for_are_spread_over_the_steps() -> None:
    training = Training(
        ends=[1000],
        step_seconds=1.0,
        max_share=0.03,
        every={"text": 10, "packs": 50},
        costs={"text": 1.0, "packs": 1.0},
    )
    steps = training.measured()["text"]
    gaps = [after - before for before, after in pairwise(steps)]
    assert len(steps) == pytest.approx(15, abs=2)
    assert max(gaps) < 3 * 1000 / len(steps)
    assert len(training.measured()["packs"]) == pytest.approx(15, abs=2)


def test_a_resumed_training_goes_on_with_the_times_of_the_checkpoint() -> None:
    pace = Pace(stage_ends=[100], max_share=0.03, tokens={"text": 1.0}, between=["text"])
    pace.took({"text": 4.9}, step=0)
    again = Pace(stage_ends=[100], max_share=0.03, tokens={"text": 1.0}, between=["text"], **pace.to_json())
    assert again == pace
    assert not again.allows("text", step=1, training_seconds=1.0)
    assert Pace(stage_ends=[100], max_share=0.03, tokens={"text": 1.0}, between=["text"]).allows(
        "text", step=1, training_seconds=1.0
    )


def test_a_kind_that_was_never_measured_is_taken_at_the_speed_of_the_others() -> None:
    pace = Pace(stage_ends=[10], max_share=0.03, tokens={"text": 100.0, "stage": 300.0}, between=["text"])
    assert pace.cost(["text", "stage"]) == 0.0
    pace.took({"text": 2.0}, step=0)
    assert pace.cost(["stage"]) == pytest.approx(6.0)


@given(st.floats(1, 1e9), st.integers(1, 10**9), st.floats(1e-3, 0.99))
def test_what_stage_ends_score_is_half_of_the_share_at_most(scored: float, trained: int, max_share: float) -> None:
    """A forward pass is a third of the work of a training step."""
    part = affordable_part(scored_tokens=scored, trained_tokens=trained, max_share=max_share)
    assert 0 < part <= 1
    assert part * scored / 3 <= max_share * trained / 2 * (1 + 1e-9)
    assert part == 1 or part * scored / 3 == pytest.approx(max_share * trained / 2)


def test_a_share_of_one_is_no_limit() -> None:
    """So a log has the same lines however busy the machine was."""
    training = Training(
        ends=[50],
        step_seconds=1e-3,
        max_share=1.0,
        every={"text": 1, "packs": 5},
        costs={"text": 9.0, "packs": 9.0, "stage": 9.0},
    )
    assert training.measured() == {"text": [*range(51)], "packs": [*range(0, 51, 5)], "stage": [50]}
    assert affordable_part(scored_tokens=1e12, trained_tokens=1, max_share=1.0) == 1.0


def test_reduced_amounts_tell_something_and_are_never_more_than_was_asked_for() -> None:
    asked = Amounts(max_items=1000, validation_bytes=50_000)
    assert asked.reduced(1.0) == asked
    assert asked.reduced(0.5) == Amounts(max_items=500, validation_bytes=25_000)
    assert asked.reduced(0.2003) == Amounts(max_items=200, validation_bytes=10_015), "no more than the share"
    assert asked.reduced(1e-6) == Amounts(max_items=FEWEST_ITEMS, validation_bytes=FEWEST_BYTES)
    assert Amounts(max_items=4, validation_bytes=100).reduced(1e-6) == Amounts(max_items=4, validation_bytes=100)


def test_the_default_is_a_share_of_the_steps_and_a_recipe_names_tokens() -> None:
    assert every_steps(None, 0.01, batch_tokens=64, num_steps=5000) == 50
    assert every_steps(None, 0.01, batch_tokens=64, num_steps=14) == 1
    assert every_steps(640, 0.01, batch_tokens=64, num_steps=5000) == 10
    assert every_steps(1, 0.01, batch_tokens=64, num_steps=5000) == 1
