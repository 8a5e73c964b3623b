"""A context extension against its control: the same checkpoint, the same tokens, the same rates; only the length of the sequences and the
stage's mixture differ, and both are measured within the old length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from arms_prefix import prefix

from gristmill.ablate.design import design_of
from gristmill.errors import RecipeError
from gristmill.pipeline import steps_of
from gristmill.recipe.load import LoadedRecipe
from gristmill.train.course import course_of

Load = Callable[..., LoadedRecipe]
ASKED = {"kind": "extension", "endpoint": "glosses", "seeds": 3}
TRUNK_STEPS, ALL_STEPS = 22, 28


def test_both_arms_leave_the_trunk_where_the_context_is_extended_and_finish_its_decay(load: Load) -> None:
    loaded = load(ASKED)
    design = design_of(loaded, None)
    assert (design.after_step, design.tokens) == (TRUNK_STEPS, 6144)
    assert [(trial.arm.name, trial.seed) for trial in design.trials] == [
        (arm, seed) for seed in (1, 2, 3) for arm in ("control", "extension")
    ]
    trunk = prefix(loaded, TRUNK_STEPS)
    whole = course_of(loaded.recipe.pretrain, rope_theta=loaded.recipe.model.rope_theta)
    for trial in design.trials:
        assert prefix(trial.loaded, TRUNK_STEPS) == trunk
        course = course_of(trial.loaded.recipe.pretrain, rope_theta=loaded.recipe.model.rope_theta)
        rates = [one.lr_of_step(step) for one in (whole, course) for step in range(ALL_STEPS)]
        assert rates[:ALL_STEPS] == rates[ALL_STEPS:]


def test_the_control_stays_at_the_old_length_and_mixture_and_the_extension_is_the_recipes(load: Load) -> None:
    loaded = load(ASKED)
    design = design_of(loaded, None)
    control, extension = (trial.loaded.recipe.pretrain.stages[-1] for trial in design.trials[:2])
    decay, own = loaded.recipe.pretrain.stages[1:]
    assert (control.seq_len, control.mixture, control.rope_theta, control.tokens) == (128, decay.mixture, None, 6144)
    assert extension == own.model_copy(update={"reshuffle": 1})
    assert [trial.loaded.recipe.pretrain.stages[-1].reshuffle for trial in design.trials] == [1, 1, 2, 2, 3, 3]


def test_both_arms_are_measured_within_the_old_length(load: Load) -> None:
    for trial in design_of(load(ASKED), None).trials:
        [evaluate] = [step for step in steps_of(trial.loaded.recipe) if step.name == "evaluate"]
        assert evaluate.given.config["window"] == 128


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"candidates": {"dictionary": {"glosses": 1}}}, "has no candidates; remove it"),
        ({"tokens": 1024}, "has no tokens; remove it"),
        ({"kind": "anneal"}, "compares candidates; name at least one"),
    ],
)
def test_what_an_extension_cannot_be_asked_is_refused(load: Load, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load({**ASKED, **asked})


def test_a_recipe_that_extends_nothing_is_refused(load: Load, tiny: Any) -> None:
    stages = [{**stage, "seq_len": 128} for stage in tiny.tiny_recipe()["pretrain"]["stages"]]
    with pytest.raises(RecipeError, match="so there is no extension to judge"):
        design_of(load(ASKED, stages=stages), None)
