"""Each thing that can look wrong, planted; and a sound training, in which nothing does."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from course_recipes import T, base
from ledgers import ledger_of, write_shards

from gristmill.tokens.shards import TokenShard
from gristmill.train.events import AnyEvent, Judged, NotFiniteEvent, SpikeEvent
from gristmill.train.outputs import WATCHING_SECONDS
from gristmill.train.standing.wrong import Finding, findings, held_out_rises

SOURCES = ("web", "code")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenShard]:
    return write_shards(tmp_path_factory.mktemp("shards"))


def log(
    *, held_out: float = -0.3, loss: float = -0.5, scatter: float = 0.01, seed: int = 0, speed: float = 1000.0
) -> list[dict[str, Any]]:
    """Forty lines of training and ten measurements; of web, held-out bits and loss change by so much from the first to the last."""
    draw, lines = np.random.default_rng(seed), list[dict[str, Any]]()
    for number in range(1, 41):
        share = number / 40
        values = {
            f"train/{name}/loss": 3 + (loss if name == "web" else -0.5) * share + draw.normal(0, scatter)
            for name in SOURCES
        }
        values |= {"train/loss": 3.0 + loss * share, "throughput/tok_per_sec": speed, "throughput/data_wait_frac": 0.0}
        lines.append({"step": number, "tokens": number * T, "kind": "train", **values})
        if number % 4 == 0:
            bits = {
                f"eval/{name}/bits_per_byte": 2
                + (held_out if name == "web" else -0.3) * share
                + draw.normal(0, scatter)
                for name in SOURCES
            }
            lines.append({"step": number, "tokens": number * T, "kind": "eval", **bits})
    return lines


def found(
    shards: dict[str, TokenShard],
    lines: list[dict[str, Any]],
    *,
    events: tuple[AnyEvent, ...] = (),
    step: int = 15,
    vocab_size: int = 1000,
    **pretrain: Any,
) -> list[Finding]:
    ledger = ledger_of(base() | {"max_epochs": 99.0, "warn_epochs": 98.0} | pretrain, shards)
    return findings(
        pretrain=ledger.pretrain,
        step=step,
        lines=lines,
        events=events,
        sources=SOURCES,
        vocab_size=vocab_size,
        ledger=ledger,
        rows=ledger.rows(step),
    )


def test_nothing_looks_wrong_in_a_sound_training(shards: dict[str, TokenShard]) -> None:
    assert found(shards, log()) == []
    assert found(shards, []) == []


def test_held_out_text_that_rises_while_training_falls_is_told_and_neither_without_the_other() -> None:
    (finding,) = held_out_rises(log(held_out=0.2), SOURCES)
    assert finding.kind == "held_out_rises"
    assert finding.what.startswith("web: held-out text rises by 0.1")
    assert list(held_out_rises(log(held_out=0.2, loss=0.5), SOURCES)) == []
    assert list(held_out_rises(log(held_out=0.0), SOURCES)) == []
    assert list(held_out_rises(log(held_out=0.01, scatter=0.05), SOURCES)) == []


def test_by_chance_it_is_told_in_five_of_a_hundred_trainings() -> None:
    told = [any(held_out_rises(log(held_out=0.0, seed=seed), ("web",))) for seed in range(1500)]
    assert 0.035 < np.mean(told) < 0.065


def test_by_chance_it_is_told_as_seldom_where_several_sources_are_looked_at() -> None:
    def flat(seed: int) -> list[dict[str, Any]]:
        """Held-out text of no source rises or falls, each with scatter of its own."""
        lines = log(held_out=0.0, seed=3 * seed)
        for other, name in enumerate(SOURCES[1:], start=1):
            for line, drawn in zip(lines, log(held_out=0.0, seed=3 * seed + other), strict=True):
                line |= {key.replace("/web/", f"/{name}/"): value for key, value in drawn.items() if "/web/" in key}
        return lines

    told = [any(held_out_rises(flat(seed), SOURCES)) for seed in range(400)]
    assert 0.02 < np.mean(told) < 0.08


def test_steps_without_a_finite_loss_and_new_spikes_are_counted(shards: dict[str, TokenShard]) -> None:
    lost = NotFiniteEvent.of(math.nan, 1.0, step=7, tokens=7 * T, text=None)
    spike = SpikeEvent(
        step=9, tokens=9 * T, exceeding=("loss",), quantities={"loss": Judged(value=9.0)}, applied=True, text=None
    )
    words = [finding.what for finding in found(shards, log(), events=(lost, replace(lost, step=8), spike))]
    assert words == [
        "loss or gradient not finite in 2 steps, last in step 8; the updates were skipped",
        "1 spike in the last 128 steps, the last in step 9",
    ]
    assert found(shards, log(), events=(replace(spike, step=9),), step=15)
    old = replace(spike, step=-113)  # 128 steps before step 15
    assert found(shards, log(), events=(old,)) == []


def test_a_loss_above_guessing_is_told_once_the_warm_up_is_over(shards: dict[str, TokenShard]) -> None:
    lines = log()
    assert [one.kind for one in found(shards, lines, vocab_size=10)] == ["worse_than_guessing"]
    assert found(shards, lines[:2], vocab_size=10) == []


@pytest.mark.parametrize(("cap", "kind"), [("max_epochs", "over_cap"), ("warn_epochs", "read_often")])
def test_a_source_that_is_read_too_often_is_told_with_the_step_from_which_on(
    shards: dict[str, TokenShard], cap: str, kind: str
) -> None:
    ledger = ledger_of(base(), shards)
    row = max(ledger.rows(0), key=lambda row: row.final_epochs)
    limit = round(row.final_epochs - 0.05, 2)
    limits = {"max_epochs": limit, "warn_epochs": limit} if cap == "max_epochs" else {"warn_epochs": limit}
    beyond = ledger.step_beyond(row.selection, limit)
    for step, when in ((0, f"from step {beyond} on"), (15, f"since step {beyond}")):
        (finding,) = found(shards, log(), step=step, **limits)
        assert finding.kind == kind
        assert finding.what.startswith(f"{row.selection} is read {row.final_epochs:.2f} times, beyond ")
        assert finding.what.endswith(f"({limit:g}) {when}")


def test_a_training_that_became_slow_or_waits_for_data_is_told(shards: dict[str, TokenShard]) -> None:
    lines = log()
    for line in lines[-6:]:
        line |= {"throughput/tok_per_sec": 500.0} if line["kind"] == "train" else {}
    (finding,) = found(shards, lines)
    assert finding.what.startswith("500 tokens/s are 50% of what is usual")
    for line in lines[-6:]:
        line |= {"throughput/tok_per_sec": 900.0, "throughput/data_wait_frac": 0.2} if line["kind"] == "train" else {}
    assert [one.what for one in found(shards, lines)] == [
        "steps wait 20.0% of their time for data; the disk may be slow"
    ]


WATCH = {"every_tokens": T, "max_share": 0.1}


def until_step_7(*, between: float, end: float) -> list[dict[str, Any]]:
    """The log of steps of 24 s, with seconds of measuring after step 4 and after step 6, where a stage ends."""
    train = [line for line in log(speed=1.0) if line["kind"] == "train" and line["step"] <= 7]
    took = ((4, between), (6, end))
    return [
        *train,
        *({"step": step, "tokens": step * T, "kind": "eval", WATCHING_SECONDS: value} for step, value in took),
    ]


def test_stage_ends_to_come_that_take_more_than_the_cap_are_told(shards: dict[str, TokenShard]) -> None:
    """360 s of steps, of which a tenth may be measured; stages end after 6, 11 and 15 of 15 steps."""
    dear = until_step_7(between=20.0, end=20.0)
    (finding,) = found(shards, dear, step=7, watch=WATCH)
    assert finding.kind == "watches_too_long"
    assert finding.what.startswith("measuring took 40 s by step 7; pretrain.watch.max_share allows 10.0% ")
    assert "2 stage ends to come take about 40 s more" in finding.what
    assert found(shards, dear, step=7, watch=WATCH | {"max_share": 1.0}) == []


def test_one_measurement_of_a_busy_machine_is_not_wrong_where_the_pace_keeps_the_cap_from_there_on(
    shards: dict[str, TokenShard],
) -> None:
    assert found(shards, until_step_7(between=50.0, end=0.1), step=7, watch=WATCH) == []
    start = {"step": 0, "tokens": 0, "kind": "eval", WATCHING_SECONDS: 0.1}
    assert found(shards, [start, *until_step_7(between=0.1, end=50.0)], step=7, watch=WATCH) == []


def test_at_the_end_of_a_training_there_is_nothing_left_to_cap(shards: dict[str, TokenShard]) -> None:
    assert found(shards, until_step_7(between=50.0, end=50.0), step=15, watch=WATCH) == []
