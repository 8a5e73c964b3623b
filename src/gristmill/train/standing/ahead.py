"""What comes next in a pretraining: the next checkpoint and measurement, the stages and changes still to come, the decay, the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from gristmill.recipe.schema.training import Pretrain
from gristmill.train.cadence import is_measured_after, is_saved_after
from gristmill.train.course import Course
from gristmill.train.watch.pace import NO_LIMIT

Kind = Literal["checkpoint", "measurement", "stage", "extension", "decay", "change", "end"]


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Something that comes when `step` steps are done. as_time_allows: a measurement that is passed over where there is no time for it."""

    step: int
    kind: Kind
    what: str
    as_time_allows: bool = False


def ahead(course: Course, pretrain: Pretrain, step: int) -> list[Ahead]:
    """What comes after `step` steps, in order: the next checkpoint and measurement, every stage, change and turn of the rate, the end.

    Where the next measurement is one that there may be no time for, the next that is made in any case comes, too. pretrain: as it became,
    its changes not applied.
    """
    is_sure = partial(is_measured_in_any_case, course=course, max_share=pretrain.watch.max_share)
    found = [
        *_next("checkpoint", step, course, partial(is_saved_after, course=course, pretrain=pretrain)),
        *_next("measurement", step, course, lambda later: is_measured_after(later, course, pretrain), is_sure),
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


def is_measured_in_any_case(step: int, course: Course, max_share: float) -> bool:
    """Whether what is to be measured after a step is measured however long it takes (watch/pace.py)."""
    return max_share >= NO_LIMIT or any(step == segment.last_step for segment in course.segments)


def decay_begins(course: Course) -> int | None:
    """The steps that are done when the learning rate begins to fall; None where it never does."""
    if not course.schedule.decay_tokens:
        return None
    return (course.total_tokens - course.schedule.decay_tokens) // course.segments[0].batch_tokens


def _next(
    kind: Kind,
    step: int,
    course: Course,
    at: Callable[[int], bool],
    is_sure: Callable[[int], bool] = lambda later: True,
) -> Iterator[Ahead]:
    """The next of its kind, and the next that is sure to come."""
    is_named = False
    for later in filter(at, range(step + 1, course.num_steps + 1)):
        if is_sure(later):
            yield Ahead(step=later, kind=kind, what=kind)
            return
        if not is_named:
            yield Ahead(step=later, kind=kind, what=f"{kind}, as time allows", as_time_allows=True)
        is_named = True


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
