"""Head and cross-entropy together, in chunks, so that the logits of all tokens never exist at once.

    x_ND ─→ for each chunk of C tokens: logits_CV ─→ nll_C, and at once the gradients of x and of the head's matrix

The gradient of cross-entropy needs nothing that the forward pass does not have, so it is made there, in the buffer that held
the logits; the backward pass only scales it. Memory: one chunk of logits and one gradient of the head's matrix.

Shape letters: N tokens, M tokens that count, C tokens of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gristmill.model.transfer import on_device
from gristmill.model.transformer import Llama
from gristmill.planning.cost import loss_chunk_tokens
from gristmill.tokens.batch import Batch
from gristmill.train.prefix import number_format


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """What one micro-batch gives the loop. It divides by the count of the whole step, over all micro-batches and ranks.

    A sum is a float64 scalar on the device, without gradient: the host reads it at the end of the step. Counts it knows by itself.
    """

    loss_sum: Tensor  # scalar with gradient: the sum to minimise
    sums: dict[str, tuple[Tensor, float]]  # name -> (sum, count); a metric is sum / count, added up over micro-batches


def chunked_cross_entropy(
    x_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    loss_mask_N: Tensor,
    chunk_tokens: int | None = None,
    *,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(loss_sum, nll_N): the sum over tokens of loss_mask × (nll + z_loss × log(Z)²), differentiable, and each token's nll, detached.

    Z is the sum of a token's exponentiated logits; the second term keeps it near 1, and so the logits from drifting off together.

    x_ND is the hidden state after the final norm, weight_VD the head's matrix, targets_N int64 in [0, V), loss_mask_N float:
    any weight, negative ones too. nll is in nats, float32, and also given where the mask is 0.
    Never holds more than chunk_tokens × V logits; None chooses by V. The backward pass can run once per forward.
    Source of z-loss: Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), section 5, with weight 1e-4.
    """
    chunk = chunk_tokens or loss_chunk_tokens(weight_VD.shape[0])
    mask_N = loss_mask_N.float()
    if torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad):
        result: tuple[Tensor, Tensor] = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            x_ND, weight_VD, targets_N, mask_N, chunk, z_loss
        )
        return result
    parts = [
        _nll_and_logits(x_CD, weight_VD, targets_C)[:2]
        for x_CD, targets_C in zip(torch.split(x_ND, chunk), torch.split(targets_N, chunk))
    ]
    nll_N, log_z_N = (torch.cat(part) for part in zip(*parts, strict=True))
    return _weighted_sum(nll_N, log_z_N, mask_N, z_loss), nll_N


def device_arithmetic(device: torch.device) -> AbstractContextManager[None]:
    """What a training step computes in: products in the number format of the device, over float32 weights."""
    dtype = getattr(torch, number_format(device.type))
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def next_token_loss(model: Llama, batch: Batch, source_names: Sequence[str], *, z_loss: float = 0.0) -> LossOutput:
    """Next-token loss of one flat batch: "loss" over all of it, and "loss/<source>" for each source that has targets in it.

    What is minimised has z_loss × log(Z)² of each token in it, too; the reported losses do not. Sums are nats weighted by the loss mask, counts are sums of the mask; both are added up in float64. The head is spent on
    only the targets that count: in chat, fewer than half.
    """
    counting = [] if batch.loss_mask_N.all() else [np.flatnonzero(batch.loss_mask_N)]
    tokens_N, positions_N, targets_N, mask_N, source_N, *rows = on_device(
        [batch.tokens_N, batch.positions_N, batch.targets_N, batch.loss_mask_N, batch.source_N, *counting], model.device
    )
    x_ND = model(tokens_N, positions_N, batch.document_lengths.tolist())
    for index_M in rows:
        x_ND, targets_N, mask_N, source_N = (
            values.index_select(0, index_M) for values in (x_ND, targets_N, mask_N, source_N)
        )
    loss_sum, nll_N = chunked_cross_entropy(x_ND, model.output_weight_VD, targets_N.long(), mask_N, z_loss=z_loss)
    counts = np.bincount(batch.source_N, weights=batch.loss_mask_N, minlength=len(source_names))
    return LossOutput(loss_sum=loss_sum, sums=sums_by_source(nll_N, mask_N, source_N, counts.tolist(), source_names))


def reports(source_names: Sequence[str]) -> tuple[str, ...]:
    """The names that the sums of `next_token_loss` may have."""
    return ("loss", *(f"loss/{name}" for name in source_names))


