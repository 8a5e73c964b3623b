"""Learning rate as a pure function of tokens seen: warm-up, constant, decay to zero.

    lr  peak ┤    ┌──────────────────────┐
             │   /                        \\          warmup_tokens ─ constant ─ decay_tokens, together total_tokens
           0 ┼──/──────────────────────────\\── tokens

The axis is the whole token budget, whatever the stages in it. Rule for a step: step k (counted from 0) of T tokens runs at
`lr_at((k + 1) × T)`, the rate at the tokens *after* it (`Schedule.lr_of_step`). So the first step is above 0 and the last
one is exactly 0, as the trainer of SmolLM2 has it (peak × step / W, then peak × (D + L − step) / L, steps counted from 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gristmill.errors import RecipeError

Shape = Literal["linear", "one_minus_sqrt", "cosine"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Token counts are those of the whole run. Without warm-up or decay (0) that phase is left out.

    Shapes of the decay, x the share of it that is done: linear 1 − x; one_minus_sqrt 1 − √x (Hägele et al. 2024,
    arXiv 2405.18392); cosine (1 + cos πx) / 2 (Loshchilov & Hutter 2017, arXiv 1608.03983).
    """

    peak_lr: float
    warmup_tokens: int
    total_tokens: int
    decay_tokens: int
    shape: Shape

    def __post_init__(self) -> None:
        if self.peak_lr <= 0 or self.total_tokens <= 0 or self.warmup_tokens < 0 or self.decay_tokens < 0:
            raise RecipeError(
                f"{self} is not a schedule: the peak and the total must be above 0, the rest not below 0."
            )
        if self.warmup_tokens + self.decay_tokens > self.total_tokens:
            raise RecipeError(
                f"warm-up ({self.warmup_tokens:,} tokens) and decay ({self.decay_tokens:,}) are together longer than "
                f"the whole run ({self.total_tokens:,}). Shorten one of them or raise the token budget."
            )

    def lr_at(self, tokens: int) -> float:
        """The learning rate when `tokens` of the run are done; past the end of the budget, the rate at its end."""
        if tokens < 0:
            raise ValueError(f"tokens is {tokens}")
        if tokens < self.warmup_tokens:
            return self.peak_lr * tokens / self.warmup_tokens
        left = max(self.total_tokens - tokens, 0)
        if left >= self.decay_tokens:
            return self.peak_lr
        if self.shape == "linear":
            return self.peak_lr * left / self.decay_tokens
        done = 1.0 - left / self.decay_tokens
        if self.shape == "one_minus_sqrt":
            return self.peak_lr * (1.0 - math.sqrt(done))
        return self.peak_lr * 0.5 * (1.0 + math.cos(math.pi * done))

    def lr_of_step(self, step: int, tokens_per_step: int) -> float:
        """The learning rate that step `step` (counted from 0) uses: the rate at the tokens after it."""
        return self.lr_at((step + 1) * tokens_per_step)


def wsd(
    *, peak_lr: float, warmup_tokens: int, total_tokens: int, decay_tokens: int, shape: Shape = "linear"
) -> Schedule:
    """Warm-up, stable, decay. Source: Hu et al. 2024 (arXiv 2404.06395); linear decay as in SmolLM2."""
    return Schedule(
        peak_lr=peak_lr, warmup_tokens=warmup_tokens, total_tokens=total_tokens, decay_tokens=decay_tokens, shape=shape
    )


def cosine(*, peak_lr: float, warmup_tokens: int, total_tokens: int) -> Schedule:
    """Warm-up, then one half cosine down to zero over all the rest."""
    return Schedule(
        peak_lr=peak_lr,
        warmup_tokens=warmup_tokens,
        total_tokens=total_tokens,
        decay_tokens=max(total_tokens - warmup_tokens, 0),
        shape="cosine",
    )
