"""When a training saves and measures: after the steps that the documentation names, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
from course_recipes import T, base, recipes
from hypothesis import given, settings

from gristmill.recipe.schema.training import Pretrain
from gristmill.train.cadence import every_steps, is_measured_after, is_saved_after, measured_after
from gristmill.train.course import Course, course_of


def made(**changes: Any) -> tuple[Course, Pretrain]:
    pretrain = Pretrain.model_validate(base() | changes)
    return course_of(pretrain, rope_theta=10_000.0), pretrain


def saved(**changes: Any) -> list[int]:
    course, pretrain = made(**changes)
    return [step for step in range(1, course.num_steps + 1) if is_saved_after(step, course, pretrain)]


def test_checkpoints_stand_at_every_so_many_tokens_at_stage_ends_and_before_the_decay() -> None:
    """Stages end after steps 6, 11 and 15; the decay begins after step 11, or after step 8 where it is 7 steps long."""
    assert saved(checkpoint_every_tokens=4 * T) == [4, 6, 8, 11, 12, 15]
    assert saved(checkpoint_every_tokens=4 * T + T - 1) == [4, 6, 8, 11, 12, 15]
    assert saved(checkpoint_every_tokens=7 * T, decay_tokens=7 * T) == [6, 7, 8, 11, 14, 15]
    assert saved(checkpoint_every_tokens=1) == [*range(1, 16)]
    assert saved(checkpoint_every_tokens=10**9) == [6, 11, 15]


def test_text_and_packs_are_measured_at_every_so_many_tokens_and_all_at_stage_ends() -> None:
    course, pretrain = made(watch={"every_tokens": 4 * T, "packs_every_tokens": 6 * T})
    found = {step: measured_after(step, course, pretrain) for step in range(16)}
    ends = {end: ["text", "packs", "stage"] for end in (6, 11, 15)}
    at = {0: ["text", "packs"], 4: ["text"], 8: ["text"], 12: ["text", "packs"], **ends}
    assert found == {step: at.get(step, []) for step in range(16)}
    assert [step for step in range(16) if is_measured_after(step, course, pretrain)] == sorted(at)


@settings(max_examples=40, deadline=None)
@given(recipes())
def test_the_end_of_each_stage_is_saved_and_measured_in_full(data: dict[str, Any]) -> None:
    pretrain = Pretrain.model_validate(data)
    course = course_of(pretrain, rope_theta=10_000.0)
    done = 0
    for stage in pretrain.stages:
        done += stage.tokens
        assert is_saved_after(done // T, course, pretrain)
        assert measured_after(done // T, course, pretrain) == ["text", "packs", "stage"]


@pytest.mark.parametrize(
    ("tokens", "share", "num_steps", "steps"),
    [(None, 0.01, 56, 1), (None, 0.05, 56, 3), (None, 0.01, 1000, 10), (None, 0.01, 1001, 11),
     (100, 0.01, 1000, 4), (99, 0.01, 1000, 3), (24, 0.01, 1000, 1), (10, 0.01, 1000, 1)],
)  # fmt: skip
def test_steps_between_two_measurements(tokens: int | None, share: float, num_steps: int, steps: int) -> None:
    assert every_steps(tokens, share, batch_tokens=25, num_steps=num_steps) == steps
