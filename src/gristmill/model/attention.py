"""Causal attention over a flat batch: documents lie one after another and no token sees another document.

There is no mask tensor. On the CPU each document is one call of scaled_dot_product_attention; on CUDA in half precision all
documents are one call of torch's variable-length attention where this torch and the GPU have it, else the same call per document.

Shape letters: N tokens of the batch, L tokens of one document, S tokens in a cache, H query heads, G key/value heads
(H is a multiple of G: grouped-query attention), K head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gristmill.model.transfer import on_device

HALF = (torch.float16, torch.bfloat16)
MAX_HEAD_SIZE, HEAD_SIZE_STEP = 256, 8  # of variable-length attention, which is FlashAttention 2
FLASH = (8, 0)  # the compute capability that it needs: Ampere


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Where the documents of one flat batch lie; made once per batch and shared by all layers."""

    lengths: list[int]
    offsets: Tensor | None  # int32 (documents + 1,) on the device, for variable-length attention only

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> Documents:
        offsets = None
        if device.type == "cuda" and _variable_length_attention() is not None and _has_flash(device):
            [offsets] = on_device([np.cumsum([0, *lengths], dtype=np.int32)], device)
        return cls(lengths=lengths, offsets=offsets)


def document_attention(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, documents: Documents) -> Tensor:
    """Causal attention within each document; (N, H, K)."""
    attend, head_size = _variable_length_attention(), q_NHK.shape[-1]
    fits = q_NHK.dtype in HALF and head_size <= MAX_HEAD_SIZE and head_size % HEAD_SIZE_STEP == 0
    if documents.offsets is not None and attend is not None and fits:
        offsets, longest = documents.offsets, max(documents.lengths)
        grouped = q_NHK.shape[1] != k_NGK.shape[1]
        check_variable_length(q_NHK, k_NGK, v_NGK, documents)
        out: Tensor = attend(
            q_NHK, k_NGK, v_NGK, offsets, offsets, longest, longest, window_size=(-1, 0), enable_gqa=grouped
        )
        return out
    lengths = documents.lengths
    if len(set(lengths)) == 1:  # one call for all; measured: the same bits, a tenth to a third less time
        return _attend(q_NHK, k_NGK, v_NGK, documents=len(lengths))
    parts = zip(*(torch.split(x, lengths) for x in (q_NHK, k_NGK, v_NGK)), strict=True)
    return torch.cat([_attend(q_LHK, k_LGK, v_LGK) for q_LHK, k_LGK, v_LGK in parts])


def check_variable_length(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, documents: Documents) -> None:
    """Asserts what the kernel needs of its arguments, without reading a value from the device.

    Torch's stand-in for it, by which shapes are traced, accepts anything; the kernel reads wrong offsets as they are.
    Source: the checks of FlashAttention 2's mha_varlen_fwd.
    """
    offsets, device = documents.offsets, q_NHK.device
    assert offsets is not None, "there are no offsets"
    assert offsets.dtype == torch.int32, f"offsets are {offsets.dtype}, the kernel reads int32"
    assert offsets.shape == (len(documents.lengths) + 1,), (
        f"{tuple(offsets.shape)} offsets, {len(documents.lengths)} documents"
    )
    assert offsets.is_contiguous(), "offsets are not contiguous"
    tensors = (q_NHK, k_NGK, v_NGK, offsets)
    assert all(x.device == device for x in tensors), f"tensors lie on {[str(x.device) for x in tensors]}"
    assert q_NHK.dtype in HALF, f"queries are {q_NHK.dtype}; the kernel computes in float16 and bfloat16"
    assert q_NHK.dtype == k_NGK.dtype == v_NGK.dtype, (
        f"queries are {q_NHK.dtype}, keys {k_NGK.dtype}, values {v_NGK.dtype}"
    )
    heads, size = q_NHK.shape[1:]
    assert size in range(HEAD_SIZE_STEP, MAX_HEAD_SIZE + 1, HEAD_SIZE_STEP), f"the head size is {size}"
    assert k_NGK.shape == v_NGK.shape == (q_NHK.shape[0], k_NGK.shape[1], size), "keys or values have another shape"
    assert heads % k_NGK.shape[1] == 0, f"{heads} query heads, {k_NGK.shape[1]} key heads"
    assert all(x.stride(-1) == 1 for x in (q_NHK, k_NGK, v_NGK)), "heads are not contiguous"
    assert sum(documents.lengths) == q_NHK.shape[0], "the documents do not add up to the tokens"


def cached_attention(q_LHK: Tensor, k_GSK: Tensor, v_GSK: Tensor) -> Tensor:
    """Attention of the last L tokens of one sequence to all S tokens in its cache; (L, H, K)."""
    new, total = q_LHK.shape[0], k_GSK.shape[1]
    if new == 1:  # the query heads of a group are rows of one small problem, so nothing is repeated
        q_GLK = q_LHK.view(len(k_GSK), -1, q_LHK.shape[-1])
        return scaled_dot_product_attention(q_GLK[None], k_GSK[None], v_GSK[None]).view(q_LHK.shape)
    sees = None
    if new < total:
        sees = torch.ones(new, total, dtype=torch.bool, device=q_LHK.device).tril(total - new)
    out = scaled_dot_product_attention(
        q_LHK.transpose(0, 1)[None],
        k_GSK[None],
        v_GSK[None],
        attn_mask=sees,
        is_causal=sees is None,
        enable_gqa=q_LHK.shape[1] != len(k_GSK),
    )
    return out[0].transpose(0, 1)


def _attend(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, *, documents: int = 1) -> Tensor:
    """Causal attention of one document, or of several of the same length that lie one after another."""
    q, k, v = (x.reshape(documents, -1, *x.shape[1:]).transpose(1, 2) for x in (q_NHK, k_NGK, v_NGK))
    out = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q_NHK.shape[1] != k_NGK.shape[1])
    return out.transpose(1, 2).flatten(0, 1)


@cache
def _has_flash(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= FLASH


@cache
def _variable_length_attention() -> Any:
    """torch's varlen_attn, or None where this torch lacks it or lacks its window and grouped-head options (before 2.13)."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 13):
        return None
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn
