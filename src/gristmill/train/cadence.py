"""When a pretraining saves and measures: functions of the step, for who carries it out and for who says what comes next."""

from __future__ import annotations

from gristmill.recipe.schema.training import Pretrain
from gristmill.train.course import Course
from gristmill.train.prefix import milestones


def is_saved_after(step: int, course: Course, pretrain: Pretrain) -> bool:
    """Whether a checkpoint is written when `step` steps are done."""
    every = max(1, pretrain.checkpoint_every_tokens // pretrain.global_batch_tokens)
    return step % every == 0 or step in milestones(course)


def is_measured_after(step: int, course: Course, pretrain: Pretrain) -> bool:
    """Whether held-out text and packs are measured when `step` steps are done."""
    every = max(1, pretrain.watch.every_tokens // pretrain.global_batch_tokens)
    return step % every == 0 or any(step == segment.last_step for segment in course.segments)
