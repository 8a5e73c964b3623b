"""Sections of training: tokenizer, model, the stages of pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gristmill.recipe.schema.changes import Change, check_changes
from gristmill.recipe.schema.mixture import Draw, as_draws, check_mixture
from gristmill.recipe.schema.section import (
    CAP,
    LABEL,
    PLACE,
    WATCHED,
    Bytes,
    KeyPath,
    Length,
    Misfit,
    Name,
    PeakLr,
    Section,
    Seed,
    ShapesNothing,
    Tokens,
    Unit,
    Weight,
)


class TokenizerSection(Section):
    """Byte-level BPE with all 256 bytes, single digits, SmolLM2's 17 special tokens and a separate pad token."""

    vocab_size: Annotated[
        int, Field(ge=300, le=2**20), Unit("entries", "256 bytes and the special tokens come first")
    ] = Field(description="tokens of the vocabulary, special ones included")
    mixture: dict[Name, Weight] = Field(
        default={}, description="share of training bytes per source; absent: by their sizes"
    )
    max_bytes: Bytes = Field(default=200_000_000, description="text that the tokenizer is trained on")


Width = Annotated[int, Field(gt=0, le=2**20), Unit("numbers", "no model is wider")]
Heads = Annotated[int, Field(gt=0, le=2**12), Unit("heads", "no model has more")]
RopeBase = Annotated[float, Field(ge=100, le=1e10), Unit("base", "positions could not be told apart")]


class ModelSection(Section):
    """The keys of a Hugging Face Llama config.json."""

    hidden_size: Width = Field(description="width of a token's vector between layers")
    intermediate_size: Width = Field(description="width inside the feed-forward layer; about 8/3 of hidden_size")
    num_hidden_layers: Annotated[int, Field(gt=0, le=1000), Unit("layers", "no model is deeper")] = Field(
        description="blocks of attention and feed-forward layer"
    )
    num_attention_heads: Heads = Field(description="a divisor of hidden_size")
    num_key_value_heads: Heads = Field(description="a divisor of num_attention_heads")
    rope_theta: RopeBase = Field(default=10_000.0, description="base of the rotary positions")
    rms_norm_eps: Annotated[
        float, Field(gt=0, le=0.01), Unit("added to a mean square", "it would outweigh the numbers")
    ] = Field(default=1e-5, description="against division by zero in a norm")
    initializer_range: Annotated[float, Field(gt=0, le=1), Unit("standard deviation", "activations would explode")] = (
        Field(description="of the initial weights; 1/sqrt(hidden_size) in SmolLM2's small models")
    )
    tie_word_embeddings: bool = Field(
        default=True, description="the output head is the embedding; better for small models"
    )
    max_position_embeddings: Length = Field(description="the context of the released model, after extension")

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSection:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError(
                f"the head size {self.hidden_size // self.num_attention_heads} is odd; rotary positions need pairs"
            )
        return self


