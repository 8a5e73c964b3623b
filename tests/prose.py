"""Text that nobody wrote, for tests that need much of it."""

from __future__ import annotations

import random


def prose(num_words: int, seed: int = 0) -> str:
    """Words of two or three syllables in no order; a tokenizer finds pieces in them."""
    chance = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er")]
    return " ".join("".join(chance.choices(syllables, k=chance.randint(2, 3))) for _ in range(num_words)) + ".\n"
