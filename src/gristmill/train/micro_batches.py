"""The micro-batches of one step: forward and backward passes of which none waits for the device, cut smaller where it has too little memory.

    forward, backward of each micro-batch ─→ sums on the device ─→ one read at the end of the step
                │ out of memory
                └─→ gradients dropped, micro-batches cut in half, the same step from its first token

On a device the host runs ahead: it starts the work of all micro-batches before the first is computed. A number that is read in between
would make it wait, so whatever is logged or decided is added up on the device and read once.

Several ranks agree before the last backward pass, which is the one that exchanges gradients, whether all have had enough memory so far;
if one had not, all begin the step again. In the exchange itself nothing can be agreed on: there it ends the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gristmill.errors import RecipeError
from gristmill.graph.ranks import Ranks, any_rank
from gristmill.train.loss import LossOutput, device_arithmetic
from gristmill.train.optimizer import grad_square_sum
from gristmill.train.ranks.sharding import begin_again, exchange_after, gather
from gristmill.units import counted

Sums = dict[str, tuple[float, float]]  # name → (sum, count)


class Pieces(Protocol):
    """A batch that can be cut."""

    @property
    def num_units(self) -> int | float: ...

    def micro_batches(self, max_tokens: int) -> Sequence[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Added:
    """What is added up over the micro-batches of a rank, and then over ranks. micro_batch_tokens: what they were cut to.
    rank_seconds: by rank, which is not added up."""

    loss_sum: float
    grad_square_sum: float
    sums: Sums
    micro_batch_tokens: int
    rank_seconds: Sequence[float] = ()


def add_up(
    model: nn.Module,
    batch: Pieces,
    loss_fn: Callable[[Any, Any], LossOutput],
    *,
    units: float,
    micro_batch_tokens: int,
    ranks: Ranks,
    reports: Sequence[str],
) -> Added:
    """Leaves the gradient of the step's loss over `units` in the model's parameters, and returns what was added up, over all ranks.

    Where a device has too little memory the micro-batches are halved and the step begins again. Raises RecipeError, with what else can
    be done, when that helps no more.
    """
    while True:
        pieces = batch.micro_batches(micro_batch_tokens)
        found = _passes(
            model, pieces, loss_fn, units=units, counts=batch.num_units > 0, ranks=ranks, cut_to=micro_batch_tokens
        )
        if found is not None:
            return _over(found, ranks, reports, micro_batch_tokens)
        _free(model)
        micro_batch_tokens = _smaller(batch, pieces, ranks, micro_batch_tokens)


@dataclass(frozen=True, kw_only=True)
class _OnDevice:
    """loss_sum and totals are float64 scalars on the device."""

    loss_sum: Tensor
    totals: Mapping[str, Tensor]
    counts: Mapping[str, float]
    grad_square_sum: Tensor


def _passes(
    model: nn.Module,
    pieces: Sequence[Any],
    loss_fn: Callable[[Any, Any], LossOutput],
    *,
    units: float,
    counts: bool,
    ranks: Ranks,
    cut_to: int,
) -> _OnDevice | None:
    """Forward and backward passes of all micro-batches; None, on all ranks, where one ran out of memory.

    counts: whether this rank has anything that counts; else it only takes part in what all ranks exchange.
    """
    device = next(model.parameters()).device
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    totals: dict[str, Tensor] = {}
    count_of: dict[str, float] = {}
    is_out = False
    last: Tensor | None = None
    gather(model)
    try:
        for number, piece in enumerate(pieces, start=1):
            exchange_after(model, is_last=number == len(pieces))
            with device_arithmetic(device), ranks.own_work():
                output = loss_fn(model, piece)
            if counts:
                loss_sum = loss_sum + output.loss_sum.detach().double()
                for name, (total, count) in output.sums.items():
                    totals[name] = totals[name] + total if name in totals else total
                    count_of[name] = count_of.get(name, 0.0) + count
            last = output.loss_sum / units if counts else output.loss_sum * 0
            if number < len(pieces):
                last.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        is_out = True
    if any_rank(ranks, is_out) or last is None:
        return None
    try:
        last.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError as error:
        if ranks.size == 1:
            return None
        raise RecipeError(
            f"rank {ranks.rank} ran out of memory on its device while gradients were exchanged, with micro-batches of {cut_to:,} tokens. "
            f"Run again with --micro-batch-tokens {max(1, cut_to // 2)}; it resumes from the last checkpoint."
        ) from error
    return _OnDevice(
        loss_sum=loss_sum, totals=totals, counts=count_of, grad_square_sum=grad_square_sum(model.parameters(), device)
    )


def _over(found: _OnDevice, ranks: Ranks, reports: Sequence[str], micro_batch_tokens: int) -> Added:
    """Reads the numbers from the device, and adds them up over ranks by one sum of a vector that has the same places on each."""
    loss_sum, square_sum, *totals = torch.stack(
        [found.loss_sum, found.grad_square_sum, *found.totals.values()]
    ).tolist()
    sums = {name: (total, found.counts[name]) for name, total in zip(found.totals, totals, strict=True)}
    seconds: Sequence[float] = ()
    if ranks.size > 1:
        assert sums.keys() <= set(reports), f"the loss reports {[*sums]}, announced were {[*reports]}"
        pairs = [value for name in reports for value in sums.get(name, (0.0, 0.0))]
        loss_sum, square_sum, *rest = ranks.sum([loss_sum, square_sum, *pairs, *ranks.own_seconds()])
        sums = dict(zip(reports, zip(rest[: len(pairs) : 2], rest[1 : len(pairs) : 2]), strict=True))
        seconds = rest[len(pairs) :]
    return Added(
        loss_sum=loss_sum,
        grad_square_sum=square_sum,
        sums={name: pair for name, pair in sums.items() if pair[1]},
        micro_batch_tokens=micro_batch_tokens,
        rank_seconds=seconds,
    )


def _free(model: nn.Module) -> None:
    """Drops the gradients of the step that was not finished, and gives what is free back to the device."""
    for parameter in model.parameters():  # whole ones, where they are spread over ranks: parts exist after the exchange
        parameter.grad = None
    begin_again(model)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _smaller(batch: Pieces, pieces: Sequence[Any], ranks: Ranks, micro_batch_tokens: int) -> int:
    """Half of the largest micro-batch that any rank had. Raises RecipeError where that cuts nothing."""
    own = max(piece.num_tokens for piece in pieces)
    largest = round(max(ranks.sum([float(own) if rank == ranks.rank else 0.0 for rank in range(ranks.size)])))
    half = min(largest, micro_batch_tokens) // 2
    if not any_rank(ranks, half > 0 and len(batch.micro_batches(half)) > len(pieces)):
        raise RecipeError(
            f"the device ran out of memory with micro-batches of {counted(largest, 'token')}, and no smaller ones can be cut: documents are "
            "never parted. Compute activations twice with --recompute, spread the model over more devices with --ranks, end other programs "
            "on the device, or make seq_len or the model smaller."
        )
    return half
