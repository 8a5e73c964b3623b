"""The recipe: every decision that defines the model, as strict frozen models.

A recipe is YAML. Unknown keys are refused, nothing is coerced in silence, and every field is a decision: two people with
different machines want the same value. Where and how it runs (devices, workers, folders) is `machine.py`.

    Recipe
    ├── packs         task packs: held-out items leave everything before anything else
    ├── sources       named collections of documents: read → main text → language → rules
    ├── classifiers   quality scores taught by annotations
    ├── select        thresholds, duplicates, contamination, the validation split
    ├── tokenizer     model            the Hugging Face keys of a Llama config.json
    ├── pretrain      stages, each with its tokens, its mixture, its sequence length
    ├── chat, sft, pairs, dpo          post-training
    └── evaluate, export               what is measured, what is left behind
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SCHEMA_VERSION = 1
MAX_WEIGHT_DECIMALS = 6

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Base of every part of a recipe: frozen, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# ── task packs ───────────────────────────────────────────────────────────────────────────────────────────────────────


class PackRef(Section):
    """A task pack: a folder with `pack.yaml` and `items.jsonl`. Its items leave sources and chat data first."""

    path: str
    held_out: bool = Field(
        default=True, description="false: the items may be trained on; scores are then called recall"
    )


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class ReadFiles(Section):
    """What every reader has: files, as paths or globs relative to the recipe."""

    paths: list[str] = Field(min_length=1)


class ReadWarc(ReadFiles):
    """Web archives, one gzip member a record; HTML responses are read."""

    format: Literal["warc"]


class ReadHtml(ReadFiles):
    """HTML files."""

    format: Literal["html"]


class ReadJsonl(ReadFiles):
    """One JSON object a line, plain or .gz."""

    format: Literal["jsonl"]
    text_field: str = "text"
    id_field: str | None = Field(default=None, description="absent: file name and the byte at which the line begins")
    url_field: str | None = None


class ReadParquet(ReadFiles):
    """Parquet files."""

    format: Literal["parquet"]
    text_column: str = "text"
    id_column: str | None = Field(default=None, description="absent: file name and row number")
    url_column: str | None = None


class ReadText(ReadFiles):
    """Plain text or Markdown, plain or .gz; a book is split into chapters so that it can lie on both sides of the split."""

    format: Literal["text"]
    split_at: str | None = Field(
        default=None, description="regular expression matched at line starts; a match begins a document"
    )

    @field_validator("split_at")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"split_at {value!r} is not a regular expression: {error}") from None
        return value


class ReadCode(ReadFiles):
    """Source trees: folders, or .tar.gz archives of them. The language is told by the file's extension."""

    format: Literal["code"]
    extensions: list[str] | None = Field(default=None, description="such as .py; absent: all that are known")


Reader = Annotated[
    ReadWarc | ReadHtml | ReadJsonl | ReadParquet | ReadText | ReadCode,
    Field(discriminator="format"),
]


class MainText(Section):
    """How the text of a page is found. Only for sources that hold HTML."""

    extractor: Literal["trafilatura", "resiliparse"] = "trafilatura"
    keep_maths: bool = Field(default=True, description="rewrite formulas to $…$ before extraction")
    deadline_seconds: float = Field(default=10.0, gt=0, description="a document that takes longer is failed as timeout")
    max_memory_mb: PositiveInt = Field(
        default=2048, description="a document that needs more is failed as out_of_memory"
    )


class LanguageFilter(Section):
    """Which languages stay, by fastText's lid.176; strictly above the score (FineWeb: .65)."""

    keep: list[str] = Field(default=["en"], min_length=1)
    min_score: Share = 0.65


class Rules(Section):
    """Heuristic rules, as named and versioned packs with published thresholds."""

    packs: list[str] = Field(default=[], description="such as gopher_quality@1, fineweb@1, code@1")
    off: list[str] = Field(default=[], description="reasons that do not drop here; still counted in the ledger")
    limits: dict[str, float] = Field(default={}, description="another limit for a reason, for this source alone")


class Source(Section):
    """A named collection of documents with its own curation."""

    read: Reader
    license: str = Field(description="the licence its documents carry into the data card")
    main_text: MainText | None = Field(
        default=None, description="absent: warc and html get the default, the rest needs none"
    )
    language: LanguageFilter | None = None
    rules: Rules = Rules()
    unique_tokens: PositiveInt | None = Field(
        default=None, description="if known; else estimated from bytes until tokenize counts"
    )

    @model_validator(mode="after")
    def _html_alone_has_main_text(self) -> Source:
        if self.main_text is not None and self.read.format not in ("warc", "html"):
            raise ValueError(f"main_text is for warc and html, this source reads {self.read.format}; remove main_text")
        return self


