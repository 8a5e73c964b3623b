"""A runtime is what the machine and the step say, with a device that is here."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gristmill.errors import RecipeError
from gristmill.graph.machine import Machine, usable_cpus
from gristmill.graph.progress import Position
from gristmill.graph.ranks import ONE_RANK
from gristmill.train.runtime import Runtime, ThreadsByLoad, TrainingThreads, choose_device
from gristmill.train.threads import IDLE_SECONDS, ThreadChoice

HALF = Position(done=1, total=2, unit="step")


def step(**given: Any) -> Any:
    """What a runtime takes of a step's context."""
    return SimpleNamespace(**given)


@pytest.mark.parametrize(("has_cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_machine_becomes_a_runtime(monkeypatch: pytest.MonkeyPatch, has_cuda: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    said: list[str] = []
    reported: list[Position] = []
    runtime = Runtime.of(
        step(
            machine=Machine(threads=3, micro_batch_tokens=77),
            ranks=ONE_RANK,
            say=said.append,
            progress=reported.append,
            should_stop=lambda: True,
        )
    )
    runtime.say("hello")
    runtime.progress(HALF)
    assert reported == [HALF]
    assert (runtime.device, runtime.threads, runtime.micro_batch_tokens) == (device, 3, 77)
    assert said == ["hello"]
    assert runtime.should_stop()


@pytest.mark.parametrize(("asked", "has_cuda"), [("cpu", False), ("cpu", True), ("cuda", True)])
def test_a_device_that_is_asked_for_and_here_is_used(
    monkeypatch: pytest.MonkeyPatch, asked: str, has_cuda: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert choose_device(asked) == asked


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="the device is cuda"):
        Runtime.of(
            step(machine=Machine(device="cuda"), ranks=ONE_RANK, say=print, progress=print, should_stop=lambda: False)
        )


@pytest.mark.parametrize(
    ("threads", "device", "most", "may_change"),
    [("auto", "cpu", usable_cpus(), True), ("auto", "cuda", usable_cpus(), False), (3, "cpu", 3, False)],
)
def test_only_threads_that_nobody_asked_for_follow_the_load(
    monkeypatch: pytest.MonkeyPatch, threads: Any, device: str, most: int, may_change: bool
) -> None:
    monkeypatch.setattr("gristmill.train.runtime.busy_cores", lambda: 0.0)
    choice = Runtime(device=device, threads=threads, micro_batch_tokens=1).thread_choice(expected=100.0)
    seen = [choice.threads]
    for _ in range(4):
        choice.after_step(1, 1.0, float(most))
        seen.append(choice.threads)
    assert seen[0] == most
    assert (min(seen) < most) == (may_change and most > 1)


@pytest.mark.parametrize(("threads", "found"), [("auto", [1, 2, 1, 1]), (2, [2, 2, 2, 2])])
def test_pieces_that_cannot_be_compared_follow_the_load_itself(
    monkeypatch: pytest.MonkeyPatch, threads: Any, found: list[int]
) -> None:
    loads = iter([0.0, 1.7, None])
    asked: list[int] = []
    monkeypatch.setattr("gristmill.train.runtime.busy_cores", lambda: 1.2)
    monkeypatch.setattr("gristmill.graph.machine.usable_cpus", lambda: 2)
    monkeypatch.setattr("gristmill.graph.cores.usable_cpus", lambda: 2)
    monkeypatch.setattr("gristmill.train.runtime.CoreWatch", lambda: SimpleNamespace(busy_cores=lambda: next(loads)))
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    by_load = ThreadsByLoad(Machine(threads=threads, processes=1))
    for _ in range(3):
        by_load.next_piece()
    in_use = asked + asked[-1:] * (4 - len(asked))
    assert in_use == found


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_words_follow_the_number_of_threads_both_ways(threads_as_before: None) -> None:
    said = list[str]()
    choice = ThreadChoice(most=2, first=1)
    threads = TrainingThreads(choice, said.append)
    for _ in range(4):
        assert not threads.after_step(100, 1.0, 1.0)
    (line,) = said
    assert "training with 1 of 2 threads" in line
    choice.see_cores(2.0, IDLE_SECONDS)
    assert threads.after_step(100, 1.0, 1.0)
    assert torch.get_num_threads() == 2
    assert len(said) == 1, "a trial is not yet a choice"
    for _ in range(2):
        threads.after_step(200, 1.0, 2.0)
    assert said[1:] == ["Training with 2 threads again."]


def test_a_number_that_was_asked_for_is_kept_in_silence(threads_as_before: None) -> None:
    said = list[str]()
    threads = TrainingThreads(ThreadChoice(most=2, may_change=False), said.append)
    assert not any(threads.after_step(100, seconds, 1.0) for seconds in (1.0, 1.0, 1.0, 30.0, 30.0, 30.0))
    assert said == []
