"""What is said to come is what then came: against the log and the checkpoints of a finished training, and step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from course_recipes import T, base, change, recipes
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.training import Pretrain
from gristmill.store.jsonl import read_log
from gristmill.train.cadence import PACKS, STAGE, TEXT, measured_after
from gristmill.train.course import Course, course_of
from gristmill.train.standing.ahead import ahead, decay_begins
from gristmill.train.watch.pace import Pace


def course(data: dict[str, Any]) -> tuple[Course, Pretrain]:
    pretrain = Pretrain.model_validate(data)
    return course_of(pretrain, rope_theta=10_000.0), pretrain


@pytest.mark.timeout(600)  # the first test that asks for the finished run makes it
def test_the_next_measurement_and_checkpoint_are_those_that_came(finished_run: Path) -> None:
    recipe = load_recipe(finished_run / "recipe.yaml").recipe
    found = course_of(recipe.pretrain, rope_theta=recipe.model.rope_theta)
    lines = read_log(finished_run / "pretrain" / "metrics.jsonl")
    measured = [line["step"] for line in lines if line["kind"] == "eval"]
    kept = {int(path.name) for path in (finished_run / "checkpoints" / "pretrain").iterdir()}
    saved = set[int]()
    for step in range(found.num_steps):
        next_of = {one.kind: one.step for one in reversed(ahead(found, recipe.pretrain, step))}
        assert next_of["measurement"] == next(later for later in measured if later > step)
        saved.add(next_of["checkpoint"])
    assert kept <= saved
    assert ahead(found, recipe.pretrain, found.num_steps) == []


@settings(max_examples=60, deadline=None)
@given(recipes(), st.data())
def test_the_rate_falls_from_where_it_is_said_to_and_stages_begin_where_they_do(
    data: dict[str, Any], draw: st.DataObject
) -> None:
    found, pretrain = course(data)
    step = draw.draw(st.integers(0, found.num_steps))
    coming = ahead(found, pretrain, step)
    assert [one.step for one in coming] == sorted(one.step for one in coming)
    assert all(step < one.step <= found.num_steps for one in coming)
    begins = decay_begins(found)
    assert begins is not None
    shape = [found.schedule.lr_at(found.tokens_done(done)) for done in range(found.num_steps + 1)]
    assert all(rate == shape[begins] for rate in shape[begins : begins + 1])
    assert shape[begins + 1] < shape[begins]
    stages = {one.step for one in coming if one.kind in ("stage", "extension")}
    assert stages == {segment.first_step for segment in found.segments[1:] if segment.first_step > step}
    changes = [one.step for one in coming if one.kind == "change"]
    assert changes == [change.after_step for change in pretrain.changes if change.after_step > step]


def test_longer_sequences_are_an_extension() -> None:
    found, pretrain = course(base())
    kinds = {one.step: (one.kind, one.what) for one in ahead(found, pretrain, 5) if one.kind in ("stage", "extension")}
    assert kinds == {6: ("stage", "stage two"), 11: ("extension", "stage three, sequences of 8 tokens")}


def test_a_change_is_told_in_words() -> None:
    values = {"optimizer.peak_lr": 2e-3, "stages.three.mixture": {"web": 0.6, "code": 0.4}, "skip_steps": 1}
    _, pretrain = course(base() | {"changes": [change(4, values)]})
    assert pretrain.changes[0].in_words == (
        "the peak of the learning rate becomes 0.002; stage three draws web 60%, code 40%; data of 1 step passed over"
    )


@settings(max_examples=60, deadline=None)
@given(recipes(), st.data(), st.floats(0, 60))
def test_a_measurement_that_is_said_without_a_condition_is_made_however_long_it_takes(
    data: dict[str, Any], draw: st.DataObject, seconds: float
) -> None:
    """Against the pace of a training whose steps take a second: what comes for sure, and what comes as time allows or not at all."""
    found, pretrain = course(data)
    ends = [segment.last_step for segment in found.segments]
    kinds = dict.fromkeys((TEXT, PACKS, STAGE), seconds)
    pace = Pace(stage_ends=ends, max_share=pretrain.watch.max_share, tokens=kinds, between=[TEXT, PACKS])
    measured = set[int]()
    for step in range(found.num_steps + 1):
        due = measured_after(step, found, pretrain)
        allowed = [kind for kind in due if pace.allows(kind, step=step, training_seconds=float(step))]
        pace.took(dict.fromkeys(allowed, seconds), step=step)
        measured |= {step} if allowed else set()
    step = draw.draw(st.integers(0, found.num_steps - 1))
    coming = [one for one in ahead(found, pretrain, step) if one.kind == "measurement"]
    sure = [one for one in coming if not one.as_time_allows]
    assert (len(sure), len(coming) - len(sure)) in ((1, 0), (1, 1)), "the next of each kind"
    assert {one.step for one in sure} <= measured
    assert min(one.step for one in sure) == min(end for end in ends if end > step)
    assert min(one.step for one in coming) <= min(later for later in measured if later > step)
    assert [one.what.endswith("as time allows") for one in coming] == [one.as_time_allows for one in coming]


def test_without_a_cap_every_measurement_is_sure() -> None:
    found, pretrain = course(base() | {"watch": {"every_tokens": T, "max_share": 1.0}})
    (next_one,) = [one for one in ahead(found, pretrain, 2) if one.kind == "measurement"]
    assert (next_one.step, next_one.what, next_one.as_time_allows) == (3, "measurement", False)
