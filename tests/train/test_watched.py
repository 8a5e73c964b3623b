"""What is read of a training while it runs: curves, the step at which guessing is left behind, an earlier run's band."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.store.durable import write_json
from gristmill.store.jsonl import write_jsonl
from gristmill.train.watch.watched import (
    IN_A_ROW,
    WATCHING,
    Point,
    Reference,
    StageEnd,
    Watched,
    WatchedPack,
    WatchedText,
    band_at,
    checkpoint_noise,
    curve,
    left_guessing,
    measured_lines,
    read_watched,
    reference_of,
)


def pack(name: str = "letters", **more: Any) -> WatchedPack:
    fields = {"group": "knowledge", "metric": "accuracy", "items": 10, "items_sha256": "a" * 64, "guessing": 0.25}
    return WatchedPack(**{"name": name, **fields, **more})


def points(*lows: float) -> list[Point]:
    return [
        Point(step=10 * number, tokens=100 * number, value=low + 0.05, low=low, high=low + 0.1)
        for number, low in enumerate(lows)
    ]


def write_log(folder: Path, metrics: list[dict[str, float | None]]) -> list[dict[str, Any]]:
    """A planted metrics log, with a line of training after each evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    for number, values in enumerate(metrics):
        at = {"step": 10 * number, "tokens": 100 * number}
        lines += [{**at, "kind": "eval", **values}, {**at, "kind": "train", "train/loss": 1.0}]
    write_jsonl(folder / "metrics.jsonl", lines)
    return [line for line in lines if line["kind"] == "eval"]


@given(st.lists(st.floats(0.0, 0.5), max_size=30), st.floats(0.1, 0.4))
def test_guessing_is_left_at_the_first_of_three_intervals_above_it(lows: list[float], level: float) -> None:
    above = [low > level for low in lows]
    expected = next((n for n in range(len(lows) - IN_A_ROW + 1) if all(above[n : n + IN_A_ROW])), None)
    found = left_guessing(points(*lows), level)
    assert (None if found is None else found.step) == (None if expected is None else 10 * expected)


def test_in_a_planted_log_guessing_is_left_where_it_was_planted(tmp_path: Path) -> None:
    """Two lucky intervals before do not count, and text alone that was measured between does not break the row."""
    lows = [0.2, 0.26, 0.27, 0.2, 0.26, 0.27, 0.28, 0.3]
    metrics: list[dict[str, float | None]] = []
    for low in lows:
        key = "eval/letters/accuracy"
        metrics.append({key: low + 0.03, f"{key}_low": low, f"{key}_high": low + 0.06})
        metrics.append({"eval/web/bits_per_byte": 1.0})
    write_log(tmp_path, metrics)
    found = left_guessing(curve(measured_lines(tmp_path), pack().key), 0.25)
    assert found is not None
    assert (found.step, found.tokens, found.low) == (80, 800, 0.26)


@pytest.mark.parametrize("kept", [0.0, 0.9, 1.0])
def test_by_luck_a_model_that_guesses_leaves_guessing_seldom(kept: float) -> None:
    """Of 1,000 trainings of twenty measurements, each of the same 400 items. Where a model keeps most of its answers from one measurement to
    the next, luck lasts, and one in twenty of those that guess seems to have left guessing; where it keeps none, next to none."""
    rng = np.random.default_rng(0)
    trainings, items, half = 1000, 400, 1.96 * math.sqrt(0.25 * 0.75 / 400)
    is_right = rng.random((trainings, items)) < 0.25
    lows = []
    for _ in range(20):
        is_right = np.where(rng.random(is_right.shape) < kept, is_right, rng.random(is_right.shape) < 0.25)
        lows.append(is_right.mean(axis=1) - half)
    wrong = sum(left_guessing(points(*of_one), 0.25) is not None for of_one in np.transpose(lows))
    assert wrong < (10 if kept == 0 else 80)


