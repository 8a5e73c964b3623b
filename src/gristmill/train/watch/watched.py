"""What is known of a training while it runs: watching.json says what is measured, metrics.jsonl what was found.

watching.json is written when a training starts and names, for each pack, its group and the score of guessing, for each source, the text that
is scored, where the stages end, and the curve of an earlier run to be held against. Who shows a training reads these two files and no pack.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_log
from gristmill.train.monitor import METRICS
from gristmill.train.outputs import BITS, EVAL, eval_metric, interval_of
from gristmill.written import Written

WATCHING = "watching.json"
REFERENCE_FILES = (METRICS, WATCHING)
ACCURACY, ACCURACY_PER_BYTE, GOLD_BITS = "accuracy", "accuracy_per_byte", "gold_bits_per_byte"
FEWER_IS_BETTER = (BITS, GOLD_BITS)
IN_A_ROW = 3  # intervals above guessing: one of forty is above it by luck
FEWEST_FOR_NOISE = 5  # points of a curve
Z = 1.96
MEDIAN_OF_SQUARE = 0.455  # of a standard normal number


@dataclass(frozen=True, kw_only=True)
class WatchedPack(Written):
    """A pack as training measures it. metric: the one that is shown. items_sha256: of the pack, or of which of its
    items are measured. guessing: the score without knowing anything; None of written answers."""

    name: str
    group: str
    metric: str
    items: int
    items_sha256: str
    guessing: float | None = None
    is_of_letters: bool = False

    @property
    def key(self) -> str:
        """Its metric in the log."""
        return eval_metric(self.metric, self.name)


@dataclass(frozen=True, kw_only=True)
class WatchedText(Written):
    """Held-out text of a source. text_hash: of its beginning and of how much of it is scored, which tells one text from another."""

    source: str
    text_hash: str

    @property
    def key(self) -> str:
        """Its metric in the log."""
        return eval_metric(BITS, self.source)


@dataclass(frozen=True, kw_only=True)
class StageEnd(Written):
    """The last step of a stage, and the tokens up to there."""

    name: str
    step: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Point(Written):
    """A value after so many tokens, with its 95 % interval where there is one."""

    step: int
    tokens: int
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float:
        """Half of the interval; infinite where there is none, for then nothing is known of the noise."""
        return math.inf if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Reference(Written):
    """Curves of an earlier run, by metric. left_out: what of it was measured on other items or text."""

    folder: str
    curves: Mapping[str, Sequence[Point]]
    left_out: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Watched(Written):
    """What a training measures of itself."""

    packs: Sequence[WatchedPack]
    texts: Sequence[WatchedText]
    stage_ends: Sequence[StageEnd]
    reference: Reference | None = None


def read_watched(folder: Path) -> Watched | None:
    """That of a training, begun or finished; None where it has not begun to measure."""
    path = folder / WATCHING
    return Watched.from_json(read_json(path), where=path) if path.is_file() else None


def measured_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training's log that tell what was measured."""
    return [line for line in read_log(folder / METRICS) if line["kind"] == "eval"]


def curve(lines: Iterable[Mapping[str, Any]], key: str) -> list[Point]:
    """The values of a metric in the lines that have one, with their intervals."""
    low, high = interval_of(key)
    return [
        Point(step=line["step"], tokens=line["tokens"], value=line[key], low=line.get(low), high=line.get(high))
        for line in lines
        if line.get(key) is not None
    ]


def left_guessing(points: Sequence[Point], level: float) -> Point | None:
    """The first of IN_A_ROW points whose intervals lie wholly above the score of guessing; None where there are none yet."""
    above = 0
    for number, point in enumerate(points):
        above = above + 1 if point.low is not None and point.low > level else 0
        if above == IN_A_ROW:
            return points[number - IN_A_ROW + 1]
    return None


def reference_of(folder: Path, packs: Sequence[WatchedPack], texts: Sequence[WatchedText]) -> Reference:
    """The curves of an earlier training of what is measured now on the same items and text."""
    lines = measured_lines(folder)
    earlier = read_watched(folder) or Watched(packs=(), texts=(), stage_ends=())
    same_items = {(pack.key, pack.items_sha256, pack.items) for pack in earlier.packs}
    same_text = {(text.key, text.text_hash) for text in earlier.texts}
    comparable = {
        **{pack.key: (pack.key, pack.items_sha256, pack.items) in same_items for pack in packs},
        **{text.key: (text.key, text.text_hash) in same_text for text in texts},
    }
    return Reference(
        folder=str(folder),
        curves={key: found for key, is_same in comparable.items() if is_same and (found := curve(lines, key))},
        left_out=[key.removeprefix(EVAL) for key, is_same in comparable.items() if not is_same],
    )


def band_at(points: Sequence[Point], tokens: int) -> Point | None:
    """What a curve says at a number of tokens, between its points, with the noise of its items and of its checkpoints; None outside of it."""
    for before, after in pairwise(points):
        if before.tokens <= tokens <= after.tokens:
            part = (tokens - before.tokens) / max(1, after.tokens - before.tokens)
            value = before.value + part * (after.value - before.value)
            half = math.hypot(max(before.half, after.half), Z * checkpoint_noise(points))
            return Point(step=before.step, tokens=tokens, value=value, low=value - half, high=value + half)
    return None


def checkpoint_noise(points: Sequence[Point]) -> float:
    """The standard deviation of a curve's points about a smooth line, by the median distance of a point from the line through its neighbours:
    the steep beginning of a curve has no say in it. 0 where there are fewer than FEWEST_FOR_NOISE."""
    if len(points) < FEWEST_FOR_NOISE:
        return 0.0
    squares = []
    for before, point, after in zip(points, points[1:], points[2:]):
        part = (point.tokens - before.tokens) / max(1, after.tokens - before.tokens)
        middle = before.value + part * (after.value - before.value)
        squares.append((point.value - middle) ** 2 / (1 + part**2 + (1 - part) ** 2))  # the neighbours have noise too
    return math.sqrt(median(squares) / MEDIAN_OF_SQUARE)
