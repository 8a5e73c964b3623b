"""Devices that a plan may be made for without having them: what each can do by its maker, and which share of it trainings reached.

Peaks are those of dense bf16 products added up in float32: where a data sheet prints the figure with sparsity, half of it. Memory
is in bytes as the data sheet counts them, bandwidth that of the memory in bytes per second.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

from gristmill.errors import RecipeError
from gristmill.units import in_units, percent, scale

MOST_DEVICES = 1_000_000  # more is a slip of the keyboard
FAR = 4  # times: a published size that is so much larger says little
Generation = Literal["A100", "H100"]


@dataclass(frozen=True, kw_only=True)
class DeviceType:
    """One kind of device. shares_of: whose published shares of the peak are taken for it: those of A100 or of H100."""

    name: str
    peak_flops: float
    memory_bytes: int
    bandwidth: float
    shares_of: Generation
    source: str

    def __str__(self) -> str:
        return (
            f"{self.name}: {in_units(self.peak_flops, 'FLOP/s')} dense bf16, {in_units(self.memory_bytes, 'B')}, "
            f"{in_units(self.bandwidth, 'B/s')} ({self.source})"
        )


def _device(
    name: str, teraflops: float, gigabytes: int, gigabytes_per_second: float, shares_of: Generation, source: str
) -> DeviceType:
    return DeviceType(
        name=name,
        peak_flops=teraflops * 1e12,
        memory_bytes=gigabytes * 10**9,
        bandwidth=gigabytes_per_second * 1e9,
        shares_of=shares_of,
        source=source,
    )


DEVICES = (
    _device("B200", 2250, 180, 8000, "H100", "NVIDIA Blackwell data sheet, HGX B200"),
    _device("GB200", 2500, 186, 8000, "H100", "NVIDIA GB200 NVL72 data sheet, one GPU of it"),
    _device("H200", 989, 141, 4800, "H100", "NVIDIA H200 data sheet, SXM"),
    _device("H100", 989, 80, 3350, "H100", "NVIDIA H100 data sheet, SXM"),
    _device("H100-NVL", 835, 94, 3900, "H100", "NVIDIA H100 data sheet, NVL"),
    _device("H100-PCIe", 756, 80, 2000, "H100", "NVIDIA H100 data sheet, PCIe"),
    _device("A100-80GB", 312, 80, 2039, "A100", "NVIDIA A100 data sheet, SXM"),
    _device("A100-40GB", 312, 40, 1555, "A100", "NVIDIA A100 data sheet, SXM"),
    _device("L40S", 362, 48, 864, "A100", "NVIDIA L40S data sheet"),
    _device("RTX5090", 209.5, 32, 1792, "A100", "NVIDIA RTX Blackwell architecture paper"),
    _device("RTX4090", 165.2, 24, 1008, "A100", "NVIDIA Ada architecture paper"),
    _device("RTX3090", 71, 24, 936, "A100", "NVIDIA Ampere GA102 architecture paper"),
)


@dataclass(frozen=True, kw_only=True)
class PublishedShare:
    """The share of the peak that a published training reached: operations as `flops_per_token` counts them, causal attention
    included, over peak and time. Source: where the tokens per second or the hours are said."""

    parameters: float
    share: float
    of: Generation
    what: str
    source: str


_FOUNDRY = "mosaicml/llm-foundry, scripts/train/benchmarking"
# What the same model lost from A100 to H100, whose products outran its memory: MPT-1B on 64 of each, .518 → .382.
_A100_TO_H100 = 0.737
_SCALED = f"{_FOUNDRY}, times {_A100_TO_H100}, as MPT-1B lost from A100 to H100; an assumption"
SHARES = (
    PublishedShare(parameters=125e6, share=0.347, of="A100", what="MPT-125M on 64 A100", source=_FOUNDRY),
    PublishedShare(parameters=356e6, share=0.412, of="A100", what="MPT-350M on 64 A100", source=_FOUNDRY),
    PublishedShare(parameters=760e6, share=0.472, of="A100", what="MPT-760M on 64 A100", source=_FOUNDRY),
    PublishedShare(parameters=1.316e9, share=0.518, of="A100", what="MPT-1B on 64 A100", source=_FOUNDRY),
    PublishedShare(parameters=2.652e9, share=0.528, of="A100", what="MPT-3B on 64 A100", source=_FOUNDRY),
    PublishedShare(parameters=125e6, share=0.256, of="H100", what="MPT-125M on 64 A100", source=_SCALED),
    PublishedShare(parameters=356e6, share=0.304, of="H100", what="MPT-350M on 64 A100", source=_SCALED),
    PublishedShare(parameters=760e6, share=0.345, of="H100", what="MPT-760M on 32 H100", source=_FOUNDRY),
    PublishedShare(parameters=1.316e9, share=0.382, of="H100", what="MPT-1B on 64 H100", source=_FOUNDRY),
    PublishedShare(
        parameters=3.075e9,
        share=0.286,
        of="H100",
        what="SmolLM3 on 384 H100, the whole run in 24 days",
        source="huggingface.co/blog/smollm3",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """So many devices of one kind. mfu: the share of their peak that training is to reach, operations counted by
    `flops_per_token`; None takes a published one. price: of one device for one hour, in any currency. micro_batch_tokens: None
    takes the largest that fits."""

    count: int
    device: DeviceType
    mfu: float | None = None
    price: float | None = None
    micro_batch_tokens: int | None = None

    def __str__(self) -> str:
        return f"{self.count:,} × {self.device.name}"


def read_fleet(
    text: str, *, mfu: float | None = None, price: float | None = None, micro_batch_tokens: int | None = None
) -> Fleet:
    """ "384xH100" as a fleet; "H100" is one. Raises RecipeError with the table for anything that is not in it."""
    found = re.fullmatch(r"(?:(\d{1,9})\s*[xX×*]\s*)?(\S+)", text.strip())
    if found is None:
        raise RecipeError(
            f"--devices is {text!r}; expected a number and a device, such as 384xH100.\n{devices_in_lines()}"
        )
    count = int(found[1] or 1)
    if not 1 <= count <= MOST_DEVICES:
        raise RecipeError(f"--devices asks for {count:,} devices; expected 1 to {MOST_DEVICES:,}.")
    if mfu is not None and not 0 < mfu <= 1:
        raise RecipeError(
            f"--mfu is {mfu:g}; expected a share of the peak above 0 and at most 1, such as 0.3 for 30 %."
        )
    return Fleet(count=count, device=_named(found[2]), mfu=mfu, price=price, micro_batch_tokens=micro_batch_tokens)


def devices_in_lines() -> str:
    """The table, a device a line."""
    return "\n".join(f"  {device}" for device in DEVICES)


def published_share(parameters: int, device: DeviceType) -> PublishedShare:
    """The published training whose model is nearest in size, on a log scale, among those whose shares the device takes."""
    alike = [share for share in SHARES if share.of == device.shares_of]
    return min(alike, key=lambda share: abs(math.log(share.parameters / parameters)))


def mfu_in_words(fleet: Fleet, parameters: int) -> tuple[float, str]:
    """The share of the peak that a plan takes, and where it is from."""
    if fleet.mfu is not None:
        return fleet.mfu, f"{percent(fleet.mfu)} of the peak (MFU), as asked"
    published = published_share(parameters, fleet.device)
    words = (
        f"{percent(published.share)} of the peak (MFU): what {published.what} reached ({published.source}), "
        f"the nearest published size to {scale(parameters)} parameters; --mfu sets another"
    )
    if parameters * FAR < published.parameters:
        words += ". A model so much smaller keeps the device waiting and reaches less: the times are the least"
    return published.share, words


def _named(name: str) -> DeviceType:
    by_key = {_key(device.name): device for device in DEVICES}
    by_key |= {f"{key}{device.memory_bytes // 10**9}": device for key, device in by_key.items()}
    if (key := _key(name)) in by_key:
        return by_key[key]
    within = [found for found in by_key if key and found.startswith(key)]
    near = within or difflib.get_close_matches(key, by_key, n=2)
    names = dict.fromkeys(by_key[found].name for found in near)
    meant = f" Did you mean {' or '.join(names)}?" if names else ""
    raise RecipeError(f"the device {name!r} is not in the table.{meant} The table:\n{devices_in_lines()}")


def _key(name: str) -> str:
    """Letters and digits only, without maker, family, the bus that is meant anyway, and the unit of memory."""
    return re.sub(r"nvidia|geforce|rtx|sxm\d?|gb$", "", re.sub(r"[^a-z0-9]", "", name.lower()))
