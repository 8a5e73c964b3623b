"""gristmill: from raw text to a small language model. One recipe, one command, every decision on the record.

The same verbs as on the command line:

    from gristmill import Machine, load_recipe, plan, run
    recipe = load_recipe("recipes/quickstart.yaml")
    print(plan(recipe, Machine()).hours)
    folder = run(recipe, Machine())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.api import Machine, load_recipe, plan, run

__all__ = ["Machine", "load_recipe", "plan", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("gristmill.api"), name)
    raise AttributeError(f"module 'gristmill' has no attribute {name!r}")
