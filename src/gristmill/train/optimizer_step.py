"""One optimizer step on one global batch.

    micro-batches ─→ loss_fn ─→ sum of gradients / units of the whole batch ─→ clip ─→ optimizer

Several ranks take it together, each on its cut of the batch; what comes of it is of the whole batch, and the same on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from gristmill.errors import DataError, RecipeError
from gristmill.graph.ranks import ONE_RANK, Ranks
from gristmill.train.loss import LossOutput
from gristmill.train.micro_batches import add_up
from gristmill.train.optimizer import clip_, set_lr


class TrainingBatch(Protocol):
    """What the loop asks of a batch, or of a rank's cut of one. Units are what the loss is averaged over: unmasked tokens, or pairs."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def num_units(self) -> int | float: ...

    def micro_batches(self, max_tokens: int) -> Sequence[Any]: ...


BatchT = TypeVar("BatchT", bound=TrainingBatch)


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """One step, over all ranks: was it applied, the units and tokens of its batch, the loss per unit, the gradient norm before
    clipping, the sums the loss reported, what its micro-batches were cut to, the seconds of own work of each of several ranks."""

    applied: bool
    units: float
    tokens: int
    loss: float
    grad_norm: float
    sums: dict[str, tuple[float, float]]
    micro_batch_tokens: int
    rank_seconds: Sequence[float]

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient norm are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    @property
    def averages(self) -> dict[str, float]:
        """The step's loss, its gradient norm, and what the loss reported, by the names of its sums."""
        reported = {name: total / count for name, (total, count) in self.sums.items() if count > 0}
        return {"loss": self.loss, "grad_norm": self.grad_norm} | reported


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: BatchT,
    loss_fn: Callable[[Any, BatchT], LossOutput],
    *,
    lr: float,
    micro_batch_tokens: int,
    max_grad_norm: float,
    accepts: Callable[[StepOutcome], bool] = lambda outcome: True,
    ranks: Ranks = ONE_RANK,
    reports: Sequence[str] = (),
) -> StepOutcome:
    """One optimizer step on one global batch, however many micro-batches it takes.

    The gradient is the sum of the micro-batch losses over the units of the *whole* batch, so the cut into micro-batches does
    not change what is optimised; nor does the cut among ranks. A loss or gradient norm that is not finite leaves weights and
    optimizer state as they were, on all ranks, and so does a step that `accepts` turns down. `reports` names what the loss may report;
    one rank needs no names. Where a device has too little memory the step is taken with smaller micro-batches (micro_batches.py).
    Raises DataError for a batch in which nothing counts.
    """
    units, tokens = ranks.sum([float(batch.num_units), float(batch.num_tokens)])
    if units <= 0:
        raise DataError(f"a batch of {tokens:.0f} tokens has no token or pair that counts for the loss")
    optimizer.zero_grad(set_to_none=True)
    added = add_up(
        model,
        batch,
        loss_fn,
        units=units,
        micro_batch_tokens=micro_batch_tokens,
        ranks=ranks,
        reports=reports,
    )
    norm = math.sqrt(added.grad_square_sum)
    found = StepOutcome(
        applied=False,
        units=units,
        tokens=round(tokens),
        loss=added.loss_sum / units,
        grad_norm=norm,
        sums=added.sums,
        micro_batch_tokens=added.micro_batch_tokens,
        rank_seconds=added.rank_seconds,
    )
    applied = accepts(found) and found.is_finite
    if applied:
        clip_(model.parameters(), max_grad_norm, norm=norm)
        set_lr(optimizer, lr)
        _update(optimizer)
    optimizer.zero_grad(set_to_none=True)
    return replace(found, applied=applied)


def _update(optimizer: torch.optim.Optimizer) -> None:
    """Raises RecipeError where a device has no memory for the optimizer's state, which the first update makes."""
    try:
        optimizer.step()
    except torch.OutOfMemoryError as error:
        raise RecipeError(
            "the device ran out of memory in the update of the weights, which needs the same whatever the micro-batch is. Spread the model "
            "over more devices with --ranks, end other programs on the device, or make the model smaller."
        ) from error
