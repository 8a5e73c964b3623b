"""The metrics log: what a killed and resumed run leaves equals what an unbroken one leaves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import ArtifactError, DataError, ResourceError
from gristmill.store.jsonl import read_log
from gristmill.train.events import (
    EVENTS,
    KINDS,
    AboveGuessingEvent,
    AnyEvent,
    CutSmallerEvent,
    Judged,
    MixtureEvent,
    NotFiniteEvent,
    PassedOverEvent,
    SourceAfterChange,
    SpikeEvent,
    read_events,
)
from gristmill.train.monitor import METRICS, SAMPLES, Monitor


def write_steps(monitor: Monitor, steps: range, *, hooks_of_last: bool = True) -> None:
    """A run that logs every 2 steps and evaluates every 3."""
    for step in steps:
        if step % 2 == 0:
            monitor.train(step, step * 10, {"train/loss": 1 / (step + 1)})
        if step % 5 == 0:
            monitor.event(PassedOverEvent(step=step, tokens=step * 10, sequences=4))
        if hooks_of_last or step != steps[-1]:
            write_hooks(monitor, step)


def write_hooks(monitor: Monitor, step: int) -> None:
    if step % 3 == 0:
        monitor.evaluation(step, step * 10, {"eval/web/bits_per_byte": 2.0 + step})
        monitor.sample(step, step * 10, {"prompt": "ä", "text": "β\n\u2028"})


EVERY_KIND: list[AnyEvent] = [
    SpikeEvent(step=7, tokens=70, exceeding=("loss",), applied=False, text="spikes/0000007-0000024.jsonl",
               quantities={"loss": Judged(value=9.5, mean=3.0, deviation=0.5), "grad_norm": Judged(value=1.0)}),
    NotFiniteEvent.of(math.nan, 2.0, step=8, tokens=80, text=None),
    MixtureEvent(step=30, tokens=300, since=9, sources={
        "web": SourceAfterChange(mean=3.0, deviation=0.1, peak=3.5, peak_step=10, steps=12),
        "code": SourceAfterChange(mean=2.0, deviation=0.1, peak=2.25, peak_step=11, steps=None),
        "book": SourceAfterChange(mean=2.0, deviation=0.1, peak=None, peak_step=None, steps=None),
        "old": SourceAfterChange(mean=2.0, deviation=0.1, peak=1.5, peak_step=10, steps=1)}),
    PassedOverEvent(origin="another", step=40, tokens=400, sequences=1),
    AboveGuessingEvent(step=40, tokens=400, pack="quiz", guessing=0.25, value=0.5, low=0.375),
    CutSmallerEvent(step=41, tokens=400, micro_batch_tokens=8, before=16),
]  # fmt: skip


def test_events_of_every_kind_come_back_and_say_what_happened(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    for event in EVERY_KIND:
        monitor.event(event)
    found = read_events(tmp_path / EVENTS)
    assert found == EVERY_KIND
    assert [line["kind"] for line in read_log(tmp_path / EVENTS)] == [*KINDS]
    assert [f"{event} [{event.outcome}]" for event in found] == [
        "Spike at step 7: loss 9.5, 13.0 standard deviations above 3 [update skipped]",
        "Not finite at step 8: loss not finite, gradient norm 2 [update skipped]",
        "Another mixture or length from step 10 on; the loss of web rose by 0.5 nats and is back after 12 steps, of code rose by "
        "0.25 nats and is not back, of book was not drawn, of old did not rise []",
        "1 sequence passed over before step 40 []",
        "quiz is answered better than by guessing from step 40 on: 0.500, at least 0.375, against 0.250 []",
        "Out of memory at step 41 with micro-batches of 16 tokens; from this step on they have 8 []",
    ]


def test_an_event_of_another_kind_is_refused_with_the_file(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_text('{"step": 1, "tokens": 2, "kind": "storm"}\n')
    with pytest.raises(
        ArtifactError, match=r"events\.jsonl: an event of kind 'storm'; expected spike, not_finite, mixture"
    ):
        read_events(tmp_path / EVENTS)
    (tmp_path / EVENTS).write_text('{"step": 1, "tokens": 2, "kind": "passed_over"}\n')
    with pytest.raises(ArtifactError, match=r"events\.jsonl: sequences: Field required"):
        read_events(tmp_path / EVENTS)


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.train(4, 40, {"train/loss": 0.1})
    monitor.sample(4, 40, {"prompt": "ä", "text": "β\n\u2028"})
    assert read_log(tmp_path / METRICS) == [{"step": 4, "tokens": 40, "kind": "train", "train/loss": 0.1}]
    assert read_log(tmp_path / SAMPLES)[0]["text"] == "β\n\u2028"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 25))
def test_killed_and_resumed_log_equals_unbroken_one(checkpoint: int, further: int, torn_bytes: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        unbroken, broken = Monitor(Path(folder, "a")), Monitor(Path(folder, "b"))
        write_steps(unbroken, range(1, 30))
        write_steps(broken, range(1, checkpoint + 1), hooks_of_last=False)
        saved = Path(folder, "checkpoint")
        saved.mkdir()
        broken.copy_to(saved)
        if further:
            write_hooks(broken, checkpoint)
        write_steps(broken, range(checkpoint + 1, checkpoint + further + 1))
        with (broken.folder / METRICS).open("a") as file:
            file.write('{"step": 99, "kind": "train", "a": 1}'[:torn_bytes])
        broken.restore(saved)
        write_hooks(broken, checkpoint)  # those of the checkpoint's own step run again
        write_steps(broken, range(checkpoint + 1, 30))
        for name in (METRICS, SAMPLES, EVENTS):
            assert (broken.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The log up to step 4, as a checkpoint holds it."""
    write_steps(Monitor(tmp_path / "to 4"), range(1, 5))
    return tmp_path / "to 4"


