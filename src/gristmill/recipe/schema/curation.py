"""Sections of curation: task packs, sources, classifiers, selection."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gristmill.recipe.schema.formats import Reader
from gristmill.recipe.schema.section import CAP, LABEL, PLACE, Name, Outside, PositiveInt, Section, Share


class PackRef(Section):
    """A task pack: a folder with `pack.yaml` and `items.jsonl`. Its items leave sources and chat data first."""

    path: Annotated[str, PLACE]
    held_out: bool = Field(
        default=True, description="false: the items may be trained on; scores are then called recall"
    )


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
    limits: dict[str, float] = Field(default={}, description="another limit for a reason, for this source only")


class Source(Section):
    """A named collection of documents with its own curation."""

    read: Reader
    license: Annotated[str, LABEL] = Field(description="the licence its documents carry into the data card")
    main_text: MainText | None = Field(
        default=None, description="absent: warc and html get the default, the rest needs none"
    )
    language: LanguageFilter | None = None
    rules: Rules = Rules()
    max_failed: Annotated[Share, CAP] = Field(
        default=0.5,
        description="stop when a larger share of the documents, or of the bytes, cannot be read or processed than this",
    )
    late: Annotated[bool, Outside("is in the config of select")] = Field(
        default=False,
        description="true: it came when others had been trained on. It changes nothing of their documents or of the tokenizer; "
        "what resembles their validation text is dropped. Several are decided in the order of `sources`, so add new ones last",
    )
    unique_tokens: Annotated[PositiveInt | None, CAP] = Field(
        default=None, description="if known; else estimated from bytes until tokenize counts"
    )

    @model_validator(mode="after")
    def _html_alone_has_main_text(self) -> Source:
        if self.main_text is not None and not self.read.holds_html:
            raise ValueError(f"main_text is for warc and html, this source reads {self.read.format}; remove main_text")
        return self


class Classifier(Section):
    """A quality score taught by annotations of one source's documents (FineWeb-Edu's method)."""

    source: str = Field(description="the source whose documents were annotated")
    annotations: Annotated[str, PLACE] = Field(description="JSONL: record_id, url, label 0-5, reason")
    second_annotations: Annotated[str | None, PLACE] = Field(
        default=None, description="the same documents labelled again, for agreement"
    )
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
    max_source_loss: Annotated[Share, CAP] = Field(
        default=0.5,
        description="stop when one document would take a larger share than this of a source as its copies, exact ones included",
    )


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
        default=[], description="whose copy of a duplicate survives; unlisted sources come next, late ones last"
    )
    near_duplicates: NearDuplicates | None = NearDuplicates()
    decontaminate: Decontaminate = Decontaminate()
    validation: Validation = Validation()
