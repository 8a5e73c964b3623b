"""Copies to a device: by a stream of their own, from pinned memory, and nothing is used before its copy or overwritten before its use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gristmill.model.transfer import copied, on_device


def test_on_a_processor_nothing_is_copied() -> None:
    array = np.arange(5)
    [tensor] = on_device([array], torch.device("cpu"))
    array[2] = 77
    assert tensor.tolist() == [0, 1, 77, 3, 4]


class Host:
    """A tensor of the host that notes how it is copied."""

    def __init__(self, name: str, log: list[Any], *, is_pinned: bool = False) -> None:
        self.name, self.log, self.is_pinned = name, log, is_pinned

    def pin_memory(self) -> Host:
        return Host(self.name, self.log, is_pinned=True)

    def to(self, device: Any, *, non_blocking: bool) -> Any:
        self.log.append(("copy", self.name, self.is_pinned and non_blocking))
        return SimpleNamespace(record_stream=lambda stream: self.log.append(("kept for", self.name, stream.name)))


def test_copies_go_beside_the_work_and_work_begins_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []

    class Stream:
        name = "computing"

        def wait_stream(self, other: Any) -> None:
            log.append(("wait for", other.name))

    @contextmanager
    def within(stream: Any) -> Iterator[None]:
        log.append(("on", stream.name))
        yield
        log.append(("off", stream.name))

    monkeypatch.setattr(torch.cuda, "stream", within)
    copying = SimpleNamespace(name="copying")
    hosts: list[Any] = [Host("tokens", log), Host("targets", log)]
    found = copied(hosts, torch.device("cuda"), copying=copying, computing=Stream())
    assert len(found) == 2
    assert log == [
        ("on", "copying"),
        ("copy", "tokens", True),
        ("copy", "targets", True),
        ("off", "copying"),
        ("wait for", "copying"),
        ("kept for", "tokens", "computing"),
        ("kept for", "targets", "computing"),
    ]
