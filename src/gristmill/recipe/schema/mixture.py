"""What a stage of pretraining draws from: shares of sources that sum to one, as they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import Field

from gristmill.recipe.schema.section import MAX_WEIGHT_DECIMALS, Length, Section, Weight


class Draw(Section):
    """One entry of a mixture: a share of the stage's tokens from a source, or from its long documents only."""

    source: str = Field(description="a name from `sources`")
    weight: Weight = Field(description=f"of the stage's tokens, with at most {MAX_WEIGHT_DECIMALS} decimals")
    min_document_tokens: Length | None = Field(
        default=None, description="only from documents with at least this many tokens; absent: from all"
    )


def as_draws(value: Any) -> Any:
    """The short form, source: weight, as a list of draws; anything else as it is."""
    if isinstance(value, Mapping):
        return [{"source": source, "weight": weight} for source, weight in value.items()]
    return value


def check_mixture(mixture: Sequence[Draw], where: str) -> None:
    """Raises ValueError unless the weights sum to 1, can be apportioned exactly, and name each selection once."""
    total = sum((Decimal(repr(draw.weight)) for draw in mixture), Decimal(0))
    if abs(total - 1) > Decimal("1e-9"):
        raise ValueError(f"the weights of {where} sum to {total}, not 1 (off by {total - 1:+})")
    for draw in mixture:
        exponent = Decimal(repr(draw.weight)).normalize().as_tuple().exponent
        if isinstance(exponent, int) and -exponent > MAX_WEIGHT_DECIMALS:
            raise ValueError(
                f"the weight {draw.weight!r} of {draw.source!r} in {where} has more than {MAX_WEIGHT_DECIMALS} decimals; "
                "tokens are apportioned exactly, so round it"
            )
    keys = [(draw.source, draw.min_document_tokens) for draw in mixture]
    if len(set(keys)) != len(keys):
        raise ValueError(f"{where} draws the same selection twice; add the weights up")
