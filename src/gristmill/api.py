"""The public Python API: what the command line does, as functions. Importing it is cheap; steps import what they need."""

from __future__ import annotations

from gristmill.forecast import make_forecast as plan
from gristmill.graph.machine import Machine
from gristmill.recipe.load import load_recipe
from gristmill.runner import run

__all__ = ["Machine", "load_recipe", "plan", "run"]
