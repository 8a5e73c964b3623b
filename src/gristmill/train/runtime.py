"""The circumstances of a training: where it runs and in which pieces. They never change what is trained, but for rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gristmill.errors import RecipeError
from gristmill.graph.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """`device` is a torch device, never "auto". `should_stop` turns true once a signal arrived: save, then raise Interrupted."""

    device: str
    threads: int
    micro_batch_tokens: int
    say: Callable[[str], None] = lambda line: None
    should_stop: Callable[[], bool] = lambda: False

    @classmethod
    def on(cls, machine: Machine, *, say: Callable[[str], None], should_stop: Callable[[], bool]) -> Runtime:
        """The runtime of a step on this machine."""
        return cls(
            device=choose_device(machine.device),
            threads=machine.threads,
            micro_batch_tokens=machine.micro_batch_tokens,
            say=say,
            should_stop=should_stop,
        )


def choose_device(device: str) -> str:
    """ "auto" becomes "cuda" where there is one, else "cpu". Raises RecipeError for a device that is not here."""
    has_cuda = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_cuda else "cpu"
    if device == "cuda" and not has_cuda:
        raise RecipeError(
            f"the device is cuda, and torch {torch.__version__} finds none here. Use cpu or auto, or install torch for CUDA."
        )
    return device