class Classifier(Section):
    """A quality score taught by annotations of one source's documents (FineWeb-Edu's method)."""

    source: str = Field(description="the source whose documents were annotated")
    annotations: str = Field(description="JSONL: record_id, url, label 0-5, reason")
    second_annotations: str | None = Field(default=None, description="the same documents labelled again, for agreement")
    rubric: str = "edu-v1"
    features: Literal["hashed_ngrams", "fasttext"] = "hashed_ngrams"
    max_chars: PositiveInt = Field(default=2000, description="the crop that was annotated and is scored")
    num_folds: int = Field(default=5, ge=2)
    min_class_size: PositiveInt = Field(default=20, description="smaller classes are merged with their neighbour")


class MinScore(Section):
    """Keep documents whose raw score is strictly above `above` (FineWeb-Edu's "3" is 2.5: scores were rounded)."""

    classifier: str
    above: float


class NearDuplicates(Section):
    """MinHash LSH candidates, verified on full text. P(found) = 1 − (1 − s^rows)^bands."""

    num_bands: PositiveInt = 14
    rows_per_band: PositiveInt = 8
    ngram: PositiveInt = 5
    min_jaccard: Share = Field(default=0.7, description="a candidate pair below this is not a duplicate")
    max_source_loss: Share = Field(default=0.5, description="stop when a source would lose a larger share than this")


class Decontaminate(Section):
    """Word n-gram overlap with the recipe's packs; items shorter than one n-gram are matched whole."""

    ngram: PositiveInt = 13


class Validation(Section):
    """Held-out text per source, chosen by a keyed hash of the duplicate cluster."""

    fraction: Share = 0.01
    min_bytes: PositiveInt = 20_000
    max_bytes: PositiveInt = 10_000_000


class Select(Section):
    """Which documents stay, decided over all sources together."""

    min_scores: dict[Name, MinScore] = Field(default={}, description="source → threshold")
    priority: list[str] = Field(
        default=[], description="whose copy of a duplicate survives; unlisted sources come last"
    )
    near_duplicates: NearDuplicates | None = NearDuplicates()
    decontaminate: Decontaminate = Decontaminate()
    validation: Validation = Validation()


# ── tokenizer and model ──────────────────────────────────────────────────────────────────────────────────────────────


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


# ── pretraining ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Draw(Section):
    """One entry of a mixture: a share of the stage's tokens from a source, or from its long documents alone."""

    source: str
    weight: Weight
    min_document_tokens: PositiveInt | None = None