def test_a_value_that_is_missing_or_no_number_is_no_point_of_a_curve(tmp_path: Path) -> None:
    lines = write_log(tmp_path, [{"a": 1.0, "a_low": 0.5, "a_high": 1.5}, {"b": 1.0}, {"a": None}, {"a": 2.0}])
    found = curve(lines, "a")
    assert [(point.step, point.value, point.half) for point in found] == [(0, 1.0, 0.5), (30, 2.0, math.inf)]


def test_the_band_lies_between_neighbours_and_nowhere_else() -> None:
    few = points(0.1, 0.2)
    middle = band_at(few, 50)
    assert middle is not None
    assert (middle.value, middle.low, middle.high) == pytest.approx((0.2, 0.15, 0.25))
    for halves in ((0.3, 0.05), (0.05, 0.3), (math.inf, 0.05)):
        uneven = [replace(one, low=one.value - half, high=one.value + half) for one, half in zip(few, halves)]
        found = band_at(uneven, 50)
        assert found is not None
        assert found.half == pytest.approx(max(halves)), (
            "between two measurements no more is known than at the vaguer one"
        )
    assert band_at(few, 101) is None
    assert band_at(few[:1], 0) is None


def test_the_noise_of_checkpoints_is_found_beside_a_steep_and_curved_beginning() -> None:
    rng = np.random.default_rng(1)
    steps = np.arange(1, 101)
    for sd in (0.003, 0.02):
        values = 1 + 3 * steps**-0.5 + rng.normal(0, sd, size=100)
        noisy = [Point(step=int(n), tokens=int(n), value=float(value)) for n, value in zip(steps, values, strict=True)]
        assert checkpoint_noise(noisy) == pytest.approx(sd, rel=0.35)
    assert checkpoint_noise(noisy[:4]) == 0.0


def test_the_noise_of_checkpoints_widens_the_band() -> None:
    values = [0.3, 0.5, 0.3, 0.5, 0.3, 0.5]
    zigzag = [Point(step=n, tokens=n, value=value, low=value, high=value) for n, value in enumerate(values)]
    found = band_at(zigzag, 2)
    assert found is not None
    assert found.half == pytest.approx(1.96 * checkpoint_noise(zigzag))
    assert found.half > 0.1


def test_only_what_was_measured_on_the_same_items_and_text_is_held_against_an_earlier_run(tmp_path: Path) -> None:
    packs = [pack("same"), pack("other"), pack("fewer")]
    texts = [WatchedText(source="web", text_hash="w"), WatchedText(source="code", text_hash="c")]
    earlier = Watched(
        packs=[pack("same"), pack("other", items_sha256="b" * 64), pack("fewer", items=5)],
        texts=[texts[0], WatchedText(source="code", text_hash="d")],
        stage_ends=[],
    )
    keys = [one.key for one in (*packs, *texts)]
    write_log(tmp_path, [dict.fromkeys(keys, 1.0), dict.fromkeys(keys, 2.0)])
    write_json(tmp_path / WATCHING, earlier.to_json())
    found = reference_of(tmp_path, packs, texts)
    assert {key: [point.value for point in points] for key, points in found.curves.items()} == {
        "eval/same/accuracy": [1.0, 2.0],
        "eval/web/bits_per_byte": [1.0, 2.0],
    }
    assert found.left_out == ["other/accuracy", "fewer/accuracy", "code/bits_per_byte"]


def test_what_is_noted_reads_back(tmp_path: Path) -> None:
    reference = Reference(folder="before", curves={"eval/letters/accuracy": points(0.1, 0.2)})
    watched = Watched(
        packs=[pack(is_of_letters=True)],
        texts=[WatchedText(source="web", text_hash="w")],
        stage_ends=[StageEnd(name="stable", step=8, tokens=512)],
        reference=reference,
    )
    assert read_watched(tmp_path) is None
    write_json(tmp_path / WATCHING, watched.to_json())
    assert read_watched(tmp_path) == watched
