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

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gristmill.recipe.schema.curation import Classifier, PackRef, Select, Source
from gristmill.recipe.schema.evaluation import Evaluate, Export
from gristmill.recipe.schema.post_training import ChatData, Dpo, Finetune, Pairs
from gristmill.recipe.schema.section import Name, Section
from gristmill.recipe.schema.training import ModelSection, Pretrain, TokenizerSection


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

    @property
    def late_sources(self) -> list[str]:
        """In the order in which select decides them."""
        return [name for name, source in self.sources.items() if source.late]

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        from_sources = set(self.sources)
        for name in sorted(from_sources & set(self.packs)):
            raise ValueError(
                f"packs.{name} and sources.{name} have the same name; scores, comparisons and curves go by it. "
                "Rename one of the two, where it is defined and where it is named"
            )
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
        self._check_late_sources()
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
        for change in self.pretrain.changes:
            for name, mixture in change.mixtures.items():
                where = f"pretrain.changes[after step {change.after_step}].set[stages.{name}.mixture]"
                found += [(where, draw.source) for draw in mixture]
        if self.chat is not None and self.chat.definitions_from is not None:
            found.append(("chat.definitions_from", self.chat.definitions_from))
        return found

    def _check_late_sources(self) -> None:
        late = self.late_sources
        if len(late) == len(self.sources):
            raise ValueError(
                "every source is late, but the tokenizer is trained on the others only; remove `late` from those that are "
                "trained on first"
            )
        for name in late:
            if name in self.select.priority:
                raise ValueError(
                    f"select.priority names the late source {name!r}; late sources come after all others, in the order of "
                    "`sources`. Remove it from select.priority"
                )
            if name in self.tokenizer.mixture:
                raise ValueError(
                    f"tokenizer.mixture names the late source {name!r}, which must not change the tokenizer. Remove it from "
                    f"tokenizer.mixture, or remove sources.{name}.late"
                )
        level = {name: late.index(name) + 1 if name in late else 0 for name in self.sources}
        for name, threshold in self.select.min_scores.items():
            teacher = self.classifiers[threshold.classifier].source
            if level[teacher] > level[name]:
                raise ValueError(
                    f"select.min_scores.{name} names the classifier {threshold.classifier!r}, which learns from the late source "
                    f"{teacher!r}; that comes after {name!r} and must not change it. Name a classifier that learns from an "
                    "earlier source"
                )

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
