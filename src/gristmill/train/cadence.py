"""When a pretraining saves and measures: functions of the step, for who carries it out and for who says what comes next.

    text     held-out text, every hundredth of the tokens
    packs    the packs of the recipe's `watch` and its prompts, every twentieth
    stage    the other packs of the recipe, at the end of each stage, where text and packs are measured, too

What is asked for here is passed over between stage ends where there is no time for it (pace.py).
"""

from __future__ import annotations

import math

from gristmill.recipe.schema.training import Pretrain
from gristmill.train.course import Course
from gristmill.train.prefix import milestones

TEXT, PACKS, STAGE = "text", "packs", "stage"
SHARE = {TEXT: 0.01, PACKS: 0.05}  # of all tokens, from one measurement to the next, where the recipe does not say


def is_saved_after(step: int, course: Course, pretrain: Pretrain) -> bool:
    """Whether a checkpoint is written when `step` steps are done."""
    every = max(1, pretrain.checkpoint_every_tokens // pretrain.global_batch_tokens)
    return step % every == 0 or step in milestones(course)


def is_measured_after(step: int, course: Course, pretrain: Pretrain) -> bool:
    """Whether anything is to be measured when `step` steps are done."""
    return bool(measured_after(step, course, pretrain))


def measured_after(step: int, course: Course, pretrain: Pretrain) -> list[str]:
    """The kinds that are to be measured when `step` steps are done."""
    if any(step == segment.last_step for segment in course.segments):
        return [TEXT, PACKS, STAGE]
    asked = {TEXT: pretrain.watch.every_tokens, PACKS: pretrain.watch.packs_every_tokens}
    return [
        kind
        for kind, tokens in asked.items()
        if step
        % every_steps(tokens, SHARE[kind], batch_tokens=pretrain.global_batch_tokens, num_steps=course.num_steps)
        == 0
    ]


def every_steps(tokens: int | None, share: float, *, batch_tokens: int, num_steps: int) -> int:
    """Steps from one measurement to the next: those of so many tokens, else this share of all steps."""
    return max(1, math.ceil(share * num_steps) if tokens is None else tokens // batch_tokens)
