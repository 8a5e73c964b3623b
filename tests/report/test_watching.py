"""Groups by stage ends, on planted metrics logs: what is shown, which group is furthest behind, when letters leave guessing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gristmill.report.watching import Cell, GroupRow, group_table, table_json, table_of, words_of
from gristmill.store.durable import write_json
from gristmill.store.jsonl import write_jsonl
from gristmill.train.watch.watched import WATCHING, Point, Reference, StageEnd, Watched, WatchedPack, WatchedText

METRICS = {"gold": "gold_bits_per_byte", "accuracy": "accuracy"}
ENDS = (StageEnd(name="stable", step=40, tokens=4000), StageEnd(name="decay", step=60, tokens=6000))


def pack(name: str, group: str, *, metric: str = "accuracy", **more: Any) -> WatchedPack:
    guessing = None if metric == "gold_bits_per_byte" else 0.25
    return WatchedPack(
        name=name, group=group, metric=metric, items=100, items_sha256="a" * 64, guessing=guessing, **more
    )


PACKS = (
    pack("arc", "knowledge"),
    pack("mmlu", "knowledge", is_of_letters=True),
    pack("gsm", "maths", metric="gold_bits_per_byte"),
)


def watched(**more: Any) -> Watched:
    fields: dict[str, Any] = {"packs": PACKS, "texts": (WatchedText(source="web", text_hash="w"),), "stage_ends": ENDS}
    return Watched(**{**fields, **more})


def line(step: int, **values: tuple[float, float]) -> dict[str, Any]:
    """A line of the log: task → value and half of its interval."""
    keys = {
        "arc": "eval/arc/accuracy",
        "mmlu": "eval/mmlu/accuracy",
        "gsm": "eval/gsm/gold_bits_per_byte",
        "web": "eval/web/bits_per_byte",
    }
    found: dict[str, Any] = {"step": step, "tokens": 100 * step, "kind": "eval"}
    for task, (value, half) in values.items():
        found |= {keys[task]: value, f"{keys[task]}_low": value - half, f"{keys[task]}_high": value + half}
    return found


LOG = [
    line(0, web=(3.0, 0.1), arc=(0.25, 0.03), mmlu=(0.25, 0.03), gsm=(4.0, 0.2)),
    line(20, web=(2.0, 0.1)),
    line(40, web=(1.5, 0.1), arc=(0.4, 0.03), mmlu=(0.3, 0.04), gsm=(2.0, 0.2)),
    line(50, web=(1.4, 0.1)),
]


def cells(table: Any) -> dict[tuple[str, str], list[str]]:
    return {(row.group, row.measure): ["" if cell is None else str(cell) for cell in row.cells] for row in table.rows}


def test_a_cell_is_the_mean_of_the_packs_of_a_group_at_a_stage_end() -> None:
    found = table_of(watched(), LOG)
    assert found.columns == ["stable", "step 50"]
    half = math.hypot(0.03, 0.04) / 2
    assert cells(found) == {
        ("held-out text", "bits per byte"): ["1.500 ± 0.100", "1.400 ± 0.100"],
        ("knowledge", "accuracy"): [f"0.350 ± {half:.3f}", ""],
        ("maths", "bits per byte of the answer"): ["2.000 ± 0.200", ""],
    }


def test_beyond_the_last_stage_end_a_cell_says_the_step_that_its_value_is_of() -> None:
    log = [*LOG, line(45, arc=(0.5, 0.03), mmlu=(0.5, 0.04)), line(48, arc=(0.9, 0.03)), line(55, web=(1.2, 0.1))]
    found = table_of(watched(), log)
    assert found.columns == ["stable", "step 55"]
    half = math.hypot(0.03, 0.04) / 2
    assert {group: row[1] for (group, _), row in cells(found).items()} == {
        "held-out text": "1.200 ± 0.100",
        "knowledge": f"0.500 ± {half:.3f} (step 45)",
        "maths": "",
    }
    assert [(cell.step, cell.tokens) for row in found.rows[:2] for cell in row.cells if cell is not None] == [
        (40, 4000), (55, 5500), (40, 4000), (45, 4500),
    ]  # fmt: skip


def test_before_the_first_stage_ends_the_newest_value_of_each_group_is_shown() -> None:
    found = table_of(watched(), LOG[:2])
    assert found.columns == ["step 20"]
    assert cells(found)["maths", "bits per byte of the answer"] == ["4.000 ± 0.200 (step 0)"]
    assert cells(found)["held-out text", "bits per byte"] == ["2.000 ± 0.100"]


def test_a_group_of_which_one_has_no_interval_has_none() -> None:
    """An interval that is not known (too few documents) is not one of width 0."""
    two = watched(packs=(), texts=(WatchedText(source="web", text_hash="w"), WatchedText(source="book", text_hash="b")))
    unknown = {
        "eval/book/bits_per_byte": 2.5,
        "eval/book/bits_per_byte_low": None,
        "eval/book/bits_per_byte_high": None,
    }
    found = table_of(two, [line(40, web=(1.5, 0.1)) | unknown])
    assert cells(found) == {("held-out text", "bits per byte"): ["2.000"]}
    known = {**unknown, "eval/book/bits_per_byte_low": 2.3, "eval/book/bits_per_byte_high": 2.7}
    found = table_of(two, [line(40, web=(1.5, 0.1)) | known])
    assert cells(found) == {("held-out text", "bits per byte"): [f"2.000 ± {math.hypot(0.1, 0.2) / 2:.3f}"]}


def test_a_group_is_not_behind_by_more_than_noise_that_is_not_known() -> None:
    row = GroupRow(
        group="maths",
        measure="",
        fewer_is_better=True,
        cells=[Cell(value=9.0, half=math.inf, step=1, tokens=100, reference=(1.0, 0.1))],
    )
    assert row.behind is None
    row = GroupRow(
        group="maths",
        measure="",
        fewer_is_better=True,
        cells=[Cell(value=9.0, half=0.1, step=1, tokens=100, reference=(1.0, 0.1))],
    )
    assert row.behind is not None


def test_at_the_last_stage_end_there_is_no_column_besides() -> None:
    ended = [*LOG, line(60, web=(1.3, 0.1), arc=(0.5, 0.03), mmlu=(0.4, 0.04), gsm=(1.5, 0.2))]
    found = table_of(watched(), ended)
    assert found.columns == ["stable", "decay"]
    assert cells(found)["maths", "bits per byte of the answer"] == ["2.000 ± 0.200", "1.500 ± 0.200"]


def test_a_group_of_which_a_pack_was_not_measured_has_no_mean() -> None:
    found = table_of(watched(), [line(40, arc=(0.4, 0.03), gsm=(2.0, 0.2))])
    assert [row.group for row in found.rows] == ["maths"]


def test_a_group_that_is_asked_in_two_ways_has_two_rows() -> None:
    packs = (pack("algebra", "maths"), PACKS[2])
    found = table_of(
        watched(packs=packs),
        [{**line(40, gsm=(2.0, 0.2)), "eval/algebra/accuracy": 0.3, "eval/algebra/accuracy_low": None}],
    )
    assert cells(found) == {
        ("maths", "accuracy"): ["0.300"],
        ("maths", "bits per byte of the answer"): ["2.000 ± 0.200"],
    }


# ── an earlier run ───────────────────────────────────────────────────────────────────────────────────────────────────


def reference(**values: tuple[float, float]) -> Reference:
    """Curves that are flat from the beginning to the end: task → value and half of its interval."""
    keys = {"arc": "eval/arc/accuracy", "mmlu": "eval/mmlu/accuracy", "gsm": "eval/gsm/gold_bits_per_byte"}
    curves = {
        keys[task]: [
            Point(step=step, tokens=100 * step, value=value, low=value - half, high=value + half) for step in (0, 100)
        ]
        for task, (value, half) in values.items()
    }
    return Reference(folder="runs/before/pretrain", curves=curves)


def test_the_group_that_is_furthest_behind_its_reference_is_named() -> None:
    """Knowledge has .35 of .5, maths 2 bits for 1.6; both beyond the noise, by three and two and a half tenths of the reference."""
    found = table_of(watched(reference=reference(arc=(0.5, 0.02), mmlu=(0.5, 0.02), gsm=(1.6, 0.1))), LOG)
    assert found.told[0] == (
        "Furthest behind the reference runs/before/pretrain: knowledge, 0.350 ± 0.025 accuracy against 0.500 ± 0.014 after as many "
        "tokens, 30% of it."
    )
    other = table_of(watched(reference=reference(arc=(0.4, 0.02), mmlu=(0.4, 0.02), gsm=(1.6, 0.1))), LOG)
    assert "maths, 2.000 ± 0.200 bits per byte of the answer against 1.600 ± 0.100" in other.told[0]


@pytest.mark.parametrize("value", [0.3, 0.36])
def test_a_group_that_is_ahead_or_behind_by_less_than_noise_is_not_named(value: float) -> None:
    found = table_of(watched(reference=reference(arc=(value, 0.02), mmlu=(value, 0.02))), LOG)
    assert found.told[0] == "Reference runs/before/pretrain: no group is behind it by more than noise."


@pytest.mark.parametrize("which", ["own", "earlier"])
def test_what_has_no_interval_is_not_called_behind(which: str) -> None:
    """Too few documents give no interval, which the log has as null: then nothing is known of the noise."""
    own: dict[str, float | None] = {**line(50, web=(1.4, 0.1))}
    key = "eval/web/bits_per_byte"
    band: dict[str, float | None] = {"low": 0.9, "high": 1.1}
    if which == "own":
        own |= {f"{key}_low": None, f"{key}_high": None}
    else:
        band = {}
    curve = [Point(step=step, tokens=100 * step, value=1.0, **band) for step in (0, 100)]
    earlier = Reference(folder="runs/before/pretrain", curves={key: curve})
    found = table_of(watched(reference=earlier), [own])
    assert found.told[0] == "Reference runs/before/pretrain: no group is behind it by more than noise."
    assert cells(found)["held-out text", "bits per byte"][-1] == ("1.400" if which == "own" else "1.400 ± 0.100")


def test_a_reference_that_ends_earlier_or_has_one_pack_of_a_group_tells_nothing() -> None:
    short = Reference(
        folder="runs/before/pretrain", curves={"eval/gsm/gold_bits_per_byte": [Point(step=0, tokens=0, value=1.0)]}
    )
    for found in (table_of(watched(reference=short), LOG), table_of(watched(reference=reference(arc=(0.9, 0.0))), LOG)):
        assert found.told[0] == "Reference runs/before/pretrain: nothing of it was measured after as many tokens."


def test_a_table_cell_without_an_interval_shows_its_value() -> None:
    assert str(Cell(value=0.5, half=math.inf, step=1, tokens=100)) == "0.500"


# ── letters, locks, files ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_step_at_which_letters_leave_guessing_is_told() -> None:
    assert table_of(watched(), LOG).told == ["mmlu, answered by letters: not above guessing yet (0.250)."]
    later = [line(step, mmlu=(0.4, 0.04)) for step in (52, 54)]
    told = table_of(watched(), [*LOG, *later]).told
    assert told == ["mmlu, answered by letters: above guessing from step 40 on (0.250)."]


def test_what_is_locked_now_is_not_shown(tmp_path: Path) -> None:
    write_json(tmp_path / WATCHING, watched(reference=reference(mmlu=(0.9, 0.0))).to_json())
    write_jsonl(tmp_path / "metrics.jsonl", LOG)
    shown, locked = group_table(tmp_path), group_table(tmp_path, locked=["mmlu"])
    assert shown is not None
    assert locked is not None
    assert cells(locked)["knowledge", "accuracy"][0] == "0.400 ± 0.030"
    assert "mmlu" in " ".join(words_of(shown))
    assert "mmlu" not in " ".join(words_of(locked))


def test_before_the_first_measurement_and_of_older_trainings_there_is_no_table(tmp_path: Path) -> None:
    assert group_table(tmp_path) is None
    write_jsonl(tmp_path / "metrics.jsonl", LOG)
    assert group_table(tmp_path) is None
    write_jsonl(tmp_path / "metrics.jsonl", [])
    write_json(tmp_path / WATCHING, watched().to_json())
    assert group_table(tmp_path) is None


def test_the_words_are_a_table_with_aligned_columns() -> None:
    lines = words_of(table_of(watched(), LOG))
    assert lines[0].split() == ["group", "measure", "stable", "step", "50"]
    start = lines[0].index("stable")
    assert [row[start : start + 5] for row in lines[1:4]] == ["1.500", "0.350", "2.000"]


def test_for_programs_the_table_has_the_same_numbers_and_null_for_what_is_not_known() -> None:
    unknown = {"eval/gsm/gold_bits_per_byte": 1.9, "eval/gsm/gold_bits_per_byte_low": None}
    found = table_of(watched(reference=reference(arc=(0.5, 0.02), mmlu=(0.5, 0.02))), [*LOG, {**line(50), **unknown}])
    told = json.loads(json.dumps(table_json(found), allow_nan=False))
    assert told["columns"] == ["stable", "step 50"]
    rows = {row["group"]: row for row in told["rows"]}
    assert rows["maths"] == {
        "group": "maths",
        "measure": "bits per byte of the answer",
        "fewer_is_better": True,
        "cells": [
            {"step": 40, "tokens": 4000, "value": 2.0, "half": pytest.approx(0.2), "reference": None},
            {"step": 50, "tokens": 5000, "value": 1.9, "half": None, "reference": None},
        ],
    }
    assert rows["knowledge"]["cells"][0]["reference"] == {
        "value": 0.5,
        "half": pytest.approx(math.hypot(0.02, 0.02) / 2),
    }
    assert rows["knowledge"]["cells"][1] is None
    assert told["told"] == [*found.told]
