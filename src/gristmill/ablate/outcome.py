"""The outcome of an ablation: each arm against the control on the endpoint, then on everything else that was measured.

    endpoint    declared beforehand; Holm over the arms; only it gives the verdict
    others      packs and held-out text of other sources; Holm over all of them and all arms
    groups      packs about one thing, such as maths or code, as one task; Holm over all of them: where candidates complement each other

Below FEWEST_SEEDS seeds or FEWEST_ITEMS effective documents of the endpoint nothing is decided, and what would be needed is said. Each look
at the data before the last counts: where seeds were added afterwards, p-values of look k are multiplied by k(k + 1) / 2. Whoever looks after
every seed and stops at the first verdict is then wrong as often as who looks once; multiplied by k, 1.7 times as often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from gristmill.ablate.effect import FEWEST_ITEMS, FEWEST_SEEDS, Effect, FloatArray, effect, run_scores, seed_noise
from gristmill.evaluate.compare import LEVEL, ItemScores
from gristmill.select.words import Int64
from gristmill.statistics import holm, sums_by_cluster
from gristmill.train.outputs import BITS
from gristmill.units import counted
from gristmill.written import Written

Verdict = Literal["better", "worse", "no evidence either way", "cannot tell", "at or below chance, no verdict"]
DECIDED: tuple[Verdict, ...] = ("better", "worse")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One task in all runs. scores_ASI: arm, seed, item; sizes_I: bytes, or how many questions. is_at_chance: no run is above guessing.

    An item is what is drawn at random: a text with all of its documents, a passage with all of its questions.
    """

    task: str
    metric: str
    scores_ASI: FloatArray
    sizes_I: FloatArray
    is_at_chance: bool


@dataclass(frozen=True, kw_only=True)
class ArmScore(Written):
    """The score of an arm on a task: the mean over its seeds, and each seed's."""

    arm: str
    task: str
    metric: str
    value: float
    of_seeds: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class ArmEffect(Written):
    """An arm less another on a task. seed_stderr, item_stderr: the two parts of stderr; smallest: what is found four times in five.

    p_adjusted: Holm's over its family. needs: what a verdict would take, where there is none for want of it.
    """

    arm: str
    other: str
    task: str
    metric: str
    difference: float
    stderr: float | None
    degrees: float
    interval: tuple[float, float] | None
    seed_stderr: float | None
    item_stderr: float | None
    seeds: int
    items: int
    effective_items: float
    p_value: float
    p_adjusted: float
    smallest: float | None
    verdict: Verdict
    needs: str | None = None


@dataclass(frozen=True, kw_only=True)
class Noise(Written):
    """A/A: what two runs of one arm differ by on the endpoint. sd: of a run; largest: the largest difference that was seen."""

    sd: float
    degrees: int
    largest: float


@dataclass(frozen=True, kw_only=True)
class Outcome(Written):
    """Of an ablation. endpoint: against the control; between: candidates against each other on the endpoint; others: other tasks; groups:
    packs about one thing together."""

    endpoint_task: str
    scores: Sequence[ArmScore]
    endpoint: Sequence[ArmEffect]
    between: Sequence[ArmEffect]
    others: Sequence[ArmEffect]
    noise: Noise | None
    looks: int
    groups: Sequence[ArmEffect] = ()

    @property
    def best(self) -> ArmEffect | None:
        """The arm with the best score of those that are better than the control; None where none is."""
        better = [row for row in self.endpoint if row.verdict == "better"]
        return min(better, key=lambda row: row.difference, default=None)


def outcome_of(
    arms: Sequence[str],
    measured: Sequence[Measured],
    *,
    endpoint: str,
    groups: Sequence[Measured] = (),
    looks: int = 1,
) -> Outcome:
    """What the runs say. arms: by name, the control first, in the order of the scores. groups: of tasks, see groups.py."""
    [judged] = [one for one in measured if one.task == endpoint]
    others = [one for one in measured if one is not judged]
    against_control = [(arm, 0) for arm in range(1, len(arms))]
    pairs = list(combinations(range(1, len(arms)), 2))
    noise = seed_noise(judged.scores_ASI, judged.sizes_I)
    return Outcome(
        endpoint_task=endpoint,
        scores=[_score(arms[arm], one, arm) for one in measured for arm in range(len(arms))],
        endpoint=_family(arms, [(judged, *pair) for pair in against_control], looks=looks),
        between=_family(arms, [(judged, later, earlier) for earlier, later in pairs], looks=looks),
        others=_family(arms, [(one, *pair) for one in others for pair in against_control], looks=looks),
        noise=None if noise is None else Noise(sd=noise.sd, degrees=noise.degrees, largest=_largest_apart(judged)),
        looks=looks,
        groups=_family(arms, [(one, *pair) for one in groups for pair in against_control], looks=looks),
    )


