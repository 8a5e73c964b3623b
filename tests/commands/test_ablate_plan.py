"""The price of an ablation: what of the trunk is still to be trained is paid once."""

from __future__ import annotations

import pytest

from gristmill.commands.ablate_plan import trunk_seconds
from gristmill.durations import StepForecast
from gristmill.planning.steps import Work
from gristmill.remake import ResumePoint


@pytest.mark.parametrize(
    ("resumes", "is_done", "steps"),
    [(None, False, 60), (20, False, 40), (60, False, 0), (75, False, 0), (None, True, 0)],
)
def test_the_trunk_costs_the_steps_that_no_checkpoint_has(resumes: int | None, is_done: bool, steps: int) -> None:
    """An arm of 100 steps in 1,000 seconds, of which 60 are the trunk's."""
    training = StepForecast(
        step="pretrain",
        work=Work(ratio="training", words="", cpu_seconds=1000.0),
        seconds=1000.0,
        num_records=0,
        is_done=is_done,
        resumes=None if resumes is None else ResumePoint(step=resumes, num_steps=100),
    )
    assert trunk_seconds(training, 60, 100) == pytest.approx(10.0 * steps)
