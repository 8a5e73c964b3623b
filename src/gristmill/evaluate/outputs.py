"""What evaluate leaves."""

from __future__ import annotations

from gristmill.graph.outputs import File, Outputs


class Evaluated(Outputs):
    """Scores with their intervals, paired comparisons, and every item that was asked."""

    results = File("results.json")
    comparisons = File("comparisons.json")
    items = File("items", covers=("items/*",))
    models = File("models", covers=("models/*",), notes=True)
