"""Which checkpoint a run resumes from: another run's where it fits, never one that something else shaped; and what is said."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run as tiny
import torch

import gristmill.train.checkpoint as checkpoint_module
import gristmill.train.checkpoints as checkpoints_module
from gristmill.errors import Interrupted
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.jsonl import read_log
from gristmill.store.removal import held_names, removable, remove
from gristmill.store.store import RunLinks
from gristmill.tokens.batch import Batch
from gristmill.train.checkpoints import Checkpoints
from gristmill.train.loop import Progress, Took
from gristmill.train.monitor import METRICS
from gristmill.train.session import Session
from gristmill.train.threads import ThreadChoice


def changed_after(step: int, checkpoints: Checkpoints, *, identity: str) -> Checkpoints:
    """The same up to `step`, and shaped by something else behind it, as after an edit of the recipe."""
    return replace(
        checkpoints,
        identity=identity,
        prefix_at=lambda at: {"prefix": "p" if at <= step else "edited", "step": at},
    )


def open_as(name: str, folder: Path, say: Callable[[str], None] = lambda line: None) -> Session:
    """A run of that name, whose recipe is its own, and its training the same."""
    checkpoints = tiny.checkpoints_in(folder, run=name, identity=f"of {name}")
    session: Session = tiny.open_run(folder, say, checkpoints=checkpoints, out=f"out of {name}")
    return session


def seen(session: Session, *, into: list[int] | None = None, **how: Any) -> list[int]:
    """Trains, and gives the steps whose batches were asked for; `into` has them when it is stopped."""
    steps = [] if into is None else into

    def batches(step: int) -> Batch:
        steps.append(step)
        return tiny.batch_at(step)  # type: ignore[no-any-return]

    tiny.train_run(session, batches=batches, hooks=[tiny.measuring_hook(session)], **how)
    return steps


def but_timings(progress: Progress) -> dict[str, Any]:
    """All of it but seconds and where it was computed."""
    found = progress.to_json()
    del found["seconds"], found["lineage"], found["interval"]["seconds"], found["interval"]["wait_seconds"]
    return found


def lines(session: Session) -> list[dict[str, Any]]:
    """The metrics log but for timings and whose its lines are."""
    found = read_log(session.out / METRICS)
    return [
        {key: value for key, value in line.items() if not key.startswith("throughput/") and key != "origin"}
        for line in found
    ]


def kept(session: Session) -> list[int]:
    return [ref.step for ref in session.checkpoints.kept()]


def in_store(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "runs" / ".store" / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A run that nothing ever stopped, with checkpoints at 4, 8 and 12."""
    session = open_as("first", tmp_path_factory.mktemp("straight"))
    assert seen(session) == list(range(tiny.END))
    return session


# ── another run's checkpoint ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_takes_anothers_checkpoint_ends_bit_equal_to_a_straight_one(
    tmp_path: Path, straight: Session
) -> None:
    first = open_as("first", tmp_path)
    before: list[int] = []
    with pytest.raises(Interrupted):
        seen(first, into=before, should_stop=lambda: first.progress.step == 8)
    said: list[str] = []
    second = open_as("second", tmp_path, said.append)
    assert said == ["Resuming from step 8 of run 'first'."]
    after = seen(second)
    assert before + after == list(range(tiny.END))
    tiny.assert_identical(tiny.state_of(second), tiny.state_of(straight))
    assert but_timings(second.progress) == but_timings(straight.progress)
    assert lines(second) == lines(straight)


def test_lines_and_lineage_tell_whose_checkpoint_was_taken(tmp_path: Path) -> None:
    first = open_as("first", tmp_path)
    seen(first, end_step=8)
    second = open_as("second", tmp_path)
    seen(second)
    origins = [(line["step"], line["kind"], line.get("origin")) for line in read_log(second.out / METRICS)]
    assert origins == [
        (0, "eval", "first"),
        (3, "train", "first"),
        (4, "eval", "first"),
        (6, "train", "first"),
        (8, "train", "first"),
        (8, "eval", None),
        (9, "train", None),
        (12, "train", None),
        (12, "eval", None),
    ]
    start, taken = second.finish().lineage
    assert start.to_json() == first.progress.lineage[0]
    assert taken.to_json() == {
        "from_step": 8,
        "environment": start.environment,
        "checkpoint": first.checkpoints.ref(8).folder.name,
        "prefix": {"prefix": "p", "step": 8},
    }
    assert not second.progress.mixed_environments
    assert all("origin" not in line for line in read_log(first.out / METRICS))


