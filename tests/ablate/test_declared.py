"""The question stays the question: what was declared holds, and whoever has seen scores before has looked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gristmill.ablate.declared import DECLARED, RESULTS, UNDECLARED, declare
from gristmill.ablate.design import design_of
from gristmill.errors import RecipeError
from gristmill.recipe.load import LoadedRecipe

Load = Callable[..., LoadedRecipe]
ASKED = {"candidates": {"dictionary": {"glosses": 1}}, "endpoint": "novel", "seeds": 5}


def asked(
    load: Load, folder: Path, *, seen: int = 0, shaped_by: Mapping[str, Any] | None = None, **other: Any
) -> list[int]:
    """The seeds of each look, once it is declared."""
    design = design_of(load({**ASKED, **other}), None)
    looks = declare(folder, design, shaped_by=shaped_by or {"config": {"rate": 0.1}}, seeds_seen=lambda: seen)
    return [look["seeds"] for look in looks]


def test_asking_the_same_again_is_no_further_look(load: Load, tmp_path: Path) -> None:
    assert [asked(load, tmp_path, seen=seen) for seen in (0, 3, 5)] == [[5]] * 3


def test_seeds_that_are_added_before_anything_was_seen_replace_the_declaration(load: Load, tmp_path: Path) -> None:
    assert asked(load, tmp_path) == [5]
    assert asked(load, tmp_path, seeds=8) == [8]


@pytest.mark.parametrize("trace", ["the outcome", "scores of a training"])
def test_seeds_that_are_added_after_scores_were_seen_are_a_further_look(load: Load, tmp_path: Path, trace: str) -> None:
    """Whether the outcome was told, or its file is gone, or the trainings were stopped in the middle."""
    asked(load, tmp_path)
    if trace == "the outcome":
        (tmp_path / RESULTS).write_text("{}", encoding="utf-8")
    assert asked(load, tmp_path, seeds=8, seen=0 if trace == "the outcome" else 1) == [5, 8]


def test_a_question_that_is_declared_after_its_scores_were_seen_is_a_second_look(load: Load, tmp_path: Path) -> None:
    """Under another name, or after the declaration was removed."""
    assert asked(load, tmp_path, seen=5) == [5, 5]
    assert UNDECLARED in (tmp_path / DECLARED).read_text(encoding="utf-8")
    (tmp_path / DECLARED).unlink()
    assert asked(load, tmp_path, seen=3, seeds=9) == [3, 9]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"endpoint": "code"}, 'endpoint: "novel" → "code"'),
        ({"shares": [0.5]}, "arms.dictionary: glosses 0.66 → 0.57"),
        ({"validation_bytes": 999}, "validation_bytes: 3000 → 999"),
        ({"shaped_by": {"config": {"rate": 0.2}}}, "config.rate: 0.1 → 0.2"),
    ],
)
def test_whatever_else_changes_is_refused_with_what_it_is(
    load: Load, tmp_path: Path, other: dict[str, Any], words: str
) -> None:
    asked(load, tmp_path)
    before = (tmp_path / DECLARED).read_bytes()
    with pytest.raises(RecipeError, match="declared otherwise") as error:
        asked(load, tmp_path, **other)
    assert words in str(error.value)
    assert (tmp_path / DECLARED).read_bytes() == before


def test_held_out_text_that_is_measured_by_the_recipes_own_budget_is_part_of_the_question(
    load: Load, tmp_path: Path
) -> None:
    loaded = load(ASKED)
    declare(tmp_path, design_of(loaded, None), shaped_by={}, seeds_seen=lambda: 0)
    evaluate = loaded.recipe.evaluate.model_copy(update={"validation_bytes": 777})
    other = LoadedRecipe(
        recipe=loaded.recipe.model_copy(update={"evaluate": evaluate}), path=loaded.path, origins=loaded.origins
    )
    with pytest.raises(RecipeError, match="validation_bytes: 3000 → 777"):
        declare(tmp_path, design_of(other, None), shaped_by={}, seeds_seen=lambda: 0)
