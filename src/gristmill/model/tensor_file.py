"""Files of tensors in the safetensors format, hashed while they are written.

    8 bytes     the header's length, little-endian
    header      JSON: name → dtype, shape, where its bytes begin and end behind the header; spaces up to a multiple of eight bytes
    bytes       the tensors, one after another

The library's own writer gives the same bytes; a checkpoint would then be read once more to be hashed, which takes as long as writing it.
Source: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gristmill.store.durable import write_hashed

DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}  # largest first
_METADATA = "__metadata__"
_ALIGNED = 8


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Writes a file that safetensors reads, and returns its SHA-256 in hex. Neither atomic nor flushed to the disk.

    tensors: of floating-point numbers, on any device; they must not change meanwhile.
    """
    order = list(DTYPES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)

    def parts() -> Iterator[memoryview | bytes]:
        yield len(text).to_bytes(_ALIGNED, "little") + text
        for name in names:
            yield _memory(tensors[name].detach().cpu().contiguous())

    return write_hashed(path, parts())


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a tensor that lies in one piece, not copied."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
