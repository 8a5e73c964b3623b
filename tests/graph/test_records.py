"""Two records of a step: what was asked otherwise, in words."""

from __future__ import annotations

from typing import Any

import pytest

from gristmill.graph.state import asked_otherwise


def record(config: dict[str, Any], defaults: dict[str, Any] | None = None, **document: Any) -> dict[str, Any]:
    whole = {"config": config, "version": {"m.step": 1}, "files": {}, "inputs": {}, **document}
    return {"document": whole, "resolved": {**(defaults or {}), **config}}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (record({"limits": {"a": 1}}), record({"limits": {"a": 2}}), ["limits.a: 1 → 2"]),
        (record({"limits": {"a": 1}}), record({"limits": {"a": 1, "b": 3}}), ["limits.b: added, 3"]),
        (record({"limits": {"a": 1}}), record({"limits": {}}), ["limits.a: removed, was 1"]),
        (
            record({"a": 1}),
            record({"a": 2}, {"new": 7}),
            ["a: 1 → 2"],
        ),  # a key that came with a later version, at its default
        (record({"a": 1}), record({"a": 1, "new": 8}), ["new: added, 8"]),
        (
            record({}, version={"m.step": 2}),
            record({}),
            ["the code of step changed its meaning: version 2 → 1"],
        ),
        (record({}, files={"source": {"x": "0"}}), record({}, files={"source": {"x": "1"}}), ["source: x changed"]),
        (record({"a": 1}), record({"a": 1}), []),
    ],
)
def test_only_what_was_asked_otherwise_is_told(old: dict[str, Any], new: dict[str, Any], words: list[str]) -> None:
    assert asked_otherwise(old, new) == words