def test_a_taken_checkpoint_is_linked_and_stays_when_its_run_is_gone(tmp_path: Path) -> None:
    first = open_as("first", tmp_path)
    seen(first, end_step=8)
    second = open_as("second", tmp_path)
    assert kept(second) == [8]
    for ref in first.checkpoints.kept():
        first.checkpoints.index.unlink(first.checkpoints.run, ref)
    store = first.checkpoints.run.store
    assert [item.path for item in remove(store, removable(store))] == [first.checkpoints.ref(4).folder]
    assert open_as("second", tmp_path).progress.step == 8


def test_a_checkpoint_is_held_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a clean-up could remove it in between."""
    first = open_as("first", tmp_path)
    seen(first, end_step=8)
    for ref in first.checkpoints.kept():
        first.checkpoints.index.unlink(first.checkpoints.run, ref)
    store, read = first.checkpoints.run.store, checkpoints_module.read_checkpoint
    held: list[bool] = []

    def look(folder: Path) -> Any:
        held.append(f"checkpoints/{folder.name}" in held_names(store))
        return read(folder)

    monkeypatch.setattr(checkpoints_module, "read_checkpoint", look)
    assert open_as("second", tmp_path).progress.step == 8
    assert held == [True]


def test_runs_that_reach_the_same_checkpoint_save_it_once_and_one_prunes_only_for_itself(tmp_path: Path) -> None:
    first = open_as("first", tmp_path)
    second = open_as("second", tmp_path)
    seen(first, end_step=8)
    state = first.checkpoints.ref(8).folder / "state.json"
    written = state.stat().st_mtime_ns
    seen(second, end_step=8)
    assert in_store(tmp_path) == [first.checkpoints.ref(step).folder.name for step in (4, 8)]
    assert state.stat().st_mtime_ns == written
    seen(first, end_step=20)
    assert kept(first) == [20, 16, 4]
    assert kept(second) == [8, 4]
    assert in_store(tmp_path) == [first.checkpoints.ref(step).folder.name for step in (4, 8, 16, 20)]


def test_a_checkpoint_of_another_prefix_is_not_used(tmp_path: Path) -> None:
    seen(open_as("first", tmp_path))
    said: list[str] = []
    checkpoints = tiny.checkpoints_in(tmp_path, prefix="another", run="second")
    other = tiny.open_run(tmp_path, said.append, checkpoints=checkpoints, out="other")
    assert (other.progress.step, said, kept(other)) == (0, [], [])


def test_anothers_checkpoint_from_elsewhere_is_offered_in_one_line_and_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(open_as("first", tmp_path))
    here = checkpoint_module.hardware_name()
    monkeypatch.setattr(checkpoint_module, "hardware_name", lambda: "Another CPU @ 9 GHz")
    said: list[str] = []
    second = open_as("second", tmp_path, said.append)
    assert said == [
        "Run 'first' has a checkpoint at step 12 that fits, but it was trained with different "
        f'hardware: "{here}" → "Another CPU @ 9 GHz". To use it, run with those.'
    ]
    assert (second.progress.step, kept(second)) == (0, [])
    assert len(in_store(tmp_path)) == 3


def test_a_runs_own_checkpoint_is_resumed_elsewhere_said_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(open_as("first", tmp_path))
    monkeypatch.setattr(checkpoint_module, "hardware_name", lambda: "Another CPU @ 9 GHz")
    said: list[str] = []
    again = open_as("first", tmp_path, said.append)
    assert again.progress.step == 12
    assert [line.partition(":")[0] for line in said] == [
        "Resuming with different hardware",
        "Resuming from step 12. Discarding 1 log line written after this checkpoint.",  # a hook of step 12
    ]
    assert again.progress.mixed_environments
    assert "prefix" not in again.progress.lineage[-1]
    assert again.progress.lineage[-1]["environment"]["hardware"] == "Another CPU @ 9 GHz"


def test_its_own_earlier_one_is_used_where_anothers_later_one_is_only_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(open_as("second", tmp_path), end_step=4)
    monkeypatch.setattr(checkpoint_module, "hardware_name", lambda: "Another CPU @ 9 GHz")
    seen(open_as("first", tmp_path))
    monkeypatch.undo()
    said: list[str] = []
    second = open_as("second", tmp_path, said.append)
    assert (second.progress.step, kept(second)) == (4, [4])
    assert ["that fits" in line for line in said] == [True, False]


def test_a_checkpoint_that_is_gone_once_it_was_listed_is_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_as("first", tmp_path)
    seen(first, end_step=8)
    listed = [first.checkpoints.ref(step) for step in (12, 8, 4)]
    monkeypatch.setattr(CheckpointIndex, "find", lambda *_: listed)
    said: list[str] = []
    second = open_as("second", tmp_path, said.append)
    assert (said, kept(second)) == (["Resuming from step 8 of run 'first'."], [8])


def test_a_run_computes_with_the_threads_and_micro_batches_of_its_machine_and_notes_them(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        session = open_as("first", tmp_path)
        assert torch.get_num_threads() == session.runtime.threads == 1
        assert session.environment == checkpoint_module.environment(tiny.MICRO_BATCH_TOKENS, "cpu", 1)
    finally:
        torch.set_num_threads(before)


def test_a_load_is_answered_at_the_next_step_noted_and_said_once(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    said: list[str] = []
    try:
        session = open_as("first", tmp_path, said.append)
        session = replace(session, threads=ThreadChoice(most=2))
        torch.set_num_threads(2)
        start = {**session.progress.lineage[0]["environment"], "threads": 2}
        session.progress.lineage = [{**session.progress.lineage[0], "environment": start}]
        quiet, starved = (
            Took(tokens=100, seconds=seconds, cpu_seconds=cpu_seconds, rank_seconds=())
            for seconds, cpu_seconds in ((1.0, 2.0), (30.0, 9.0))
        )
        for took in (*[quiet] * 4, starved, *[quiet] * 42):
            session.progress.step += 1
            session.stepped(session.progress, took, total=99)
            assert torch.get_num_threads() == session.threads.threads
        session.log(session.progress, {"train/loss": 1.0})
    finally:
        torch.set_num_threads(before)
    changes = [(entry["from_step"], entry["environment"]["threads"]) for entry in session.progress.lineage]
    assert changes == [(0, 2), (5, 1), (37, 2), (38, 1)], "more are tried after half a minute, and are no faster"
    assert all({**entry["environment"], "threads": 2} == start for entry in session.progress.lineage)
    assert session.progress.mixed_environments
    [line] = said
    assert "training with 1 of 2 threads" in line
    assert read_log(session.out / METRICS)[-1]["throughput/threads"] == session.threads.threads
    assert session.environment["threads"] == 1, "what was asked stays"


# ── the same run, its recipe changed ─────────────────────────────────────────────────────────────────────────────────


def test_later_checkpoints_of_a_changed_recipe_wait_in_the_store_and_undoing_the_change_finds_them(
    tmp_path: Path,
) -> None:
    before = tiny.checkpoints_in(tmp_path, identity="before")
    after = changed_after(12, before, identity="after")
    seen(tiny.open_run(tmp_path, checkpoints=before), end_step=16)
    assert [ref.step for ref in before.kept()] == [16, 12, 4]

    said: list[str] = []
    edited = tiny.open_run(tmp_path, said.append, checkpoints=after)
    assert [ref.step for ref in after.kept()] == [12, 4]
    assert said == [
        "Resuming from step 12, saved under an earlier form of the recipe. "
        "Discarding 4 log lines written after this checkpoint."
    ]
    assert {line["origin"] for line in read_log(edited.out / METRICS)} == {"tiny"}
    assert edited.progress.lineage[-1]["prefix"] == {"prefix": "p", "step": 12}
    seen(edited, end_step=20)
    assert after.kept() == [after.ref(step) for step in (20, 16, 4)]

    waiting, edited_ones = before.ref(16), [after.ref(16), after.ref(20)]
    assert waiting.folder.is_dir()
    assert waiting.folder != edited_ones[0].folder
    undone = tiny.open_run(tmp_path, checkpoints=before)
    assert undone.progress.step == 16
    assert before.kept() == [waiting, before.ref(4)]
    removed = remove(before.run.store, removable(before.run.store))
    assert {item.path for item in removed} == {ref.folder for ref in edited_ones}
    assert waiting.folder.is_dir()


def test_checkpoints_behind_the_change_are_unlinked_too_where_the_recipe_asks_for_none(tmp_path: Path) -> None:
    """A change from the first step on: nothing of the run is of this training any more, whatever step it is of."""
    before = tiny.checkpoints_in(tmp_path, identity="before")
    after = changed_after(0, before, identity="after")
    seen(tiny.open_run(tmp_path, checkpoints=before), end_step=8)
    other = replace(after, run=RunLinks(after.run.store, "other"))
    seen(tiny.open_run(tmp_path, checkpoints=other, out="other"), end_step=8)
    assert tiny.open_run(tmp_path, checkpoints=after).progress.step == 8
    assert after.kept() == [after.ref(8)]
    assert [before.ref(step).folder.is_dir() for step in (4, 8)] == [True, True]


def test_a_run_that_starts_over_lets_its_checkpoints_go(tmp_path: Path) -> None:
    before = tiny.checkpoints_in(tmp_path)
    seen(tiny.open_run(tmp_path, checkpoints=before))
    over = tiny.open_run(tmp_path, checkpoints=tiny.checkpoints_in(tmp_path, prefix="another"))
    assert (over.progress.step, kept(over)) == (0, [])
    assert in_store(tmp_path) == [before.ref(step).folder.name for step in (4, 8, 12)]


# ── the metrics log ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("stopped_after", "resumed_from", "discarded"), [(11, 8, 2), (8, 8, 1), (3, 0, 2)])
def test_the_log_of_a_killed_and_resumed_run_is_that_of_an_unbroken_one_and_discarded_lines_are_told(
    tmp_path: Path, straight: Session, stopped_after: int, resumed_from: int, discarded: int
) -> None:
    class Killed(BaseException):
        pass

    def until(step: int) -> Batch:
        if step == stopped_after:
            raise Killed
        return tiny.batch_at(step)  # type: ignore[no-any-return]

    killed = open_as("first", tmp_path)
    with pytest.raises(Killed):
        tiny.train_run(killed, batches=until, hooks=[tiny.measuring_hook(killed)])
    said: list[str] = []
    resumed = open_as("first", tmp_path, said.append)
    assert resumed.progress.step == resumed_from
    assert [f"Discarding {discarded} log line" in line for line in said] == [True]
    seen(resumed)
    assert lines(resumed) == lines(straight)


def test_a_stop_saves_first_and_discards_nothing(tmp_path: Path, straight: Session) -> None:
    session = open_as("first", tmp_path)
    with pytest.raises(Interrupted):
        seen(session, should_stop=lambda: session.progress.step == 7)
    said: list[str] = []
    resumed = open_as("first", tmp_path, said.append)
    assert said == ["Resuming from step 7."]
    seen(resumed)
    assert lines(resumed) == lines(straight)


def test_a_line_without_a_loss_is_logged_and_nothing_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    session = open_as("first", tmp_path, said.append)
    session.log(session.progress, {"train/skipped_steps": 3.0})
    assert said == []
    assert lines(session) == [{"step": 0, "tokens": 0, "kind": "train", "train/skipped_steps": 3.0}]


def test_a_result_has_the_last_values_of_its_log(straight: Session) -> None:
    log = read_log(straight.out / METRICS)
    expected: dict[str, Any] = {}
    for kind in ("train", "eval"):
        last = [line for line in log if line["kind"] == kind][-1]
        expected |= {key: value for key, value in last.items() if key.startswith(f"{kind}/")}
    assert {"train/loss", "eval/sum"} <= expected.keys()
    assert straight.finish().final == expected


def test_a_training_gives_a_program_every_line_of_its_log_and_closes_it_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a module that takes the place of trackio, which is not installed everywhere."""
    kept, closed = list[tuple[int, Mapping[str, float]]](), list[bool]()

    class Run:
        def log(self, values: Mapping[str, float], step: int) -> None:
            kept.append((step, values))

        def finish(self) -> None:
            closed.append(True)

    asked: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=lambda **given: asked.update(given) or Run()))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    session = tiny.open_run(tmp_path, metrics_to=("trackio",))
    with pytest.raises(Interrupted), session:
        tiny.train_run(session, hooks=[tiny.measuring_hook(session)], should_stop=lambda: session.progress.step >= 8)
    assert closed == [True]
    assert (asked["project"], asked["name"], asked["resume"]) == ("tiny", "pretrain", "allow")
    lines = [line for line in read_log(tmp_path / "out" / METRICS) if line["kind"] in ("train", "eval")]
    assert [step for step, _ in kept] == [line["step"] for line in lines]
    for (_, values), line in zip(kept, lines, strict=True):
        assert values == {
            key: value for key, value in line.items() if key not in ("step", "kind") and value is not None
        }


def test_a_model_computes_its_activations_twice_where_that_was_asked_for_resumed_too(tmp_path: Path) -> None:
    assert not tiny.open_run(tmp_path).model.recompute
    tiny.train_run(tiny.open_run(tmp_path, recompute=True), end_step=tiny.SAVE_EVERY)
    resumed = tiny.open_run(tmp_path, recompute=True)
    assert resumed.progress.step == tiny.SAVE_EVERY
    assert resumed.model.recompute
