"""What evaluate leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gristmill.graph.outputs import File, Outputs
from gristmill.store.durable import read_json
from gristmill.written import Written

YARDSTICK = "xz"  # listed as one of the models
Verdict = Literal["better", "worse", "no evidence either way", "at or below chance, no verdict"]


@dataclass(frozen=True, kw_only=True)
class Figure(Written):
    """One score of one model, a row of results.json.

    kind "recall": the items were trained on. stderr and interval are None where one item, or a compressor, has none.
    engine, prompting: how a pack was asked; too_long: questions that did not fit the context. degrees, num_bytes, window: of
    held-out text. training_bytes: what the yardstick was primed with, of all_training_bytes.
    """

    model: str
    task: str
    metric: str
    value: float
    stderr: float | None
    interval: tuple[float, float] | None
    n: int
    chance: float | None
    at_or_below_chance: bool
    kind: Literal["held_out", "recall"]
    pack_sha256: str | None
    versions: Mapping[str, str | None]
    engine: str | None = None
    prompting: str | None = None
    too_long: int | None = None
    degrees: float | None = None
    num_bytes: int | None = None
    window: int | None = None
    training_bytes: int | None = None
    all_training_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison(Written):
    """Model a against the earlier b on the same items, a row of comparisons.json. p_adjusted: Holm over all rows."""

    a: str
    b: str
    task: str
    metric: str
    difference: float
    stderr: float | None
    degrees: float
    interval: tuple[float, float] | None
    n: int
    prompting: tuple[str | None, str | None]
    p_value: float
    p_adjusted: float
    verdict: Verdict

    @property
    def decides(self) -> bool:
        """Whether it tells the two models apart."""
        return self.verdict in ("better", "worse")


class Evaluated(Outputs):
    """Scores with their intervals, paired comparisons, and every item that was asked."""

    results = File("results.json")
    comparisons = File("comparisons.json")
    items = File("items", covers=("items/*",))
    models = File("models", covers=("models/*",), notes=True)

    @property
    def figures(self) -> list[Figure]:
        """The rows of results.json."""
        return [Figure.from_json(row, where=self.results) for row in read_json(self.results)]

    def scores_of(self, model: str) -> dict[str, Any]:
        """Task → scores of its items, or bits of its documents and their bytes, in order."""
        return dict(read_json(self.models / f"{model}.json")["scores"])

    @property
    def differences(self) -> list[Comparison]:
        """The rows of comparisons.json."""
        return [Comparison.from_json(row, where=self.comparisons) for row in read_json(self.comparisons)]
