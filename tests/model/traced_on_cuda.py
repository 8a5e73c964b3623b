"""Forward pass and loss on a CUDA device that is not there: tensors with shapes, types and places, and no values.

A program of its own, because the guard that it loads stays in the process. Prints one JSON object of what it saw. Streams and pinned
memory need the real thing, so copies to the device are made plainly here.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gristmill.model import attention
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.tokens.batch import Batch, positions_within
from gristmill.train import loss
from gristmill.train.loss import device_arithmetic, next_token_loss

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl { C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>); }
"""
LENGTHS = [5, 7, 3, 20]


def load_guard(folder: Path) -> None:
    """Torch for the CPU has no guard for CUDA devices, and without one refuses to name them."""
    source, library, root = folder / "guard.cpp", folder / "guard.so", Path(torch.__file__).parent
    source.write_text(GUARD)
    command = ["g++", "-std=c++20", "-shared", "-fPIC", "-O0", f"-I{root / 'include'}", source, "-o", library]
    subprocess.run([*command, f"-L{root / 'lib'}", "-lc10", f"-Wl,-rpath,{root / 'lib'}"], check=True)
    ctypes.CDLL(str(library))


def batch() -> Batch:
    """Four documents of two sources; every third target does not count."""
    count, lengths = sum(LENGTHS), np.array(LENGTHS)
    return Batch(
        tokens_N=np.arange(count, dtype=np.int32),
        targets_N=np.arange(count, dtype=np.int32),
        positions_N=positions_within(lengths),
        document_lengths=lengths,
        loss_mask_N=(np.arange(count) % 3 > 0).astype(np.float32),
        source_N=np.repeat([0, 1, 0, 1], lengths).astype(np.int16),
    )


def model(head_dim: int) -> Llama:
    """With parameters on the device."""
    config = LlamaConfig(
        vocab_size=276,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=64,
    )
    with torch.device("meta"):
        made = Llama(config)
    for module in made.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, device="cuda")))
    return made


class Watch(TorchDispatchMode):
    """Notes the products' types, and each operation that leaves the device."""

    def __init__(self) -> None:
        super().__init__()
        self.products: set[str] = set()
        self.left: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, torch.Tensor)]
        if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.addmm_.default):
            self.products |= {str(x.dtype) for x in tensors}
        if any(x.device.type == "cuda" for x in tensors) and isinstance(result, torch.Tensor):
            self.left += [str(function)] if result.device.type != "cuda" else []
        return result


def copied(arrays: Any, device: torch.device) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]


def trace(head_dim: int, *, arithmetic: bool) -> dict[str, Any]:
    """One forward pass and loss. arithmetic: in that of the device, else in the types of the tensors."""
    calls: list[dict[str, Any]] = []
    kernel = attention._variable_length_attention()

    def watched(q: Any, k: Any, v: Any, offsets: Any, *rest: Any, **options: Any) -> Any:
        tensors = {"q": q, "k": k, "v": v, "offsets": offsets}
        calls.append({name: [str(x.dtype), str(x.device), list(x.shape)] for name, x in tensors.items()})
        return kernel(q, k, v, offsets, *rest, **options)

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch.object(attention, "_variable_length_attention", return_value=watched),
        mock.patch.object(attention, "_has_flash", return_value=True),
        mock.patch.object(attention, "on_device", copied),
        mock.patch.object(loss, "on_device", copied),
        Watch() as watch,
    ):
        llama = model(head_dim)
        how = device_arithmetic(llama.device) if arithmetic else torch.autocast("cuda", enabled=False)
        with how:
            is_on, to = torch.is_autocast_enabled("cuda"), str(torch.get_autocast_dtype("cuda"))
            found = next_token_loss(llama, batch(), ["web", "code"])
    return {
        "autocast": [is_on, to],
        "calls": calls,
        "products": sorted(watch.products),
        "left": watch.left,
        "loss": [str(found.loss_sum.dtype), str(found.loss_sum.device), list(found.loss_sum.shape)],
        "sums": {name: [str(total.dtype), str(total.device), count] for name, (total, count) in found.sums.items()},
        "weights": sorted({str(parameter.dtype) for parameter in llama.parameters()}),
    }


if __name__ == "__main__":
    load_guard(Path(sys.argv[1]))
    found = {
        "as trained": trace(8, arithmetic=True),
        "without autocast": trace(8, arithmetic=False),
        "odd heads": trace(12, arithmetic=True),
    }
    print(json.dumps(found))
