"""The recipe: every decision that defines the model, as strict frozen models.

A recipe is YAML. Unknown keys are refused, nothing is coerced in silence, and every field is a decision: two people with
different machines want the same value. Where and how it runs (devices, workers, folders) is `machine.py`.

    Recipe
    ├── packs         task packs: held-out items are removed from everything first
    ├── sources       named collections of documents: read → main text → language → rules
    ├── classifiers   quality scores learnt from annotations
    ├── select        thresholds, duplicates, contamination, the validation split
    ├── tokenizer     model            the Hugging Face keys of a Llama config.json
    ├── pretrain      stages, each with its tokens, its mixture, its sequence length
    ├── chat, sft, pairs, dpo          post-training
    ├── evaluate, export               what is measured and exported
    └── ablations     candidate data, judged by trainings of their own
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gristmill.recipe.schema.ablation import Ablation
from gristmill.recipe.schema.curation import Classifier, PackRef, Select, Source
from gristmill.recipe.schema.evaluation import Evaluate, Export
from gristmill.recipe.schema.post_training import ChatData, Dpo, Finetune, Pairs
from gristmill.recipe.schema.section import RUN_NAME, KeyPath, Misfit, Name, Section, Seed, did_you_mean
from gristmill.recipe.schema.training import ModelSection, Pretrain, TokenizerSection

Problem = tuple[KeyPath, str]


class Recipe(Section):
    """Everything that defines the model."""

    schema_version: Literal[1] = Field(description="version of the recipe format")
    name: Annotated[str, Field(pattern=RUN_NAME, description="name of the run and of its folder")]
    description: str = Field(default="", description="one sentence, for the report and the model card")
    seed: Seed = Field(description="of all random choices")
    packs: dict[Name, PackRef] = Field(default={}, description="task packs by name")
    sources: dict[Name, Source] = Field(min_length=1, description="collections of documents by name")
    classifiers: dict[Name, Classifier] = Field(default={}, description="quality scores by name")
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
    ablations: dict[Name, Ablation] = Field(default={}, description="by name; `gristmill ablate` makes them")

    @property
    def pretraining_seed(self) -> int:
        """Of the first weights and the order of data."""
        return self.seed if self.pretrain.seed is None else self.pretrain.seed

    @property
    def late_sources(self) -> list[str]:
        """In the order in which select decides them."""
        return [name for name, source in self.sources.items() if source.late]

    @property
    def stage_packs(self) -> list[str]:
        """Packs that pretraining is scored on at the end of each stage besides those that it is watched by."""
        watch = self.pretrain.watch
        wanted = watch.stage_packs
        if wanted is None:
            wanted = [name for name in self.evaluate.packs if not self.packs[name].locked]
        return [name for name in wanted if name not in watch.packs]

    @property
    def locked_packs(self) -> list[str]:
        """Packs that nothing is scored on before the end."""
        return [name for name, pack in self.packs.items() if pack.locked]

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if unknown := [*self._unknown_names()]:
            raise Misfit(*unknown)
        if problems := [
            *self._shared_names(),
            *self._locked(),
            *self._released(),
            *self._late(),
            *self._lengths(),
            *self._post_training(),
        ]:
            raise Misfit(*problems)
        return self

    def _unknown_names(self) -> Iterator[Problem]:
        for key, where, wanted in self._references_to_sources():
            if wanted not in self.sources:
                yield key, _unknown(where, "source", wanted, self.sources)
        for source, threshold in self.select.min_scores.items():
            if threshold.classifier not in self.classifiers:
                where = f"select.min_scores.{source}"
                yield (
                    ("select", "min_scores", source, "classifier"),
                    _unknown(where, "classifier", threshold.classifier, self.classifiers),
                )
        named: tuple[tuple[KeyPath, list[str]], ...] = (
            (("pretrain", "watch", "packs"), self.pretrain.watch.packs),
            (("pretrain", "watch", "stage_packs"), self.pretrain.watch.stage_packs or []),
            (("evaluate", "packs"), self.evaluate.packs),
        )
        for key, packs in named:
            for index, pack in enumerate(packs):
                if pack not in self.packs:
                    yield (*key, index), _unknown(".".join(map(str, key)), "pack", pack, self.packs)

    def _references_to_sources(self) -> Iterator[tuple[KeyPath, str, str]]:
        """(keys that lead there, the same in words, the name) of each name of a source outside `sources`."""
        yield from (
            (("select", "min_scores", name), f"select.min_scores.{name}", name) for name in self.select.min_scores
        )
        for index, name in enumerate(self.select.priority):
            yield ("select", "priority", index), "select.priority", name
        if self.select.repeated_text is not None:
            for index, name in enumerate(self.select.repeated_text.sources or ()):
                yield ("select", "repeated_text", "sources", index), "select.repeated_text.sources", name
        yield from ((("tokenizer", "mixture", name), "tokenizer.mixture", name) for name in self.tokenizer.mixture)
        yield from (
            (("pretrain", "allow_epochs", name), "pretrain.allow_epochs", name) for name in self.pretrain.allow_epochs
        )
        for name, item in self.classifiers.items():
            yield ("classifiers", name, "source"), f"classifiers.{name}.source", item.source
        for index, stage in enumerate(self.pretrain.stages):
            key = ("pretrain", "stages", index, "mixture")
            for number, draw in enumerate(stage.mixture):
                yield (*key, number, draw.source), f"pretrain.stages[{stage.name}].mixture", draw.source
        for index, change in enumerate(self.pretrain.changes):
            for name, mixture in change.mixtures.items():
                entry = f"stages.{name}.mixture"
                where = f"pretrain.changes[after step {change.after_step}].set[{entry}]"
                for number, draw in enumerate(mixture):
                    yield ("pretrain", "changes", index, "set", entry, number, draw.source), where, draw.source
        for name, ablation in self.ablations.items():
            where = f"ablations.{name}"
            yield ("ablations", name, "endpoint"), f"{where}.endpoint", ablation.endpoint
            for at, draws in ablation.mixtures():
                for number, draw in enumerate(draws):
                    yield ("ablations", name, *at, number, draw.source), ".".join(map(str, (where, *at))), draw.source
        if self.chat is not None and self.chat.definitions_from is not None:
            yield ("chat", "definitions_from"), "chat.definitions_from", self.chat.definitions_from

    def _shared_names(self) -> Iterator[Problem]:
        for name in sorted(self.sources.keys() & self.packs.keys()):
            yield (
                ("packs", name),
                f"packs.{name} and sources.{name} have the same name; scores, comparisons and curves go by it. "
                "Rename one of the two, where it is defined and where it is named",
            )

    def _locked(self) -> Iterator[Problem]:
        watch = self.pretrain.watch
        for key, packs in (("packs", watch.packs), ("stage_packs", watch.stage_packs or [])):
            for index, name in enumerate(packs):
                if self.packs[name].locked:
                    yield (
                        ("pretrain", "watch", key, index),
                        f"pretrain.watch.{key} names {name!r}, which packs.{name}.locked keeps for the end. Leave it to evaluate.packs, "
                        f"or remove packs.{name}.locked",
                    )
        for name in self.locked_packs:
            if not self.packs[name].held_out:
                yield (
                    ("packs", name, "locked"),
                    f"packs.{name} is locked and may be trained on; what was trained on tells nothing at the end either. Remove "
                    f"locked, or held_out: false",
                )

    def _released(self) -> Iterator[Problem]:
        if self.pretrain.init_from is None:
            return
        for name in sorted(self.tokenizer.model_fields_set & {"mixture", "max_bytes"}):
            yield (
                ("tokenizer", name),
                f"tokenizer.{name} is of a tokenizer that is trained, but pretrain.init_from names a model that has its own; "
                f"remove tokenizer.{name}, or pretrain.init_from",
            )

    def _late(self) -> Iterator[Problem]:
        late = self.late_sources
        if len(late) == len(self.sources):
            yield (
                ("sources",),
                "every source is late, but the tokenizer is trained on the others only; remove `late` from those that are "
                "trained on first",
            )
        for name in late:
            if name in self.select.priority:
                yield (
                    ("select", "priority", self.select.priority.index(name)),
                    f"select.priority names the late source {name!r}; late sources come after all others, in the order of "
                    "`sources`. Remove it from select.priority",
                )
            if name in self.tokenizer.mixture:
                yield (
                    ("tokenizer", "mixture", name),
                    f"tokenizer.mixture names the late source {name!r}, which must not change the tokenizer. Remove it from "
                    f"tokenizer.mixture, or remove sources.{name}.late",
                )
        level = {name: late.index(name) + 1 if name in late else 0 for name in self.sources}
        for name, threshold in self.select.min_scores.items():
            teacher = self.classifiers[threshold.classifier].source
            if level[teacher] > level[name]:
                yield (
                    ("select", "min_scores", name, "classifier"),
                    f"select.min_scores.{name} names the classifier {threshold.classifier!r}, which learns from the late source "
                    f"{teacher!r}; that comes after {name!r} and must not change it. Name a classifier that learns from an "
                    "earlier source",
                )

    def _lengths(self) -> Iterator[Problem]:
        limit = self.model.max_position_embeddings
        lengths: list[tuple[KeyPath, str, int]] = [
            (("pretrain", "stages", index, "seq_len"), f"pretrain.stages[{stage.name}].seq_len", stage.seq_len)
            for index, stage in enumerate(self.pretrain.stages)
        ]
        for name, section in (("sft", self.sft), ("dpo", self.dpo)):
            if section is not None:
                lengths.append(((name, "seq_len"), f"{name}.seq_len", section.seq_len))
        if self.evaluate.window is not None:
            lengths.append((("evaluate", "window"), "evaluate.window", self.evaluate.window))
        for key, where, seq_len in lengths:
            if seq_len > limit:
                yield key, f"{where} is {seq_len}, longer than model.max_position_embeddings {limit}"

    def _post_training(self) -> Iterator[Problem]:
        needs = (
            ("sft", self.sft, "chat", self.chat),
            ("pairs", self.pairs, "sft", self.sft),
            ("dpo", self.dpo, "pairs", self.pairs),
        )
        for name, section, needed_name, needed in needs:
            if section is not None and needed is None:
                yield (name,), f"{name} needs the section {needed_name}; add it or remove {name}"
        if self.tokenizer.mixture:
            total = sum((Decimal(repr(weight)) for weight in self.tokenizer.mixture.values()), Decimal(0))
            if abs(total - 1) > Decimal("1e-9"):
                yield ("tokenizer", "mixture"), f"the weights of tokenizer.mixture sum to {total}, not 1"


def _unknown(where: str, kind: str, wanted: str, known: Iterable[str]) -> str:
    return f"{where} names the {kind} {wanted!r}; {did_you_mean(wanted, known)}the recipe has {sorted(known)}"
