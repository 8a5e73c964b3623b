"""Trainings of an ablation: what they were made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gristmill.ablate import trials
from gristmill.ablate.design import design_of
from gristmill.recipe.load import LoadedRecipe
from gristmill.store.store import Store

ASKED = {"candidates": {"dictionary": {"glosses": 1}}, "endpoint": "novel", "seeds": 3}


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({}, []),
        ({"control.2": {"device": "cuda"}}, ['control.2: device: "cpu" → "cuda"']),
        (
            {"dictionary.1": {"threads": 2}, "dictionary.3": {"threads": 2}},
            ["dictionary.1, dictionary.3: threads: 1 → 2"],
        ),
    ],
)
def test_trainings_that_were_made_otherwise_than_the_first_are_named(
    load: Callable[..., LoadedRecipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: dict[str, dict[str, Any]],
    words: list[str],
) -> None:
    class Links:
        """Of runs that are all trained, but for the last."""

        def __init__(self, store: Store, run: str) -> None:
            self.trial = run.removeprefix("tiny.data.")

        def target(self, step: str) -> str | None:
            return None if self.trial == "control.3" else "made"

        def record_of(self, step: str, identity: str) -> dict[str, Any]:
            made_with = {"device": "cpu", "threads": 1, **others.get(self.trial, {})}
            return {"counts": {"environment": made_with}}

    monkeypatch.setattr(trials, "RunLinks", Links)
    assert trials.other_environments(design_of(load(ASKED), None), Store(tmp_path)) == words
