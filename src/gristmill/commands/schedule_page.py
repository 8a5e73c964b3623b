"""The schedule of a pretraining on a terminal: the rate as a picture over the stages, and what each stage draws."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console
from rich.text import Text

from gristmill.forecast import Forecast
from gristmill.train.course import Course, course_of
from gristmill.units import scale

BLOCKS = " ▁▂▃▄▅▆▇█"
ROWS = 3  # of the picture
MOST_COLUMNS = 96
SHAPES = {"linear": "linear to zero", "one_minus_sqrt": "1 − √ to zero"}


def print_schedule(plan: Forecast, console: Console) -> None:
    """Budget and phases, the picture, then each stage with the share of its sources and how often they are read by its end."""
    section = plan.recipe.pretrain
    course = course_of(section, rope_theta=plan.recipe.model.rope_theta)
    console.print(Text("\nschedule", style="bold"))
    phases = " → ".join(f"{phase.name} {scale(phase.tokens)} ({phase.steps:,.0f} steps)" for phase in plan.phases)
    lines = [
        f"{scale(section.total_tokens)} tokens in {sum(plan.stage_steps):,} steps of {section.global_batch_tokens:,}",
        f"learning rate {section.optimizer.peak_lr:g}: {phases}, {SHAPES[section.decay_shape]}",
        *picture(course, [stage.name for stage in section.stages], columns=min(MOST_COLUMNS, console.width - 12)),
    ]
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
    console.print(
        Text("  stages, with the share of each source, and in brackets how often it is read by their end:"),
        soft_wrap=True,
    )
    for index, (stage, segment) in enumerate(zip(section.stages, course.segments)):
        words = (
            f"{stage.name}: steps {segment.first_step + 1:,} to {segment.last_step:,}, sequences of {stage.seq_len:,}, "
            f"RoPE base {segment.rope_theta:,.0f}"
        )
        console.print(Text(f"  {words}"), soft_wrap=True)
        for line in _in_lines(_drawn(plan, index), console.width - 4):
            console.print(Text(f"    {line}"), soft_wrap=True)


def picture(course: Course, names: Sequence[str], *, columns: int) -> list[str]:
    """The rate of each step as bars, the peak as high as all rows, over an axis that names the stages where they have the room.

    A bar stands for the step in the middle of its part of the run.
    """
    steps, top = course.num_steps, max(peak.peak_lr for peak in course.peaks)
    columns = max(1, min(columns, steps))
    rates = [course.lr_of_step(int((column + 0.5) * steps / columns)) for column in range(columns)]
    heights = [round(rate / top * ROWS * (len(BLOCKS) - 1)) for rate in rates]
    label = f"{top:g}"
    rows = []
    for row in reversed(range(ROWS)):
        bars = "".join(BLOCKS[min(8, max(0, height - 8 * row))] for height in heights)
        rows.append(f"{label if row == ROWS - 1 else '':>8} ┤{bars}".rstrip())
    begins = [round(segment.first_step * columns / steps) for segment in course.segments]
    axis = ["─"] * columns
    words = [" "] * columns
    for name, (begin, end) in zip(names, pairwise([*begins, columns]), strict=True):
        axis[min(begin, columns - 1)] = "┬"
        is_last = end == columns
        start = max(0, min(begin, columns - len(name))) if is_last else begin  # the last name ends with the axis
        room = words[max(0, start - 1) : start + len(name)]
        if len(name) < end - start + is_last and set(room) == {" "}:
            words[start : start + len(name)] = name
    return [*rows, f"{'0':>8} └{''.join(axis)}", f"{'':>10}{''.join(words)}".rstrip()]


def _drawn(plan: Forecast, index: int) -> list[str]:
    """What a stage draws: of each selection its share, and how often it is read by the end of the stage."""
    stage = plan.recipe.pretrain.stages[index]
    parts = []
    for row in plan.budget:
        if row.asked_tokens[index]:
            epochs = f" ({'≥ ' if row.is_lower_bound else ''}{row.epochs[index]:.2f})" if row.epochs else ""
            parts.append(f"{row.selection} {100 * row.asked_tokens[index] / stage.tokens:.3g}%{epochs}")
    return parts


def _in_lines(parts: Sequence[str], width: int) -> list[str]:
    """The parts with commas between them, broken at parts only."""
    lines = [""]
    for index, part in enumerate(parts):
        part += "," if index + 1 < len(parts) else ""
        if lines[-1] and len(lines[-1]) + 1 + len(part) > width:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}".strip()
    return lines