class Stage(Section):
    """A budget of tokens drawn by one mixture at one sequence length."""

    name: Annotated[Name, LABEL] = Field(description="for overrides, changes and the report")
    tokens: Tokens = Field(description="budget; a multiple of global_batch_tokens")
    seq_len: Length = Field(description="length of the sequences; a divisor of global_batch_tokens")
    mixture: list[Draw] = Field(min_length=1, description="a list of draws, or source: weight")
    rope_theta: RopeBase | None = Field(
        default=None, description="new RoPE base from this stage on (context extension)"
    )
    reshuffle: Seed | None = Field(
        default=None,
        description="what is left of each source comes in another order from this stage on, one per number",
    )

    @field_validator("mixture", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return as_draws(value)

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Stage:
        check_mixture(self.mixture, f"stage {self.name!r}")
        return self


Memory = Annotated[float, Field(ge=0, lt=1), Unit("share kept per step", "nothing new would be learnt")]


class Optimizer(Section):
    """AdamW."""

    peak_lr: PeakLr = Field(description="learning rate between warm-up and decay")
    beta1: Memory = Field(default=0.9, description="decay of the running mean of gradients")
    beta2: Memory = Field(default=0.95, description="decay of the running mean of squared gradients")
    eps: Annotated[float, Field(gt=0, le=0.01), Unit("of a gradient", "it would outweigh the gradients")] = Field(
        default=1e-8, description="added to the root of the mean square, against division by zero"
    )
    weight_decay: Annotated[float, Field(ge=0, le=1), Unit("times the rate, per step", "weights would vanish")] = Field(
        default=0.01, description="decoupled weight decay"
    )
    decay_embeddings: bool = Field(default=True, description="SmolLM2 decays all parameters; SmolLM3 spares embeddings")
    max_grad_norm: Annotated[float, Field(gt=0, le=1e9), Unit("norm", "nothing would be clipped")] = Field(
        default=1.0, description="gradients with a larger norm are clipped to it"
    )


Epochs = Annotated[float, Field(gt=0, le=1000), Unit("passes", "the text would be learnt by heart")]


class AllowEpochs(Section):
    """A cap above the default for one source, with the reason on record."""

    max: Epochs = Field(description="the cap of this source")
    reason: str = Field(min_length=10, description="why repeating it is worth it; at least ten letters")


class Watch(Section):
    """What is measured during training. What was measured changes no weight."""

    every_tokens: Tokens | None = Field(
        default=None, description="between two measurements of held-out text; absent: a hundredth of all tokens"
    )
    validation_bytes: Bytes = Field(default=50_000, description="held-out text per source for bits per byte")
    packs: list[str] = Field(
        default=[],
        description="scored during training: choices by likelihood, written answers by the bits per byte of the right one",
    )
    packs_every_tokens: Tokens | None = Field(
        default=None,
        description="between two measurements of packs, and two continuations of sample_prompts; absent: a twentieth of all tokens",
    )
    stage_packs: list[str] | None = Field(
        default=None,
        description="scored at the end of each stage, too; absent: those of evaluate.packs that are not locked",
    )
    max_items: Annotated[int, Field(gt=0, le=10**7), Unit("items", "no pack has more")] = Field(
        default=1000, description="items per pack; 1,000 resolve four points"
    )
    max_share: Annotated[float, Field(gt=0, le=1), Unit("share", "a share of a whole")] = Field(
        default=0.03,
        description="of the time of training that watching may take; beyond it there are fewer items, less text and fewer points; 1: no limit",
    )
    reference: str | None = Field(
        default=None,
        description="folder of an earlier run's pretraining, such as runs/before/pretrain: curves to be held against, at equal tokens",
    )


OnSpike = Literal["log", "skip", "rewind", "stop"]


class Pretrain(Section):
    """Stages under one warmup-stable-decay schedule; the last stage may extend the context inside the decay."""

    init_from: Annotated[str | None, PLACE] = Field(
        default=None,
        description="Hugging Face folder of a released Llama: its weights are trained further, with its tokenizer; absent: new weights",
    )
    stages: list[Stage] = Field(min_length=1, description="one after the other")
    global_batch_tokens: Annotated[
        int, Field(gt=0, le=2**32), Unit("tokens per step", "larger batches than any in use")
    ] = Field(description="tokens of one optimizer step")
    warmup_tokens: Annotated[int, Field(ge=0, le=10**15), Unit("tokens", "no model has read more")] = Field(
        description="over which the learning rate rises from zero"
    )
    decay_tokens: Tokens = Field(description="at the end, over which the learning rate falls to zero")
    decay_shape: Literal["linear", "one_minus_sqrt"] = Field(
        default="linear", description="how the learning rate falls"
    )
    optimizer: Optimizer
    seed: Seed | None = Field(
        default=None, description="of the first weights and the order of data; absent: the recipe's"
    )
    z_loss: Annotated[float, Field(ge=0, le=1), Unit("times log(Z)² of a token", "it would outweigh the loss")] = Field(
        default=0.0, description="keeps logits from drifting off together, where training is unstable; PaLM used 1e-4"
    )
    on_spike: Annotated[OnSpike, ShapesNothing(("log", "rewind", "stop"))] = Field(
        default="log",
        description="a step whose loss or gradient norm is 6 standard deviations above the last 128: log it, skip its update, rewind "
        "past its data, or stop",
    )
    changes: list[Change] = Field(default=[], description="changes from given steps on, in ascending order")
    max_epochs: Annotated[Epochs, CAP] = Field(
        default=5.0, description="refuse beyond this (Muennighoff et al. 2023: value fades after 4)"
    )
    warn_epochs: Annotated[Epochs, CAP] = Field(default=4.0, description="warn beyond this")
    allow_epochs: Annotated[dict[Name, AllowEpochs], CAP] = Field(
        default={}, description="sources that may be read more often, by name"
    )
    watch: Annotated[Watch, WATCHED] = Watch()
    sample_prompts: Annotated[list[str], WATCHED] = Field(
        default=[""],
        description="continued whenever packs are scored, with the same random numbers, and shown in the report",
    )
    checkpoint_every_tokens: Annotated[Tokens, WATCHED] = Field(
        description="between two checkpoints: the most that a crash can cost"
    )

    @property
    def total_tokens(self) -> int:
        """Tokens of all stages."""
        return sum(stage.tokens for stage in self.stages)

    def as_changed(self) -> Pretrain:
        """The same pretraining with the mixtures that changes set written into their stages; other changes stay."""
        mixtures = {name: mixture for change in self.changes for name, mixture in change.mixtures.items()}
        if not mixtures:
            return self
        left = [
            change.model_copy(update={"set": kept})
            for change in self.changes
            if (kept := {key: value for key, value in change.set.items() if not isinstance(value, list)})
        ]
        stages = [
            stage.model_copy(update={"mixture": mixtures.get(stage.name, stage.mixture)}) for stage in self.stages
        ]
        return self.model_copy(update={"stages": stages, "changes": left})

    @model_validator(mode="after")
    def _budget_is_whole(self) -> Pretrain:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise Misfit((("stages",), f"two stages share a name: {names}"))
        problems: list[tuple[KeyPath, str]] = [
            (("stages", index, key), words)
            for index, stage in enumerate(self.stages)
            for key, words in _not_whole(stage, self.global_batch_tokens)
        ]
        shuffling = [index for index, stage in enumerate(self.stages) if stage.reshuffle is not None]
        problems += [
            (
                ("stages", index, "reshuffle"),
                f"stage {names[index]!r} reshuffles after stage {names[shuffling[0]]!r} did; the order of the first holds to the "
                "end, so remove one",
            )
            for index in shuffling[1:]
        ]
        if self.warmup_tokens + self.decay_tokens > self.total_tokens:
            words = (
                f"warmup_tokens {self.warmup_tokens:,} + decay_tokens {self.decay_tokens:,} exceed the "
                f"{self.total_tokens:,} tokens of all stages; lower them together with the tokens"
            )
            problems.append((("decay_tokens",), words))
        problems += [
            ((key,), f"{key} {tokens:,} is less than one step of {self.global_batch_tokens:,} tokens; {advice}")
            for key, tokens, advice in (
                ("warmup_tokens", self.warmup_tokens, f"use 0, or {self.global_batch_tokens:,} and more"),
                ("decay_tokens", self.decay_tokens, f"use {self.global_batch_tokens:,} or more"),
            )
            if 0 < tokens < self.global_batch_tokens
        ]
        if problems:
            raise Misfit(*problems)
        first, begins = 0, dict[str, int]()
        for stage in self.stages:
            begins[stage.name] = first
            first += stage.tokens // self.global_batch_tokens
        check_changes(self.changes, begins, first)
        return self


def _not_whole(stage: Stage, global_batch_tokens: int) -> Iterator[tuple[str, str]]:
    """(key, words) where a step does not hold whole sequences, or the stage whole steps."""
    if global_batch_tokens % stage.seq_len:
        yield (
            "seq_len",
            f"global_batch_tokens {global_batch_tokens} is not a multiple of seq_len {stage.seq_len} of stage {stage.name!r}",
        )
    if stage.tokens % global_batch_tokens:
        below = stage.tokens // global_batch_tokens * global_batch_tokens
        yield (
            "tokens",
            f"stage {stage.name!r} has {stage.tokens:,} tokens, not a whole number of steps of {global_batch_tokens:,}; "
            f"use {f'{below:,} or ' if below else ''}{below + global_batch_tokens:,}",
        )
