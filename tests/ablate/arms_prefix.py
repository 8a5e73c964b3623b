"""What shapes an arm up to a step, without tokens: sources stand for their text."""

from __future__ import annotations

from typing import Any

from gristmill.recipe.load import LoadedRecipe
from gristmill.train.course import course_of
from gristmill.train.prefix import prefix_at


def prefix(loaded: LoadedRecipe, step: int) -> dict[str, Any]:
    recipe = loaded.recipe
    return prefix_at(
        step,
        course=course_of(recipe.pretrain, rope_theta=recipe.model.rope_theta),
        model=recipe.model,
        section=recipe.pretrain,
        vocabulary="v",
        texts={name: name for name in recipe.sources},
        seed=recipe.pretraining_seed,
        number_format="float32",
    )
