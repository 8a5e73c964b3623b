"""Arrays of the host as tensors on a device, copied while the device computes what came before.

    host      pin a batch's arrays ─→ start their copies ─→ start the work on them ─→ the next batch …
    copying            ╰─→ ▒▒▒ (waits for nothing)   ▒▒▒ (while the first is computed)
    computing                 ╰─ after the copy ─→ █████████████ ─→ █████████████

Copies go through a stream of their own, from pinned memory, so the host waits for none of them, and none waits for the work under way.
The order is kept by the device: work on a tensor begins after its copy has ended, and its memory is not given to another copy before
that work has ended. Pinned memory is kept by torch until its copy is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def on_device(arrays: Sequence[Array], device: torch.device) -> list[Tensor]:
    """The arrays as tensors on the device; on the CPU they share their memory."""
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    return copied(tensors, device, copying=_copying(device), computing=torch.cuda.current_stream(device))


def copied(tensors: Sequence[Tensor], device: torch.device, *, copying: Any, computing: Any) -> list[Tensor]:
    """Copies of host tensors on a device, by the stream `copying`, for work on the stream `computing`."""
    with torch.cuda.stream(copying):
        copies = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
    computing.wait_stream(copying)
    for copy in copies:
        copy.record_stream(computing)
    return copies


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
