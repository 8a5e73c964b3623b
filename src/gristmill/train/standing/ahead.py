"""What comes next in a pretraining: the next checkpoint and measurement, the stages and changes still to come, the decay, the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from gristmill.recipe.schema.training import Pretrain
from gristmill.train.cadence import is_measured_after, is_saved_after
from gristmill.train.course import Course

Kind = Literal["checkpoint", "measurement", "stage", "extension", "decay", "change", "end"]


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Something that comes when `step` steps are done."""

    step: int
    kind: Kind
    what: str


def ahead(course: Course, pretrain: Pretrain, step: int) -> list[Ahead]:
    """What comes after `step` steps, in order: the next checkpoint and measurement, every stage, change and turn of the rate, the end.

    pretrain: as it became, its changes not applied.
    """
    found = [
        *_next("checkpoint", "checkpoint", step, course, partial(is_saved_after, course=course, pretrain=pretrain)),
        *_next(
            "measurement", "measurement", step, course, partial(is_measured_after, course=course, pretrain=pretrain)
        ),
        *_stages(course, pretrain, step),
        *(
            Ahead(step=change.after_step, kind="change", what=f"change {number}: {change.in_words}")
            for number, change in enumerate(pretrain.changes, start=1)
            if change.after_step > step
        ),
    ]
    begins = decay_begins(course)
    if begins is not None and step < begins:
        found.append(Ahead(step=begins, kind="decay", what="the learning rate begins to fall"))
    if step < course.num_steps:
        found.append(Ahead(step=course.num_steps, kind="end", what="end of pretraining"))
    return sorted(found, key=lambda one: one.step)


def decay_begins(course: Course) -> int | None:
    """The steps that are done when the learning rate begins to fall; None where it never does."""
    if not course.schedule.decay_tokens:
        return None
    return (course.total_tokens - course.schedule.decay_tokens) // course.segments[0].batch_tokens


def _next(kind: Kind, what: str, step: int, course: Course, at: Callable[[int], bool]) -> Iterator[Ahead]:
    for later in range(step + 1, course.num_steps + 1):
        if at(later):
            yield Ahead(step=later, kind=kind, what=what)
            return


def _stages(course: Course, pretrain: Pretrain, step: int) -> Iterator[Ahead]:
    """The stages that have not begun; an extension is one of longer sequences."""
    segments = zip(course.segments, course.segments[1:], pretrain.stages[1:], strict=False)
    for before, segment, stage in segments:
        if segment.first_step > step:
            is_longer = segment.seq_len > before.seq_len
            yield Ahead(
                step=segment.first_step,
                kind="extension" if is_longer else "stage",
                what=f"stage {stage.name}" + (f", sequences of {segment.seq_len:,} tokens" if is_longer else ""),
            )
