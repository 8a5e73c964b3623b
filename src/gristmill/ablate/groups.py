"""Groups of benchmarks in an ablation: all packs about one thing as a single task, in which each pack weighs as much as another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gristmill.ablate.design import Design
from gristmill.ablate.outcome import Measured
from gristmill.data.outside import absolute
from gristmill.data.packs import group_of


def groups_of(design: Design) -> dict[str, str]:
    """The group of each pack that the arms are measured on, by the pack's name."""
    loaded = design.trials[0].loaded
    packs = loaded.recipe.packs
    return {name: group_of(absolute(loaded.folder, packs[name].path), name) for name in loaded.recipe.evaluate.packs}


def grouped(measured: Sequence[Measured], groups: Mapping[str, str]) -> list[Measured]:
    """The tasks that have a group, one for each group, its score the mean of theirs. groups: task → group.

    What arms differ by on one pack and not on another is noise of the items of the group: a group stands for more packs than these.
    """
    members: dict[str, list[Measured]] = {}
    for one in measured:
        if one.task in groups:
            members.setdefault(groups[one.task], []).append(one)
    return [_together(group, tasks) for group, tasks in members.items()]


def _together(group: str, tasks: Sequence[Measured]) -> Measured:
    weighed = [
        replace(one, scores_ASI=one.scores_ASI / one.sizes_I.sum(), sizes_I=one.sizes_I / one.sizes_I.sum())
        for one in tasks
    ]
    metrics = {one.metric for one in tasks}
    return Measured(
        task=group,
        metric=metrics.pop() if len(metrics) == 1 else "score",
        scores_ASI=np.concatenate([one.scores_ASI for one in weighed], axis=2),
        sizes_I=np.concatenate([one.sizes_I for one in weighed]),
        is_at_chance=all(one.is_at_chance for one in tasks),
    )
