"""The share of a rank: which shards one task of a job array makes, where several work on the same step side by side.

    gristmill run recipe.yaml --array 0/3 … 2/3       each makes every third shard of the steps that map shards, and ends there
    gristmill run recipe.yaml                         finds the shards, makes what is missing, commits

Which shards these are depends on the step's name, their order and the number of ranks only, so that a rank that is started again
finds its own. Each step begins with another rank: many small sources of a shard each are spread over all ranks.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gristmill.errors import RecipeError

SLURM = "slurm"
SLURM_VARIABLES = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")

Shard = TypeVar("Shard")


class ShareDone(Exception):
    """Raised by a step where its rank has made its share: what follows needs all shards. Nothing is committed."""

    def __init__(self, *, mine: int, num_shards: int) -> None:
        super().__init__(f"{mine} of {num_shards} shards")
        self.mine, self.num_shards = mine, num_shards


@dataclass(frozen=True, kw_only=True)
class Share:
    """Every `size`-th shard of a step, for `rank` from 0."""

    rank: int
    size: int

    def of(self, shards: Sequence[Shard], step: str) -> Sequence[Shard]:
        """The shards of this rank, of all those of a step in order."""
        return shards[(self.rank - zlib.crc32(step.encode())) % self.size :: self.size]

    def __str__(self) -> str:
        return f"{self.rank}/{self.size}"


def read_share(text: str, environment: Mapping[str, str], *, option: str = "--array") -> Share:
    """RANK/SIZE, or `slurm` for what Slurm tells the tasks of a job array. Raises RecipeError for anything else."""
    if text == SLURM:
        return _slurm_share(environment)
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise RecipeError(
            f"{option} {text!r} is no share; expected RANK/SIZE with ranks from 0, such as 0/64 … 63/64, or {SLURM} inside a job "
            "array of Slurm."
        )
    return Share(rank=int(found[1]), size=int(found[2]))


def _slurm_share(environment: Mapping[str, str]) -> Share:
    """Only of an array that is numbered from 0 without gaps: with any other, ranks would not be what they seem."""
    found = {name: environment.get(name, "") for name in SLURM_VARIABLES}
    told = ", ".join(f"{name}={value or '(not set)'}" for name, value in found.items())
    if not all(value.isdecimal() for value in found.values()):
        raise RecipeError(
            f"--array {SLURM} needs the variables of a Slurm job array, but found {told}.\n  Use RANK/SIZE."
        )
    rank, size, first, last = map(int, found.values())
    if first != 0 or last != size - 1:
        raise RecipeError(
            f"--array {SLURM} needs an array that is numbered 0-{size - 1}, but found {told}.\n"
            "  To start some ranks again, name them: --array RANK/SIZE."
        )
    return Share(rank=rank, size=size)
