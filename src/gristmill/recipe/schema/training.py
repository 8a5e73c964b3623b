"""Sections of training: tokenizer, model, the stages of pretraining."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gristmill.recipe.schema.changes import Change, check_changes
from gristmill.recipe.schema.mixture import Draw, as_draws, check_mixture
from gristmill.recipe.schema.section import CAP, LABEL, WATCHED, Name, PositiveInt, Section, Weight


class TokenizerSection(Section):
    """Byte-level BPE with all 256 bytes, digits one by one, SmolLM2's 17 special tokens and a pad token of its own."""

    vocab_size: int = Field(ge=300)
    mixture: dict[Name, Weight] = Field(
        default={}, description="share of training bytes per source; absent: as they are"
    )
    max_bytes: PositiveInt = Field(default=200_000_000, description="text the trainer sees")


class ModelSection(Section):
    """The keys of a Hugging Face Llama config.json."""

    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    rope_theta: float = Field(default=10_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    initializer_range: float = Field(gt=0)
    tie_word_embeddings: bool = True
    max_position_embeddings: PositiveInt = Field(description="the context of the released model, after extension")

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

    name: Annotated[Name, LABEL]
    tokens: PositiveInt
    seq_len: PositiveInt
    mixture: list[Draw] = Field(min_length=1, description="a list of draws, or source: weight")
    rope_theta: float | None = Field(
        default=None, gt=0, description="new RoPE base from this stage on (context extension)"
    )

    @field_validator("mixture", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return as_draws(value)

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Stage:
        check_mixture(self.mixture, f"stage {self.name!r}")
        return self


class Optimizer(Section):
    """AdamW."""

    peak_lr: float = Field(gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    decay_embeddings: bool = Field(default=True, description="SmolLM2 decays all parameters; SmolLM3 spares embeddings")
    max_grad_norm: float = Field(default=1.0, gt=0)


class AllowEpochs(Section):
    """A cap above the default for one source, with the reason on record."""

    max: float = Field(gt=0)
    reason: str = Field(min_length=10)


class Watch(Section):
    """What is measured on the way."""

    every_tokens: PositiveInt
    validation_bytes: PositiveInt = Field(default=50_000, description="held-out text per source for bits per byte")
    packs: list[str] = Field(default=[], description="cloze packs scored inside the loop")
    max_items: PositiveInt = Field(default=1000, description="items per pack; 1,000 resolve four points")


class Pretrain(Section):
    """Stages under one warmup-stable-decay schedule; the last stage may extend the context inside the decay."""

    stages: list[Stage] = Field(min_length=1)
    global_batch_tokens: PositiveInt
    warmup_tokens: int = Field(ge=0)
    decay_tokens: PositiveInt
    decay_shape: Literal["linear", "one_minus_sqrt"] = "linear"
    optimizer: Optimizer
    changes: list[Change] = Field(default=[], description="what differs from some step on, in rising order")
    max_epochs: Annotated[float, CAP] = Field(
        default=5.0, gt=0, description="refuse beyond this (Muennighoff et al. 2023: value fades after 4)"
    )
    warn_epochs: Annotated[float, CAP] = Field(default=4.0, gt=0)
    allow_epochs: Annotated[dict[Name, AllowEpochs], CAP] = {}
    watch: Annotated[Watch, WATCHED]
    sample_prompts: Annotated[list[str], WATCHED] = Field(
        default=[""], description="continued after each stage, for the report"
    )
    checkpoint_every_tokens: Annotated[PositiveInt, WATCHED]

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
            raise ValueError(f"two stages share a name: {names}")
        for stage in self.stages:
            if self.global_batch_tokens % stage.seq_len:
                raise ValueError(
                    f"global_batch_tokens {self.global_batch_tokens} is not a multiple of seq_len {stage.seq_len} "
                    f"of stage {stage.name!r}"
                )
            if stage.tokens % self.global_batch_tokens:
                below = stage.tokens // self.global_batch_tokens * self.global_batch_tokens
                raise ValueError(
                    f"stage {stage.name!r} has {stage.tokens:,} tokens, not a whole number of steps of "
                    f"{self.global_batch_tokens:,}; use {f'{below:,} or ' if below else ''}{below + self.global_batch_tokens:,}"
                )
        if self.warmup_tokens + self.decay_tokens > self.total_tokens:
            raise ValueError(
                f"warmup_tokens {self.warmup_tokens:,} + decay_tokens {self.decay_tokens:,} exceed the "
                f"{self.total_tokens:,} tokens of all stages; lower them together with the tokens"
            )
        first, begins = 0, dict[str, int]()
        for stage in self.stages:
            begins[stage.name] = first
            first += stage.tokens // self.global_batch_tokens
        check_changes(self.changes, begins, first)
        return self
