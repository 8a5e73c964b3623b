"""A runtime is what the machine and the step say, with a device that is here."""

from __future__ import annotations

import pytest
import torch

from gristmill.errors import RecipeError
from gristmill.graph.machine import Machine
from gristmill.train.runtime import Runtime, choose_device


@pytest.mark.parametrize(("has_cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_machine_becomes_a_runtime(monkeypatch: pytest.MonkeyPatch, has_cuda: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    said: list[str] = []
    runtime = Runtime.on(Machine(threads=3, micro_batch_tokens=77), say=said.append, should_stop=lambda: True)
    runtime.say("hello")
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
        Runtime.on(Machine(device="cuda"), say=print, should_stop=lambda: False)
