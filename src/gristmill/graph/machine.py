"""Machine options: where and how it runs. Never part of an identity."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from gristmill.errors import RecipeError

DEVICES = ("auto", "cpu", "cuda")


def usable_cpus() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Circumstances of a run.

    processes: workers for curation. threads: per training process. micro_batch_tokens: tokens in one forward pass
    (gradients are accumulated to the recipe's global batch). runs_dir: where artefacts are kept.
    """

    processes: int = field(default_factory=usable_cpus)
    threads: int = field(default_factory=usable_cpus)
    device: str = "auto"
    micro_batch_tokens: int = 16_384
    runs_dir: Path = Path("runs")

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise RecipeError(f"the device is {self.device!r}; expected auto, cpu or cuda.")
