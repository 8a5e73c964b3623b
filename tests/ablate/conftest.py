"""A recipe with an ablation, loaded from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill.recipe.load import LoadedRecipe, load_recipe

Load = Callable[..., LoadedRecipe]


@pytest.fixture
def load(tiny: Any, tmp_path: Path) -> Load:
    def write(ablation: dict[str, Any], **pretrain: Any) -> LoadedRecipe:
        recipe = tiny.tiny_recipe()
        recipe["pretrain"] |= pretrain
        recipe["ablations"] = {"data": ablation}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        return load_recipe(path)

    return write
