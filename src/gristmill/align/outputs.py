"""What pairs leaves."""

from __future__ import annotations

from gristmill.graph.outputs import File, Outputs


class PreferencePairs(Outputs):
    """Preference pairs in the form that trainers read, all answers that were drawn, and how many there were of each kind."""

    pairs = File("pairs.jsonl")
    answers = File("samples.jsonl", notes=True)
    report = File("report.json", notes=True)
