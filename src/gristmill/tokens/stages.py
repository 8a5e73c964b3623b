"""The stage table of a stream, and what the stream says about itself.

A stage is a number of sequences of one length and a mixture of draws; the stream (stream.py) turns the table and a seed into
the order of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from gristmill.errors import RecipeError
from gristmill.tokens.mixture import Mixture
from gristmill.tokens.windows import Part
from gristmill.written import Written


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A source's share of a stage's sequences; `min_document_tokens` leaves out its shorter documents (inclusive limit)."""

    source: str
    weight: float | str | Fraction
    min_document_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class StreamStage:
    """`num_samples` sequences of `seq_len` tokens, apportioned to `draws`, whose weights sum to 1.

    reshuffle: from this stage on, what is left of each source comes in another order, one for each number.
    """

    name: str
    num_samples: int
    seq_len: int
    draws: tuple[Draw, ...]
    reshuffle: int | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where one sequence comes from. parts: of which documents; rows of the source's shard, which keeps their order."""

    sample: int
    stage: str
    source: str
    epoch: int
    window: int
    parts: tuple[Part, ...]

    @property
    def documents(self) -> tuple[int, ...]:
        """The documents that it touches."""
        return tuple(part.document for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Use(Written):
    """What was drawn from one selection of a source in windows of one length, and the tokens it has. Selections of one source
    overlap: how often documents were read, planning/budget.py says."""

    source: str
    min_document_tokens: int | None
    seq_len: int
    tokens_drawn: int
    unique_tokens: int


def stage_mixture(stage: StreamStage) -> Mixture:
    """The order of the stage's sources. Raises RecipeError for a stage that cannot be drawn."""
    if stage.num_samples < 1 or stage.seq_len < 1 or not stage.draws:
        raise RecipeError(
            f"stage {stage.name!r} has {stage.num_samples} sequences of {stage.seq_len} tokens from {len(stage.draws)} sources, "
            "expected at least one of each."
        )
    selections = [(draw.source, draw.min_document_tokens) for draw in stage.draws]
    for selection in selections:
        if selections.count(selection) > 1:
            raise RecipeError(
                f"stage {stage.name!r} lists source {selection[0]!r} twice with one selection. Add the weights up."
            )
    try:
        return Mixture([draw.weight for draw in stage.draws])
    except RecipeError as error:
        raise RecipeError(f"stage {stage.name!r}: {error}") from error
