"""Which numbers of ranks can train a recipe: each takes as many sequences of a step as the others."""

from __future__ import annotations

import math

from gristmill.errors import RecipeError
from gristmill.recipe.schema.training import Pretrain


def check_ranks(section: Pretrain, ranks: int) -> None:
    """Raises RecipeError, with the nearest numbers that are possible, for ranks that cannot share every stage's steps evenly."""
    counts = {stage.seq_len: section.global_batch_tokens // stage.seq_len for stage in section.stages}
    uneven = next((seq_len for seq_len, count in counts.items() if count % ranks), None)
    if uneven is None:
        return
    shared = math.gcd(*counts.values())
    possible = [number for number in range(1, shared + 1) if shared % number == 0]
    below, above = ([number for number in possible if (number > ranks) == is_above] for is_above in (False, True))
    raise RecipeError(
        f"--ranks is {ranks}, but a step has {counts[uneven]} sequences of {uneven} tokens, which so many ranks cannot share evenly.\n"
        f"  Use {' or '.join(map(str, (*below[-1:], *above[:1])))} ranks, or change pretrain.global_batch_tokens "
        f"({section.global_batch_tokens})."
    )
