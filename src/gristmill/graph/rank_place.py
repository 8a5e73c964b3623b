"""The place of a process among the ranks of a training that something else started, such as torchrun or srun.

    torchrun --nnodes 2 --nproc-per-node 8 … -m gristmill run recipe.yaml --ranks torchrun

The first one carries the recipe out; the others wait for its training steps (train/ranks/service.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gristmill.errors import RecipeError

TORCHRUN = "torchrun"
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """local_rank: on its machine, which is the number of its GPU. local_size: how many share its machine's cores. host, port: where
    all meet. is_hosted: whether something else listens there already, else the first rank does."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    host: str
    port: int
    is_hosted: bool


def read_ranks(text: str, environment: Mapping[str, str]) -> tuple[int, RankPlace | None]:
    """(number of ranks, the place of this one): a number without a place, or `torchrun` for what its variables say.

    Raises RecipeError for anything else.
    """
    if text != TORCHRUN:
        return int(text), None
    found = {name: environment.get(name, "") for name in (*NUMBERS, "MASTER_ADDR")}
    if not (all(found[name].isdecimal() for name in NUMBERS) and found["MASTER_ADDR"]):
        told = ", ".join(f"{name}={value or '(not set)'}" for name, value in found.items())
        raise RecipeError(
            f"--ranks {TORCHRUN} needs the variables that torchrun sets, but found {told}.\n"
            "  Start it by torchrun or by the script that `gristmill launch --slurm` writes, or give a number of ranks."
        )
    rank, size, local_rank, port = (int(found[name]) for name in NUMBERS)
    return size, RankPlace(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        host=found["MASTER_ADDR"],
        port=port,
        is_hosted=environment.get(AGENT_STORE) == "True",
    )
