"""The cursor of a guarded child in shared memory: where it is and how much of the spool holds, whenever it may end.

The state is several numbers and the child can end between writing two of them. So there are two slots: the next state is
written to the one not in use, then one number says which is.
"""

from __future__ import annotations

from multiprocessing.context import ForkServerContext
from typing import Any, NamedTuple

READING, PROCESSING, LEAVING, FINISHING = range(4)


class State(NamedTuple):
    """Reading or processing the item that follows `passed` others after a place, with results of so many records, and so many
    bytes of results, made.

    LEAVING: passing over a stretch that cannot be read. FINISHING: all is read.
    """

    part: int
    entry: int
    passed: int
    records: int
    spool_bytes: int
    phase: int


_SLOT = len(State._fields)
_BEATS, _ACTIVE, _FIRST = 0, 1, 2


class Cursor:
    """Written by the child, read by the parent. beats: rises whenever the child gives a sign of life."""

    def __init__(self, numbers: Any) -> None:
        self._numbers = numbers

    @classmethod
    def shared(cls, context: ForkServerContext, state: State) -> Cursor:
        """A cursor at `state` that can be handed to a child."""
        return cls(context.RawArray("q", [0, 0, *state, *state]))

    @property
    def beats(self) -> int:
        """Signs of life so far."""
        return int(self._numbers[_BEATS])

    def beat(self) -> None:
        """Gives a sign of life."""
        self._numbers[_BEATS] += 1

    def write(self, state: State) -> None:
        """Moves to `state`, at once or not at all."""
        slot = 1 - self._numbers[_ACTIVE]
        first = _FIRST + slot * _SLOT
        self._numbers[first : first + _SLOT] = state
        self._numbers[_ACTIVE] = slot
        self.beat()

    def read(self) -> State:
        """The state that was written last."""
        first = _FIRST + int(self._numbers[_ACTIVE]) * _SLOT
        return State(*self._numbers[first : first + _SLOT])
