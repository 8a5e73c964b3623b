"""What a model made of long texts, as a line of positions.jsonl: for who shows it, and without a model.

positions.py measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gristmill.written import Written

DIGITS = 10  # and needles of a cell


@dataclass(frozen=True, kw_only=True)
class ReadDocument(Written):
    """nats, tokens: between each two edges; none beyond the document's end."""

    source: str
    nats: tuple[float, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Needles(Written):
    """A cell of the map. length: of the text, in tokens; depth: 0 is its beginning; right: of `asked` needles."""

    length: int
    depth: float
    right: int
    asked: int


@dataclass(frozen=True, kw_only=True)
class LongContext(Written):
    """A line of positions.jsonl: what a model made of long texts at a step. stage: that extends the context from old to new tokens; is_after: it
    has ended, else it is about to begin.

    edges: of positions, from 0. needles: none before the stage, and where digits are no tokens.
    """

    origin: str | None = None
    step: int
    tokens: int
    kind: Literal["positions"]
    stage: str
    is_after: bool
    old: int
    new: int
    edges: tuple[int, ...]
    documents: tuple[ReadDocument, ...]
    needles: tuple[Needles, ...]
