"""What export leaves."""

from __future__ import annotations

from gristmill.graph.outputs import File, Outputs


class Exported(Outputs):
    """The released model folder, and the proof that it computes what was trained."""

    model = File("model", covers=("model/*",))
    parity = File("parity.json")