def test_restoring_says_how_many_lines_were_discarded(saved: Path, tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "to 6")
    write_steps(monitor, range(1, 7))
    assert monitor.restore(saved) == 4  # event 5, train 6, eval 6, sample 6
    assert monitor.restore(saved) == 0
    assert monitor.restore(None) == 4  # train 2, train 4, eval 3, sample 3
    assert read_log(monitor.folder / METRICS) == read_log(monitor.folder / SAMPLES) == []


def test_a_log_that_nobody_wrote_is_not_there_after_restoring_either(tmp_path: Path) -> None:
    Monitor(tmp_path / "saved").train(1, 10, {})
    restored = Monitor(tmp_path / "restored")
    restored.restore(tmp_path / "saved")
    assert [path.name for path in restored.folder.iterdir()] == [METRICS]
    assert Monitor(tmp_path / "run" / "new").restore(None) == 0
    assert list((tmp_path / "run" / "new").iterdir()) == []


def test_lines_of_another_run_say_whose_they_are_and_keep_saying_it(saved: Path, tmp_path: Path) -> None:
    second, third = Monitor(tmp_path / "second"), Monitor(tmp_path / "third")
    assert second.restore(saved, origin="first") == 0
    second.train(6, 60, {"train/loss": 0.5})
    for name in (METRICS, SAMPLES):
        assert read_log(second.folder / name)[: len(read_log(saved / name))] == [
            {"origin": "first", **line} for line in read_log(saved / name)
        ]
    third.restore(second.folder, origin="second")
    assert [line["origin"] for line in read_log(third.folder / METRICS)] == ["first", "first", "first", "second"]


def test_number_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    Monitor(tmp_path).train(1, 1, {"train/loss": math.nan, "train/grad_norm": math.inf, "train/lr": 0.5})
    line = json.loads((tmp_path / METRICS).read_text())
    assert (line["train/loss"], line["train/grad_norm"], line["train/lr"]) == (None, None, 0.5)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / METRICS).symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="disk is full"):
        Monitor(tmp_path).train(1, 1, {"train/loss": 1.0})


def test_torn_line_in_the_middle_is_reported_with_its_number(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl:2 is not JSON"):
        read_log(tmp_path / METRICS)