class Stage(Section):
    """A budget of tokens drawn by one mixture at one sequence length."""

    name: Name
    tokens: PositiveInt
    seq_len: PositiveInt
    mixture: list[Draw] = Field(min_length=1, description="a list of draws, or source: weight")
    rope_theta: float | None = Field(
        default=None, gt=0, description="new RoPE base from this stage on (context extension)"
    )

    @field_validator("mixture", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return [{"source": source, "weight": weight} for source, weight in value.items()]
        return value

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Stage:
        total = sum((Decimal(repr(draw.weight)) for draw in self.mixture), Decimal(0))
        if abs(total - 1) > Decimal("1e-9"):
            raise ValueError(f"the weights of stage {self.name!r} sum to {total}, not 1 (off by {total - 1:+})")
        for draw in self.mixture:
            exponent = Decimal(repr(draw.weight)).normalize().as_tuple().exponent
            if isinstance(exponent, int) and -exponent > MAX_WEIGHT_DECIMALS:
                raise ValueError(
                    f"the weight {draw.weight!r} of {draw.source!r} in stage {self.name!r} has more than "
                    f"{MAX_WEIGHT_DECIMALS} decimals; tokens are apportioned exactly, so round it"
                )
        keys = [(draw.source, draw.min_document_tokens) for draw in self.mixture]
        if len(set(keys)) != len(keys):
            raise ValueError(f"stage {self.name!r} draws the same selection twice; add the weights up")
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
    max_epochs: float = Field(
        default=5.0, gt=0, description="refuse beyond this (Muennighoff et al. 2023: value fades after 4)"
    )
    warn_epochs: float = Field(default=4.0, gt=0)
    allow_epochs: dict[Name, AllowEpochs] = {}
    watch: Watch
    sample_prompts: list[str] = Field(default=[""], description="continued after each stage, for the report")
    checkpoint_every_tokens: PositiveInt

    @property
    def total_tokens(self) -> int:
        """Tokens of all stages."""
        return sum(stage.tokens for stage in self.stages)

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
        return self


# ── post-training ────────────────────────────────────────────────────────────────────────────────────────────────────


class ChatData(Section):
    """Conversations: hand-written files, sums, and questions about definitions in a source."""

    conversations: list[str] = Field(default=[], description="JSONL files of {id, topic, messages}")
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
    """Passes over conversations: cosine schedule, loss on the assistant's tokens alone."""

    epochs: PositiveInt
    batch_conversations: PositiveInt
    seq_len: PositiveInt
    warmup_frac: Share = 0.1
    optimizer: Optimizer
    sample_prompts: list[str] = Field(default=["Hello!"], description="asked at the end, for the report")


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


# ── evaluation and export ────────────────────────────────────────────────────────────────────────────────────────────


class Evaluate(Section):
    """What is measured at the end, for each model the recipe makes."""

    packs: list[str] = []
    validation_bytes: PositiveInt = Field(default=200_000, description="held-out text per source for bits per byte")
    xz_yardstick: bool = Field(default=True, description="bits per byte of xz primed with the training text")


class Export(Section):
    """The stock model folder."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Recipe(Section):
    """Everything that defines the model."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="names the folder of its artefacts")]
    description: str = ""
    seed: int = Field(ge=0)
    packs: dict[Name, PackRef] = {}
    sources: dict[Name, Source] = Field(min_length=1)
    classifiers: dict[Name, Classifier] = {}
    select: Select = Select()
    tokenizer: TokenizerSection
    model: ModelSection
    pretrain: Pretrain
    chat: ChatData | None = None
    sft: Finetune | None = None
    pairs: Pairs | None = None
    dpo: Dpo | None = None
    evaluate: Evaluate = Evaluate()
    export: Export = Export()

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        from_sources = set(self.sources)
        for where, wanted in self._source_references():
            if wanted not in from_sources:
                raise ValueError(f"{where} names the source {wanted!r}; the recipe has {sorted(from_sources)}")
        for source, threshold in self.select.min_scores.items():
            if threshold.classifier not in self.classifiers:
                raise ValueError(
                    f"select.min_scores.{source} names the classifier {threshold.classifier!r}; "
                    f"the recipe has {sorted(self.classifiers)}"
                )
        for where, packs in (
            ("pretrain.watch.packs", self.pretrain.watch.packs),
            ("evaluate.packs", self.evaluate.packs),
        ):
            for pack in packs:
                if pack not in self.packs:
                    raise ValueError(f"{where} names the pack {pack!r}; the recipe has {sorted(self.packs)}")
        self._check_lengths()
        self._check_post_training()
        return self

    def _source_references(self) -> list[tuple[str, str]]:
        found = [(f"select.min_scores.{name}", name) for name in self.select.min_scores]
        found += [("select.priority", name) for name in self.select.priority]
        found += [("tokenizer.mixture", name) for name in self.tokenizer.mixture]
        found += [("pretrain.allow_epochs", name) for name in self.pretrain.allow_epochs]
        found += [(f"classifiers.{name}.source", item.source) for name, item in self.classifiers.items()]
        for stage in self.pretrain.stages:
            found += [(f"pretrain.stages[{stage.name}].mixture", draw.source) for draw in stage.mixture]
        if self.chat is not None and self.chat.definitions_from is not None:
            found.append(("chat.definitions_from", self.chat.definitions_from))
        return found

    def _check_lengths(self) -> None:
        limit = self.model.max_position_embeddings
        longest = {f"pretrain.stages[{stage.name}].seq_len": stage.seq_len for stage in self.pretrain.stages}
        if self.sft is not None:
            longest["sft.seq_len"] = self.sft.seq_len
        if self.dpo is not None:
            longest["dpo.seq_len"] = self.dpo.seq_len
        for where, seq_len in longest.items():
            if seq_len > limit:
                raise ValueError(f"{where} is {seq_len}, longer than model.max_position_embeddings {limit}")

    def _check_post_training(self) -> None:
        needs = (
            ("sft", self.sft, "chat", self.chat),
            ("pairs", self.pairs, "sft", self.sft),
            ("dpo", self.dpo, "pairs", self.pairs),
        )
        for name, section, needed_name, needed in needs:
            if section is not None and needed is None:
                raise ValueError(f"{name} needs the section {needed_name}; add it or remove {name}")
        if self.tokenizer.mixture:
            total = sum((Decimal(repr(weight)) for weight in self.tokenizer.mixture.values()), Decimal(0))
            if abs(total - 1) > Decimal("1e-9"):
                raise ValueError(f"the weights of tokenizer.mixture sum to {total}, not 1")
