"""What looks wrong in a pretraining, in words: by its log, its events, its ledger, and never by a model.

Each finding has a kind, which is stable, and a sentence. Whatever is judged by a test is judged at 5 % for all sources together, so that
a person who looks often is not alarmed by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_low
from typing import Any, Literal

from gristmill.planning.budget import epoch_verdict
from gristmill.recipe.schema.training import Pretrain
from gristmill.train.events import AnyEvent, NotFiniteEvent, SpikeEvent
from gristmill.train.outputs import BITS, WATCHING_SECONDS, eval_metric, train_metric
from gristmill.train.stability import WINDOW_STEPS
from gristmill.train.standing.ledger import Ledger, LedgerRow
from gristmill.train.standing.trend import NEWEST, trend
from gristmill.train.watch.pace import FREE_SECONDS, NO_LIMIT
from gristmill.units import counted, percent, scale, seconds

Kind = Literal[
    "not_finite",
    "spikes",
    "worse_than_guessing",
    "held_out_rises",
    "over_cap",
    "read_often",
    "slow",
    "waits_for_data",
    "watches_too_long",
]
ERROR = 0.05  # of a false alarm, over all sources together
NEWEST_LINES = 5
USUAL_LINES = 20  # of the log, from which on a usual speed is known
SLOW = 0.6  # of the usual speed
MOST_WAITING = 0.05  # of the time of steps


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that looks wrong."""

    kind: Kind
    what: str


def findings(
    *,
    pretrain: Pretrain,
    step: int,
    lines: Sequence[Mapping[str, Any]],
    events: Sequence[AnyEvent],
    sources: Sequence[str],
    vocab_size: int,
    ledger: Ledger,
    rows: Sequence[LedgerRow],
) -> list[Finding]:
    """After `step` steps. lines: of the metrics log up to there. rows: of the ledger, at the step. sources: that have held-out text."""
    train = [line for line in lines if line["kind"] == "train"]
    return [
        *_not_finite(events),
        *_spikes(events, step),
        *_guessing(pretrain, train, vocab_size),
        *held_out_rises(lines, sources),
        *_read_often(ledger, rows, step),
        *_slow(train),
        *_watching(ledger, step, lines),
    ]


def _not_finite(events: Sequence[AnyEvent]) -> Iterator[Finding]:
    found = [event.step for event in events if isinstance(event, NotFiniteEvent)]
    if found:
        words = f"loss or gradient not finite in {counted(len(found), 'step')}, last in step {found[-1]:,}; the updates were skipped"
        yield Finding(kind="not_finite", what=words)


def _spikes(events: Sequence[AnyEvent], step: int) -> Iterator[Finding]:
    found = [event for event in events if isinstance(event, SpikeEvent) and event.step > step - WINDOW_STEPS]
    if found:
        words = f"{counted(len(found), 'spike')} in the last {WINDOW_STEPS} steps, the last in step {found[-1].step:,}"
        yield Finding(kind="spikes", what=words)


def _guessing(pretrain: Pretrain, train: Sequence[Mapping[str, Any]], vocab_size: int) -> Iterator[Finding]:
    """Beyond the warm-up a loss above that of a uniform guess is no beginning any more."""
    loss = train[-1].get(train_metric("loss")) if train else None
    if loss is not None and train[-1]["tokens"] > pretrain.warmup_tokens and loss > math.log(vocab_size):
        words = f"the training loss is {loss:.3g}; guessing evenly among {vocab_size:,} tokens has {math.log(vocab_size):.3g}"
        yield Finding(kind="worse_than_guessing", what=words)


def held_out_rises(lines: Sequence[Mapping[str, Any]], sources: Sequence[str]) -> Iterator[Finding]:
    """Sources whose held-out text is predicted worse and worse while their training text is predicted better and better, each by more
    than the noise: what was learnt there is learnt by heart."""
    confidence = 1 - 2 * ERROR / max(
        1, len(sources)
    )  # one-sided; both have to hold, of which the first alone keeps to the error
    for source in sources:
        held_out = _points(lines, "eval", eval_metric(BITS, source))[-NEWEST:]
        if not held_out:
            continue
        rise = trend(source, held_out, confidence=confidence)
        loss = [
            point for point in _points(lines, "train", train_metric("loss", source)) if point[0] > rise.since_tokens
        ]
        if rise.direction != "rises" or rise.change is None or not loss:
            continue
        if trend(source, loss, newest=len(loss), confidence=confidence).direction == "falls":
            words = (
                f"{source}: held-out text rises by {rise.change:.3f} bits per byte over the last {scale(rise.tokens - rise.since_tokens)} "
                "tokens while the training loss falls, both beyond the noise"
            )
            yield Finding(kind="held_out_rises", what=words)


