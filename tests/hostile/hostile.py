"""What a hostile set is: a file, or a tree, that was made to lose, hang, crash or fill the reader of its format.

    python -m hostile                           lists the sets (with `tests` and `src` on the path)
    python -m hostile NAME FOLDER [SCALE]       makes a set in FOLDER and reads it: one line of JSON with what was found

Each set is a function of a folder and a scale; at scale 1 it has the size that lost a source once, the suite reads a hundredth.
What is known of its content was counted when it was written, not by reading it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "is",
    "was",
    "for",
    "on",
    "with",
    "as",
    "by",
    "at",
    "from",
    "this",
    "be",
    "are",
    "have",
    "it",
    "or",
    "which",
    "one",
    "were",
    "all",
]


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One set. documents: how many texts it holds, None where damage makes that anyone's guess. reasons: of what is none;
    those that are not named may be there, too. keys: of the recipe's section `read`."""

    kind: str
    path: Path
    documents: int | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)


Maker = Callable[[Path, float], Hostile]


def prose(seed: int, num_words: int = 60) -> str:
    """Words that are always the same for a seed."""
    noise = random.Random(seed)
    return " ".join(noise.choices(WORDS, k=num_words)) + "."


def scaled(size: float, scale: float, *, least: int = 1) -> int:
    """A size at a scale."""
    return max(least, int(size * scale))
