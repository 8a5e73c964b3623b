"""Sections of post-training: chat data, fine-tuning, preference pairs, preference optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gristmill.recipe.schema.section import PLACE, WATCHED, PositiveInt, Section, Share
from gristmill.recipe.schema.training import Optimizer


class ChatData(Section):
    """Conversations: hand-written files, sums, and questions about definitions in a source."""

    conversations: Annotated[list[str], PLACE] = Field(default=[], description="JSONL files of {id, topic, messages}")
    conversation_copies: PositiveInt = Field(
        default=1, description="how often each hand-written conversation is listed"
    )
    sums_up_to: int = Field(default=9, ge=0, description="every a + b with both up to this is trained; 0: none")
    two_digit_sums: int = Field(
        default=0, ge=0, description="this many sums of two-digit numbers, held-out ones excepted"
    )
    definitions_from: str | None = Field(default=None, description="a source of dictionary entries")
    num_definitions: int = Field(default=0, ge=0)


class Finetune(Section):
    """Passes over conversations: cosine schedule, loss on the assistant's tokens only."""

    epochs: PositiveInt
    batch_conversations: PositiveInt
    seq_len: PositiveInt
    warmup_frac: Share = 0.1
    optimizer: Optimizer
    sample_prompts: Annotated[list[str], WATCHED] = Field(
        default=["Hello!"], description="asked at the end, for the report"
    )


class Pairs(Section):
    """On-policy preference pairs: answers sampled from the SFT model, judged by a rule that can be verified."""

    kinds: list[Literal["sum"]] = ["sum"]
    num_prompts: PositiveInt
    samples_per_prompt: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: PositiveInt = 24
    max_pairs_per_prompt: PositiveInt = 1


class Dpo(Section):
    """Direct preference optimisation on the pairs."""

    beta: float = Field(default=0.5, gt=0)
    epochs: PositiveInt
    batch_pairs: PositiveInt
    seq_len: PositiveInt
    warmup_frac: Share = 0.1
    optimizer: Optimizer
