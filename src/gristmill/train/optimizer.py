"""AdamW, the gradient's global norm, and clipping by it.

The norm is a sum of squares in float64: torch's float32 norm on CPU is off by parts in ten thousand for large matrices,
enough to make runs on other numbers of ranks drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gristmill.train.ranks.sharding import num_copies, part_of

_NORM_CHUNK_ON_DEVICE = 2**24  # elements; 128 MiB in float64
_NORM_CHUNK = 2**18  # elements; keeps the float64 copy that the norm makes within the cache


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """`norm` is the global norm before clipping. Where it is not finite the gradients were left as they were."""

    norm: float
    is_finite: bool
    was_clipped: bool


def make_optimizer(
    model: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    decay_embeddings: bool = True,
) -> torch.optim.AdamW:
    """AdamW over all parameters that require a gradient, fused where the device can; defaults are SmolLM2's.

    Weight decay is decoupled and acts on every parameter, norms too, as in SmolLM2; with `decay_embeddings` off the token
    embedding (and with it a tied head) is spared. The optimizer's state carries parameter names.
    Source: Loshchilov & Hutter 2019 (arXiv 1711.05101).
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    spared = [] if decay_embeddings else [pair for pair in named if pair[0].endswith("embed_tokens.weight")]
    names = {name for name, _ in spared}
    groups = [{"params": [pair for pair in named if pair[0] not in names], "weight_decay": weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    fused = all(parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point() for _, parameter in named)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def grad_norm(parameters: Iterable[nn.Parameter]) -> float:
    """The Euclidean norm of all gradients together, on one rank; parameters without a gradient count as zero."""
    return math.sqrt(float(grad_square_sum(parameters)))


def grad_square_sum(parameters: Iterable[nn.Parameter], device: torch.device | None = None) -> Tensor:
    """The sum of squares of all gradients, a float64 scalar on their device; of those whose parts lie on several ranks, this rank's
    share of it. device: where the zero is when there is no gradient."""
    grads = [parameter.grad.detach() for parameter in parameters if parameter.grad is not None]
    norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for grad in grads for part in _parts(part_of(grad))]
    if not norms:
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack(norms).square().sum() / num_copies(grads[0])


def _parts(grad: Tensor) -> tuple[Tensor, ...]:
    """Pieces whose float64 copies are small: they fit the cache of a CPU; a device has few large ones."""
    return torch.split(grad.reshape(-1), _NORM_CHUNK if grad.device.type == "cpu" else _NORM_CHUNK_ON_DEVICE)


def clip_(parameters: Iterable[nn.Parameter], max_norm: float, *, norm: float | None = None) -> Clipped:
    """Scale the gradients in place so that their global norm is at most `max_norm`; a norm known already can be given.

    A norm that is not finite changes nothing: the caller decides whether to skip the step or to stop.
    """
    parameters = list(parameters)
    norm = grad_norm(parameters) if norm is None else norm
    if not math.isfinite(norm):
        return Clipped(norm=norm, is_finite=False, was_clipped=False)
    if norm <= max_norm:
        return Clipped(norm=norm, is_finite=True, was_clipped=False)
    grads: list[Tensor] = [part_of(parameter.grad) for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(grads, max_norm / norm)
    return Clipped(norm=norm, is_finite=True, was_clipped=True)