def _points(lines: Sequence[Mapping[str, Any]], kind: str, metric: str) -> list[tuple[int, float]]:
    """(tokens, value) wherever it was measured, without the first model's."""
    return [
        (line["tokens"], value)
        for line in lines
        if line["kind"] == kind and line["step"] and (value := line.get(metric)) is not None
    ]


def _read_often(ledger: Ledger, rows: Sequence[LedgerRow], step: int) -> Iterator[Finding]:
    """Selections that are read beyond their cap by the end, and those that are read more often than pays."""
    for row in rows:
        allowed = row.selection.source in ledger.pretrain.allow_epochs
        verdict = epoch_verdict(
            row.final_epochs, warn_epochs=row.warn_epochs, max_epochs=row.max_epochs, is_allowed=allowed
        )
        if verdict not in ("too many", "repeated"):
            continue
        limit = row.max_epochs if verdict == "too many" else row.warn_epochs
        beyond = ledger.step_beyond(row.selection, limit)
        assert beyond is not None, row
        when = f"since step {beyond:,}" if beyond <= step else f"from step {beyond:,} on"
        is_cap = "its cap" if verdict == "too many" else "what repeating is known to pay for"
        yield Finding(
            kind="over_cap" if verdict == "too many" else "read_often",
            what=f"{row.selection} is read {row.final_epochs:.2f} times, beyond {is_cap} ({limit:g}) {when}",
        )


def _slow(train: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    newest = train[-NEWEST_LINES:]
    speeds = [speed for line in train if (speed := line.get("throughput/tok_per_sec"))]
    if len(speeds) >= USUAL_LINES:
        now, usual = median(speeds[-NEWEST_LINES:]), median(speeds)
        if now < SLOW * usual:
            words = f"{now:,.0f} tokens/s are {now / usual:.0%} of what is usual in this training ({usual:,.0f}); the machine may be busy"
            yield Finding(kind="slow", what=words)
    waits = [wait for line in newest if (wait := line.get("throughput/data_wait_frac")) is not None]
    if waits and median(waits) > MOST_WAITING:
        words = f"steps wait {percent(median(waits))} of their time for data; the disk may be slow"
        yield Finding(kind="waits_for_data", what=words)


def _watching(ledger: Ledger, step: int, lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Measurements that took more already than all of them may take of a training at the speed so far, where the stage ends to come take
    more than the rest of it allows, too: what lies between them is passed over by then (watch/pace.py), so a measurement that took long
    once is made up for."""
    speeds = [speed for line in lines if (speed := line.get("throughput/tok_per_sec"))]
    pretrain, course = ledger.pretrain, ledger.course
    ends = [segment.last_step for segment in course.segments]
    took = {line["step"]: line[WATCHING_SECONDS] for line in lines if WATCHING_SECONDS in line}
    in_full = [spent for at, spent in took.items() if at in (0, *ends)]
    share, to_come = pretrain.watch.max_share, sum(end > step for end in ends)
    if not speeds or not in_full or share >= NO_LIMIT:
        return
    step_seconds = pretrain.global_batch_tokens / median(speeds)
    spent, more = sum(took.values()), to_come * median_low(in_full)
    allowed, allowed_more = (
        max(FREE_SECONDS, share * step_seconds * steps) for steps in (course.num_steps, course.num_steps - step)
    )
    if spent > allowed and more > allowed_more:
        words = (
            f"measuring took {seconds(spent)} by step {step:,}; pretrain.watch.max_share allows {percent(share)} of the time of all steps, "
            f"{seconds(allowed)}, and {counted(to_come, 'stage end')} to come take about {seconds(more)} more. Stage ends are always "
            "measured: score fewer items there, or allow more"
        )
        yield Finding(kind="watches_too_long", what=words)
