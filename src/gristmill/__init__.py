"""gristmill: from raw text to a small language model. One recipe, one command, every decision on the record.

The same verbs as on the command line:

    from gristmill import plan, run
    print(plan("recipes/quickstart.yaml").hours)
    folder = run("recipes/quickstart.yaml")
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.api import Forecast, GristmillError, LoadedRecipe, Machine, load_recipe, plan, run

    __version__: str

__all__ = [
    "Forecast",
    "GristmillError",
    "LoadedRecipe",
    "Machine",
    "__version__",
    "load_recipe",
    "plan",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("gristmill")
    if name in __all__:
        return getattr(import_module("gristmill.api"), name)
    raise AttributeError(f"module 'gristmill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
