"""Programs that draw metrics get the numbers of the log, and none of them can stop a training."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from gristmill.errors import MissingExtra, RecipeError
from gristmill.train.sinks import Sinks, check_programs, open_sinks

VALUES = {
    "train/loss": 2.5,
    "train/lr": 1e-3,
    "throughput/threads": 2,
    "eval/none": None,
    "train/bad": math.nan,
    "origin": "other",
}
NUMBERS = {"train/loss": 2.5, "train/lr": 1e-3, "throughput/threads": 2.0}


class Kept:
    """Keeps what it is given; fails at a step."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.lines: list[tuple[int, Mapping[str, float]]] = []
        self.fails_at, self.is_closed = fails_at, False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise ConnectionError("no route")
        self.lines.append((step, values))

    def close(self) -> None:
        self.is_closed = True


def test_one_that_fails_is_told_once_and_left_out_and_the_others_get_every_number() -> None:
    good, bad, said = Kept(), Kept(fails_at=2), list[str]()
    sinks = Sinks({"good": good, "bad": bad}, said.append)
    for step in (1, 2, 3):
        sinks.log(step, VALUES)
    sinks.close()
    assert good.lines == [(step, NUMBERS) for step in (1, 2, 3)]
    assert bad.lines == [(1, NUMBERS)]
    assert (good.is_closed, bad.is_closed) == (True, False)
    assert said == ["bad failed and is left out: ConnectionError('no route'). metrics.jsonl has all numbers."]


def test_a_program_that_is_unknown_or_not_installed_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RecipeError, match=r"'wanbd'; did you mean 'wandb'"):
        check_programs(["wanbd"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'gristmill\[trackio\]'"):
        check_programs(["trackio"])


def test_tensorboard_has_the_numbers_of_the_log_and_after_a_resume_each_step_once(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first_step, steps in ((0, range(1, 6)), (3, range(4, 9))):
        sinks = open_sinks(
            ["tensorboard"],
            run="tiny",
            step="pretrain",
            folder=tmp_path,
            first_step=first_step,
            config={},
            say=pytest.fail,
        )
        for step in steps:
            sinks.log(step, {"train/loss": step + first_step / 10})
        sinks.close()
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "pretrain"))
    found.Reload()
    scalars = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in found.Scalars("train/loss")]
    assert scalars == [(step, float(step)) for step in (1, 2, 3)] + [(step, step + 0.3) for step in range(4, 9)]


def test_trackio_has_the_numbers_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    sinks = open_sinks(
        ["trackio"], run="tiny", step="pretrain", folder=tmp_path, first_step=0, config={"a": 1}, say=pytest.fail
    )
    for step in (10, 20):
        sinks.log(step, {"train/loss": step / 10})
    sinks.close()
    lines = storage.get_logs("tiny", "pretrain")
    assert [(line["step"], line["train/loss"]) for line in lines] == [(10, 1.0), (20, 2.0)]


def test_wandb_writes_a_run_without_sending_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    sinks = open_sinks(
        ["wandb"], run="tiny", step="pretrain", folder=tmp_path, first_step=0, config={}, say=pytest.fail
    )
    sinks.log(10, {"train/loss": 1.0})
    sinks.close()
    assert [*tmp_path.rglob("run-tiny-pretrain.wandb")]
