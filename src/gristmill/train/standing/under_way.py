"""A pretraining as it stands after some step: its ledger, where measurements are going, what comes next, what looks wrong.

By the recipe, the token shards and the logs; no tensor is read. `gristmill status` tells it and the report page shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.jsonl import read_log
from gristmill.train.events import EVENTS, read_events
from gristmill.train.monitor import METRICS
from gristmill.train.order import Order
from gristmill.train.standing.ahead import Ahead, ahead
from gristmill.train.standing.ledger import Ledger, LedgerRow
from gristmill.train.standing.trend import Trend, trends
from gristmill.train.standing.wrong import NEWEST_LINES, Finding, findings


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """step: steps done, of num_steps; tokens: trained on by then. step_seconds: about what a step takes now; None before the log says."""

    step: int
    num_steps: int
    tokens: int
    total_tokens: int
    stage: str
    stage_names: tuple[str, ...]
    step_seconds: float | None
    budget: tuple[LedgerRow, ...]
    measured: tuple[Trend, ...]
    ahead: tuple[Ahead, ...]
    wrong: tuple[Finding, ...]

    @classmethod
    def of(cls, recipe: Recipe, tokens: Path, log: Path | None, *, step: int) -> UnderWay:
        """recipe: as it became. tokens: the folder that tokenize left. log: that of the training; None before it began. step: done; what
        the log has of later ones is of no account, for they are trained again."""
        order = Order(recipe=recipe, tokens=tokens)
        course, pretrain = order.course, recipe.pretrain
        lines = [line for line in (read_log(log / METRICS) if log else []) if line["step"] <= step]
        events = [event for event in (read_events(log / EVENTS) if log else []) if event.step <= step]
        ledger = Ledger(course=course, stream=order.stream, pretrain=pretrain)
        rows = ledger.rows(step)
        return cls(
            step=step,
            num_steps=course.num_steps,
            tokens=course.tokens_done(step),
            total_tokens=course.total_tokens,
            stage=order.stage_name(min(step, course.num_steps - 1)),
            stage_names=tuple(stage.name for stage in pretrain.stages),
            step_seconds=_step_seconds(lines, pretrain.global_batch_tokens),
            budget=tuple(rows),
            measured=tuple(one for one in trends(lines) if one.metric.split("/")[1] not in recipe.locked_packs),
            ahead=tuple(ahead(course, pretrain, step)),
            wrong=tuple(
                findings(
                    pretrain=pretrain,
                    step=step,
                    lines=lines,
                    events=events,
                    sources=list(recipe.sources),
                    vocab_size=next(iter(order.shards.values())).facts.vocab_size,
                    ledger=ledger,
                    rows=rows,
                )
            ),
        )


def _step_seconds(lines: Sequence[Mapping[str, Any]], batch_tokens: int) -> float | None:
    """By the speed of the newest lines of the log."""
    speeds = [speed for line in lines[-2 * NEWEST_LINES :] if (speed := line.get("throughput/tok_per_sec"))]
    return batch_tokens / median(speeds) if speeds else None
