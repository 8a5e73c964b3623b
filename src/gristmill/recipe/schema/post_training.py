"""Sections of post-training: chat data, fine-tuning, preference pairs, preference optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gristmill.recipe.schema.section import PLACE, WATCHED, Batch, Length, Passes, Section, Share, Unit
from gristmill.recipe.schema.training import Optimizer


class ChatData(Section):
    """Conversations: hand-written files, sums, and questions about definitions in a source."""

    conversations: Annotated[list[str], PLACE] = Field(default=[], description="JSONL files of {id, topic, messages}")
    conversation_copies: Annotated[int, Field(gt=0, le=1000), Unit("copies", "they would be learnt by heart")] = Field(
        default=1, description="copies of each hand-written conversation"
    )
    sums_up_to: Annotated[int, Field(ge=0, le=99), Unit("largest term", "the sums are of one or two digits")] = Field(
        default=9, description="every a + b with both terms up to this is trained on; 0: none"
    )
    two_digit_sums: Annotated[int, Field(ge=0, le=8100), Unit("sums", "there are no more of two digits")] = Field(
        default=0, description="this many sums of two-digit numbers, held-out ones excepted"
    )
    definitions_from: str | None = Field(default=None, description="a source of dictionary entries")
    num_definitions: Annotated[int, Field(ge=0, le=10**7), Unit("conversations", "no dictionary has more")] = Field(
        default=0, description="conversations about entries of `definitions_from`"
    )


class Finetune(Section):
    """Passes over conversations: cosine schedule, loss on the assistant's tokens only."""

    epochs: Passes = Field(description="over all conversations")
    batch_conversations: Batch = Field(description="conversations in a step")
    seq_len: Length = Field(description="longer conversations are left out and counted")
    warmup_frac: Share = Field(default=0.1, description="of the steps, in which the learning rate rises from zero")
    optimizer: Optimizer
    sample_prompts: Annotated[list[str], WATCHED] = Field(
        default=["Hello!"], description="asked at the end, for the report"
    )


class Pairs(Section):
    """On-policy preference pairs: answers sampled from the SFT model, judged by a rule."""

    kinds: list[Literal["sum"]] = Field(default=["sum"], description="kinds of prompt that a rule can judge")
    num_prompts: Annotated[int, Field(gt=0, le=10**7), Unit("prompts", "far more than one model can answer")] = Field(
        description="number of questions; fewer if there are not that many"
    )
    samples_per_prompt: Annotated[int, Field(ge=2, le=1000), Unit("answers", "a pair needs two")] = Field(
        default=8, description="answers sampled for each prompt"
    )
    temperature: Annotated[float, Field(gt=0, le=5), Unit("temperature", "hotter answers are noise")] = Field(
        default=1.0, description="of the sampled answers"
    )
    max_new_tokens: Length = Field(default=24, description="longest answer; longer ones are discarded")
    max_pairs_per_prompt: Annotated[int, Field(gt=0, le=1000), Unit("pairs", "there are not more answers")] = Field(
        default=1, description="right and wrong answers of similar length"
    )


class Dpo(Section):
    """Direct preference optimisation on the pairs."""

    beta: Annotated[float, Field(gt=0, le=100), Unit("of the reward", "the model would not leave its reference")] = (
        Field(default=0.5, description="how strongly the model is kept near its reference")
    )
    epochs: Passes = Field(description="over all pairs")
    batch_pairs: Batch = Field(description="pairs in a step")
    seq_len: Length = Field(description="longer pairs are left out and counted")
    warmup_frac: Share = Field(default=0.1, description="of the steps, in which the learning rate rises from zero")
    optimizer: Optimizer