def measured_of(
    task: str,
    runs_AS: Sequence[Sequence[Mapping[str, ItemScores]]],
    *,
    metric: str,
    is_at_chance: bool,
    draw_D: Int64 | None = None,
) -> Measured:
    """One task out of the scores of all runs, which were asked the same items. Raises ValueError where they were not.

    draw_D: of held-out text, which documents are one draw (draws.py), for as many documents as were measured or more; None for a pack, whose
    scores say which questions are about one passage.
    """
    found = [[run[task] for run in seeds] for seeds in runs_AS]
    first = found[0][0]
    for one in (one for seeds in found for one in seeds):
        if one["sizes"] != first["sizes"] or len(one["amounts"]) != len(first["amounts"]):
            raise ValueError(f"runs were measured on different items of {task}")
    scores = np.array([[one["amounts"] for one in seeds] for seeds in found], dtype=np.float64)
    sizes = np.ones(scores.shape[2]) if first["sizes"] is None else np.array(first["sizes"], dtype=np.float64)
    clusters = first.get("clusters") if draw_D is None else draw_D[: scores.shape[2]]
    if clusters is not None:
        scores = np.apply_along_axis(sums_by_cluster, 2, scores, clusters)
        sizes = sums_by_cluster(sizes, clusters)
    return Measured(task=task, metric=metric, scores_ASI=scores, sizes_I=sizes, is_at_chance=is_at_chance)


def in_words(row: ArmEffect) -> str:
    """What a row says, in a sentence."""
    what = f"{row.arm} against {row.other} on {row.task}"
    if row.verdict in DECIDED and row.interval is not None:
        low, high = sorted(map(abs, row.interval))
        return f"{what}: {row.verdict}, by {abs(row.difference):.4f} ({low:.4f} to {high:.4f}) {unit_of(row.metric)}."
    if row.verdict == "cannot tell":
        return f"{what}: cannot tell; {row.needs}."
    if row.verdict == "at or below chance, no verdict":
        return f"{what}: no arm is above guessing, so nothing is decided."
    if row.smallest is None:
        return f"{what}: cannot tell."
    return f"{what}: no evidence either way; a difference of {row.smallest:.4f} {unit_of(row.metric)} is found four times in five."


def unit_of(metric: str) -> str:
    """What a metric counts, in words."""
    return "bits per byte" if metric == BITS else metric.replace("_", " ")


def _family(arms: Sequence[str], asked: Sequence[tuple[Measured, int, int]], *, looks: int) -> list[ArmEffect]:
    """Comparisons that share one level, of which look k has a share of 2 / k(k + 1)."""
    times = looks * (looks + 1) // 2
    found = [effect(one.scores_ASI, one.sizes_I, arm, other) for one, arm, other in asked]
    p_values = [min(1.0, one.p_value * times) for one in found]
    return [
        _row(arms[arm], arms[other], one, that, p_value, p_adjusted, comparisons=len(asked) * times)
        for (one, arm, other), that, p_value, p_adjusted in zip(asked, found, p_values, holm(p_values), strict=True)
    ]


def _row(
    arm: str, other: str, measured: Measured, found: Effect, p_value: float, p_adjusted: float, *, comparisons: int
) -> ArmEffect:
    verdict: Verdict = "no evidence either way"
    if not found.is_measurable:
        verdict = "cannot tell"
    elif measured.is_at_chance:
        verdict = "at or below chance, no verdict"
    elif p_adjusted < LEVEL:
        verdict = "better" if (found.value > 0) == (measured.metric != BITS) else "worse"
    return ArmEffect(
        arm=arm,
        other=other,
        task=measured.task,
        metric=measured.metric,
        difference=found.value,
        stderr=_finite(found.stderr),
        degrees=found.degrees,
        interval=(found.low, found.high) if math.isfinite(found.low) else None,
        seed_stderr=_finite(found.seed_stderr),
        item_stderr=_finite(found.item_stderr),
        seeds=found.num_seeds,
        items=found.num_items,
        effective_items=found.effective_items,
        p_value=p_value,
        p_adjusted=p_adjusted,
        smallest=found.detectable(comparisons=comparisons),
        verdict=verdict,
        needs=verdict_needs(found.num_seeds, found.num_items, found.effective_items)
        if verdict == "cannot tell"
        else None,
    )


def verdict_needs(num_seeds: int, num_items: int, effective_items: float) -> str | None:
    """What is too few for any verdict, in words; None where nothing is."""
    wants = []
    if num_seeds < FEWEST_SEEDS:
        wants.append(f"{FEWEST_SEEDS} seeds or more (there are {num_seeds})")
    if effective_items < FEWEST_ITEMS:
        wants.append(
            f"items worth {FEWEST_ITEMS:g} of equal size or more (found: {counted(num_items, 'item')}, worth {effective_items:.1f})"
        )
    return f"a verdict needs {' and '.join(wants)}" if wants else None


def _score(arm: str, measured: Measured, number: int) -> ArmScore:
    of_seeds = run_scores(measured.scores_ASI, measured.sizes_I)[number].tolist()
    value = sum(of_seeds) / len(of_seeds)
    return ArmScore(arm=arm, task=measured.task, metric=measured.metric, value=value, of_seeds=of_seeds)


def _largest_apart(measured: Measured) -> float:
    runs_AS = run_scores(measured.scores_ASI, measured.sizes_I)
    return float((runs_AS.max(axis=1) - runs_AS.min(axis=1)).max())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