def sums_by_source(
    nll_N: Tensor, loss_mask_N: Tensor, source_N: Tensor, counts: Sequence[float], source_names: Sequence[str]
) -> dict[str, tuple[Tensor, float]]:
    """{"loss": (nats, count), "loss/<source>": (nats, count)}; a source without targets in the batch is left out.

    counts: the sum of the mask of each source.
    """
    nats_N = nll_N.double() * loss_mask_N.double()
    sums = {"loss": (nats_N.sum(), sum(counts))}
    # Sums under a mask, and no scattered additions, which a device makes in another order each time.
    for number, (name, count) in enumerate(zip(source_names, counts, strict=True)):
        if count:
            sums[f"loss/{name}"] = (torch.where(source_N == number, nats_N, 0.0).sum(), count)
    return sums


def _weighted_sum(nll_N: Tensor, log_z_N: Tensor, mask_N: Tensor, z_loss: float) -> Tensor:
    plain = torch.dot(nll_N, mask_N)
    return plain + z_loss * torch.dot(log_z_N.square(), mask_N) if z_loss else plain


def _nll_and_logits(x_CD: Tensor, weight_VD: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """nll_C and log(Z)_C, and the same chunk's exp(logits - max) with its row sums (C, 1), which make the gradient."""
    logits_CV = (x_CD @ weight_VD.T).float()
    target_logit = logits_CV.gather(1, targets_C[:, None])
    top = logits_CV.amax(1, keepdim=True)
    exponentials_CV = logits_CV.sub_(top).exp_()
    total = exponentials_CV.sum(1, keepdim=True)
    log_z = total.log() + top
    return (log_z - target_logit)[:, 0], log_z[:, 0], exponentials_CV, total


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, mask_N: Tensor, chunk: int, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        compute = _compute_dtype(x_ND)
        weight = weight_VD.to(compute)
        x_grad = torch.empty_like(x_ND) if wants_x else None
        # Float32 whatever the weight is: chunk after chunk of half-precision sums would round the small ones away.
        weight_grad = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        nll_N, log_z_N = (torch.empty(x_ND.shape[0], dtype=torch.float32, device=x_ND.device) for _ in range(2))
        with torch.autocast(x_ND.device.type, enabled=False):
            for start in range(0, x_ND.shape[0], chunk):
                here = slice(start, start + chunk)
                x_CD, targets_C, mask = x_ND[here].to(compute), targets_N[here], mask_N[here, None]
                nll_N[here], log_z_N[here], slope_CV, total = _nll_and_logits(x_CD, weight, targets_C)
                weight_C1 = mask / total
                if z_loss:
                    weight_C1 = weight_C1 * (1 + 2 * z_loss * log_z_N[here, None])
                slope_CV.mul_(weight_C1).scatter_add_(
                    1, targets_C[:, None], -mask
                )  # mask × (softmax − one-hot), without z_loss
                slope_CV = slope_CV.to(compute)
                if x_grad is not None:
                    x_grad[here] = slope_CV @ weight
                if weight_grad is not None:
                    _add_product(weight_grad, slope_CV.T, x_CD)
        ctx.grads = (x_grad, None if weight_grad is None else weight_grad.to(weight_VD.dtype))
        ctx.mark_non_differentiable(nll_N)
        return _weighted_sum(nll_N, log_z_N, mask_N, z_loss), nll_N

    @staticmethod
    def backward(ctx, loss_grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:  # type: ignore[no-untyped-def]
        if ctx.grads is None:
            raise RuntimeError("chunked_cross_entropy was differentiated twice; run its forward pass again")
        x_grad, weight_grad = ctx.grads
        ctx.grads = None  # they are scaled in place: a second copy of the head's gradient is what we came to avoid
        for grad in (x_grad, weight_grad):
            if grad is not None:
                grad.mul_(loss_grad)
        return x_grad, weight_grad, None, None, None, None


def _add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """into += left @ right, in one pass where the types agree; half-precision products are added up in `into`'s type."""
    if into.dtype == left.dtype:
        into.addmm_(left, right)
    else:
        into.add_(left @ right)


def _compute_dtype(x_ND: Tensor) -> torch.dtype:
    """The type of the matrix products: autocast's where it is on, else that of the hidden state."""
    kind = x_ND.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_ND.dtype
