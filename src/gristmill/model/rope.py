"""Rotary position embedding in the half-split layout: which angle each position has, and how it turns queries and keys.

Dimension i of a head is paired with dimension i + K/2 (Hugging Face Llama). Checkpoints of trainers that pair neighbours
instead must be permuted before they are loaded; `LlamaConfig` refuses a config that says it is interleaved.

Shape letters: N tokens, H heads, K head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_angles(positions_N: Tensor, *, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, float32, each (N, 1, K/2); made once per batch, shared by all layers.

    Frequencies are theta^(-2i/K). Computed in float32, as Hugging Face does, so that both see the same angles.
    Source: Su et al. 2021 (arXiv 2104.09864), section 3.2.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_N.device) / head_dim
    frequencies = 1.0 / (theta**exponents)
    angles = positions_N.to(torch.float32)[:, None] * frequencies
    return angles.cos()[:, None, :], angles.sin()[:, None, :]


def rotate(x_NHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x with each pair of dimensions (i, i + K/2) turned by its angle; same shape and dtype."""
    if not torch.is_grad_enabled():
        return _turn(x_NHK, cos, sin)
    rotated: Tensor = _Rotate.apply(x_NHK, cos, sin)  # type: ignore[no-untyped-call]
    return rotated


class _Rotate(torch.autograd.Function):
    """The derivative of a rotation is the rotation back, so nothing but the angles is kept for the backward pass."""

    @staticmethod
    def forward(ctx, x_NHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(cos, sin)
        return _turn(x_NHK, cos, sin)

    @staticmethod
    def backward(ctx, grad_NHK: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        cos, sin = ctx.saved_tensors
        return _turn(grad_NHK, cos, -sin), None, None


def _turn(x_NHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.to(x_NHK.dtype), sin.to(x_NHK.dtype)
    half = x_NHK.shape[-1] // 2
    first, second = x_NHK[..., :half], x_NHK[..., half:]
    turned = torch.empty_like(x_NHK, memory_format=torch.contiguous_format)
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned[..., half:]).addcmul_(first, sin)
    return turned
