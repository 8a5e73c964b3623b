"""The pieces of an evaluation, one after the other: where it is, whether it was asked to stop, how many threads it computes with."""

from __future__ import annotations

from gristmill.errors import Interrupted
from gristmill.graph.progress import Position
from gristmill.graph.step import StepContext
from gristmill.train.runtime import ThreadsByLoad


class Pieces:
    """A piece is one model on one pack or source, or on what it was asked in chat."""

    def __init__(self, ctx: StepContext, *, total: int) -> None:
        self._ctx, self._total = ctx, total
        self._begun = 0
        self._threads = ThreadsByLoad(ctx.machine)

    def begin(self, what: str) -> None:
        """Before each piece. Raises Interrupted where the run was asked to stop."""
        self.leave_if_asked()
        self._ctx.progress(Position(done=self._begun, total=self._total, unit="piece", part=what))
        self._begun += 1
        self._threads.next_piece()

    def leave_if_asked(self) -> None:
        """Within a piece."""
        if self._ctx.should_stop():
            raise Interrupted(
                "stopped while evaluating; models that were finished are kept. Run the same command to resume."
            )

    def skip(self, number: int) -> None:
        """So many were done before."""
        self._begun += number
