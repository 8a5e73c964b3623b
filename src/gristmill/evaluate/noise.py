"""Checkpoint noise: how much neighbouring checkpoints of one training differ for no reason but when they were saved.

    y₁ … yₙ    what was measured on the way, in the last evaluations that read sequences of one length
    eᵢ         yᵢ less the line through yᵢ₋₁ and yᵢ₊₁ over the logarithm of the tokens, divided by the root of 1 + a² + b², where a and b
               are the line's weights of the two
    σ²         the mean of the eᵢ² (Gasser, Sroka and Jennen-Steinmetz 1986)

Over the logarithm of the tokens the trend of a training bends little within three evaluations, so what is left is noise; what it does bend is in σ, which is rather too large
than too small. The eᵢ overlap, so the degrees of freedom are fewer than their number: 1 / tr(Q²), where σ² = yᵀQy and tr(Q) = 1 (Satterthwaite).
Where the rate decays to zero the last checkpoints differ less than those that they are judged by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from gristmill.store.durable import read_json
from gristmill.train.checkpoint import STATE
from gristmill.train.monitor import METRICS
from gristmill.train.outputs import BITS, Pretrained, eval_metric
from gristmill.train.watch.watched import ACCURACY, ACCURACY_PER_BYTE, measured_lines

FEWEST, MOST = 5, 12  # evaluations
WATCHED_AS = {
    BITS: BITS,
    "acc": ACCURACY,
    "acc_bytes": ACCURACY_PER_BYTE,
}  # the metric of a figure → that of the log


@dataclass(frozen=True, kw_only=True)
class Noise:
    """sd: standard deviation of a checkpoint about the trend; degrees: of its square; evaluations: that it rests on."""

    sd: float
    degrees: float
    evaluations: int


@dataclass(frozen=True, kw_only=True)
class Trend:
    """What a training measured on the way, after its first step. lengths: of the sequences that each line read; lines: of its log, in order."""

    lines: Sequence[Mapping[str, float | None]]
    lengths: Sequence[int]

    @classmethod
    def of(cls, folder: Path) -> Trend | None:
        """Of a checkpoint, or of what pretraining left; None for a folder that is neither."""
        if (folder / STATE).is_file():
            segments = read_json(folder / STATE)["prefix"]["segments"]
            begins = [(segment["first_step"], segment["seq_len"]) for segment in segments]
        elif (folder / METRICS).is_file():
            record = Pretrained(folder).record
            begins, step = [], 0
            for stage in record.at("pretrain", "stages"):
                begins.append((step, stage["seq_len"]))
                step += stage["tokens"] // record.at("pretrain", "global_batch_tokens")
        else:
            return None
        lines = [line for line in measured_lines(folder) if line["step"]]
        lengths = [max((first, length) for first, length in begins if first < line["step"])[1] for line in lines]
        return cls(lines=lines, lengths=lengths)

    def values(self, task: str, metric: str) -> tuple[list[float], list[float]]:
        """(tokens, values) of the last evaluations of a task; those before the length of the sequences changed only where that gives enough."""
        name = None if metric not in WATCHED_AS else eval_metric(WATCHED_AS[metric], task)
        found = [
            (length, tokens, value)
            for line, length in zip(self.lines, self.lengths, strict=True)
            if name is not None and (value := line.get(name)) is not None and (tokens := line["tokens"]) is not None
        ]
        groups = list(_of_one_length(found))[::-1]
        chosen = next((group for group in groups if len(group) >= FEWEST), groups[0] if groups else [])[-MOST:]
        return [tokens for _, tokens, _ in chosen], [value for _, _, value in chosen]

    def noise(self, task: str, metric: str) -> Noise | int:
        """The noise on a task, or how many evaluations there are where that is too few."""
        tokens, values = self.values(task, metric)
        return noise_of(tokens, values) if len(values) >= FEWEST else len(values)


def of_one_training(trends: Sequence[Trend | None]) -> list[Trend | None]:
    """The trends of two sides; where the lines of one are the first of the other's, both are that of the longer, which is one estimate of the
    noise of both: two of the same lines would count them twice."""
    known = [one for one in trends if one is not None]
    longest = max(known, key=lambda one: len(one.lines), default=None)
    if longest is None or not all(one.lines and one.lines == longest.lines[: len(one.lines)] for one in known):
        return list(trends)
    return [None if one is None else longest for one in trends]


def noise_of(tokens: Sequence[float], values: Sequence[float]) -> Noise:
    """That of measurements at these numbers of tokens, three at least, all above 0, different and in order."""
    x_N, y_N = np.log(np.asarray(tokens, dtype=np.float64)), np.asarray(values, dtype=np.float64)
    a_M = (x_N[2:] - x_N[1:-1]) / (x_N[2:] - x_N[:-2])
    weights_MN = np.zeros((len(a_M), len(x_N)))
    rows_M = np.arange(len(a_M))
    weights_MN[rows_M, rows_M], weights_MN[rows_M, rows_M + 1], weights_MN[rows_M, rows_M + 2] = -a_M, 1, a_M - 1
    weights_MN /= np.sqrt((weights_MN**2).sum(axis=1, keepdims=True) * len(a_M))
    gram_MM = weights_MN @ weights_MN.T  # has the eigenvalues of Q
    return Noise(
        sd=float(np.linalg.norm(weights_MN @ y_N)),
        degrees=float(1 / (gram_MM**2).sum()),
        evaluations=len(x_N),
    )


def noise_of_difference(sides: Sequence[Noise | None], *, confidence: float = 0.95) -> float | None:
    """What two checkpoints differ by at most, in 95 of 100 cases, where nothing but noise makes them differ; None where it is known of neither.

    The variances of both sides add up, their degrees of freedom by Welch. A side whose noise is not known is taken to have that of the
    other: the variance is twice the known one, which is one estimate still, so its degrees of freedom stay. Likewise where both rest on
    the log of one training.
    """
    known = [noise for noise in sides if noise is not None]
    if not known:
        return None
    estimates = list(dict.fromkeys(known))
    variance = sum(noise.sd**2 for noise in estimates)
    if not variance:
        return 0.0
    degrees = variance**2 / sum(noise.sd**4 / noise.degrees for noise in estimates)
    return float(stdtrit(degrees, 0.5 + confidence / 2)) * math.sqrt(variance * len(sides) / len(estimates))


def _of_one_length(
    found: Sequence[tuple[int, float, float]],
) -> Iterator[list[tuple[int, float, float]]]:
    """Runs of evaluations that read sequences of one length."""
    begin = 0
    for end in range(1, len(found) + 1):
        if end == len(found) or found[end][0] != found[begin][0]:
            yield list(found[begin:end])
            begin = end
