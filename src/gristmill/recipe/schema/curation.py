"""Sections of curation: task packs, sources, classifiers, selection."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gristmill.recipe.schema.fetching import Fetch
from gristmill.recipe.schema.formats import Reader
from gristmill.recipe.schema.languages import LanguageCode
from gristmill.recipe.schema.section import (
    CAP,
    LABEL,
    PLACE,
    WATCHED,
    Bytes,
    Name,
    Outside,
    Section,
    Share,
    Tokens,
    Unit,
)

Ngram = Annotated[int, Field(gt=0, le=100), Unit("words", "longer runs of words are never shared")]


class PackRef(Section):
    """A task pack: a folder with `pack.yaml` and `items.jsonl`. Its items are removed from sources and chat data."""

    path: Annotated[str, PLACE] = Field(description="the pack's folder, relative to the recipe")
    held_out: bool = Field(
        default=True, description="false: the items may be trained on; scores are then called recall"
    )
    locked: Annotated[bool, WATCHED] = Field(
        default=False, description="true: no model is scored on it before `evaluate`, nor the trainings of an ablation"
    )


class MainText(Section):
    """How the main text of a page is extracted. Only for sources with HTML."""

    extractor: Literal["trafilatura", "resiliparse"] = Field(
        default="trafilatura", description="trafilatura finds more of the text, resiliparse is ten times as fast"
    )
    keep_maths: bool = Field(default=True, description="rewrite formulas to $…$ before extraction")
    deadline_seconds: Annotated[float, Field(gt=0, le=3600), Unit("seconds", "no document is worth an hour")] = Field(
        default=10.0, description="a document that takes longer fails as timeout"
    )
    max_memory_mb: Annotated[int, Field(gt=0, le=2**20), Unit("MB", "no document is worth a terabyte")] = Field(
        default=2048, description="a document that needs more fails as out_of_memory"
    )


LanguageScore = Annotated[float, Field(ge=0, lt=1), Unit("probability", "scores end at 1, so nothing would stay")]


class LanguageFilter(Section):
    """Which languages are kept, by fastText's lid.176; strictly above the score (FineWeb: .65)."""

    keep: list[LanguageCode] = Field(default=["en"], min_length=1, description="such as en, de, fr")
    min_score: LanguageScore = Field(
        default=0.65, description="a document whose language score is not above this is dropped"
    )
    min_scores: dict[LanguageCode, LanguageScore] = Field(
        default={}, description="language → another score for it, such as {fr: 0.824}"
    )

    def score_of(self, language: str) -> float:
        """What the score of a document in this language must be above."""
        return self.min_scores.get(language, self.min_score)

    @model_validator(mode="after")
    def _scores_are_of_kept_languages(self) -> LanguageFilter:
        if other := [language for language in self.min_scores if language not in self.keep]:
            raise ValueError(f"min_scores names {', '.join(other)}, which `keep` does not list")
        return self


ListFiles = Annotated[list[str], PLACE]


class Listed(Section):
    """Kinds of lists, each in files with one entry a line."""

    @property
    def lists(self) -> dict[str, list[str]]:
        """Kind → the paths of its files, where there are any."""
        return {kind: paths for kind in type(self).model_fields if (paths := getattr(self, kind))}

    @model_validator(mode="after")
    def _has_a_list(self) -> Self:
        if not self.lists:
            raise ValueError(f"names no lists; expected some of {', '.join(type(self).model_fields)}")
        return self


class UrlRules(Listed):
    """Lists by which documents are dropped for their URL, before anything else is done: files with one entry a line.

    Upper and lower case are one. A document without a URL passes.
    """

    domains: ListFiles = Field(default=[], description="drops their hosts and all hosts below them")
    hosts: ListFiles = Field(default=[], description="drops these hosts only")
    urls: ListFiles = Field(default=[], description="drops these URLs, as they are written")
    hard_words: ListFiles = Field(default=[], description="drops URLs with one of these words")
    soft_words: ListFiles = Field(default=[], description="drops URLs with two different ones of these words")
    substrings: ListFiles = Field(
        default=[], description="drops URLs that, stripped to letters and digits, contain one of these"
    )


OWN_PACK = re.compile(r"(.+\.py):([A-Za-z_]\w*)")
RuleLimit = Annotated[float, Field(ge=0, le=1e9), Unit("as the rule counts", "rules count words, lines, shares")]


class Rules(Section):
    """Heuristic rules, as named and versioned packs with published thresholds."""

    packs: list[str] = Field(
        default=[], description="such as gopher_quality@1, fineweb@1, code@1; your own as my_rules.py:PACK"
    )
    off: list[str] = Field(
        default=[], description="reasons that drop nothing in this source; still counted in the ledger"
    )
    limits: dict[str, RuleLimit] = Field(default={}, description="another limit for a reason, for this source only")

    @property
    def own(self) -> dict[str, str]:
        """Packs of the user's own → the path of their file."""
        return {pack: found[1] for pack in self.packs if (found := OWN_PACK.fullmatch(pack))}


def rules_label(path: str) -> str:
    """What a file of a user's own rules is called among the files of a step."""
    return f"rules {path}"


def list_label(kind: str) -> str:
    """What the files of a kind of list are called among the files of a step."""
    return f"list of {kind}"


class Source(Section):
    """A named collection of documents with its own curation."""

    fetch: Annotated[Fetch | None, Outside("is in the config of fetch; its content counts")] = Field(
        default=None,
        description="where its files come from, if they lie elsewhere; `read.paths` then names files among those that were fetched",
    )
    read: Reader = Field(description="the format of its files and their paths")
    license: Annotated[str, LABEL] = Field(description="the licence its documents carry into the data card")
    main_text: MainText | None = Field(
        default=None, description="absent: the defaults for formats with HTML; other formats have none"
    )
    language: LanguageFilter | None = Field(default=None, description="which languages are kept; absent: all")
    urls: UrlRules | None = Field(default=None, description="which URLs are dropped; absent: none")
    rules: Rules = Rules()
    redact: list[Literal["emails", "ip_addresses", "phone_numbers", "secrets"]] = Field(
        default=["emails", "ip_addresses", "secrets"],
        description="personal data that is replaced in the text; secrets are keys and tokens. [] replaces nothing",
    )
    max_failed: Annotated[Share, CAP] = Field(
        default=0.5,
        description="stop when a larger share of the documents, or of the bytes, cannot be read or processed than this",
    )
    max_loss: Annotated[Share | None, CAP] = Field(
        default=None,
        description="stop when a larger share of the documents, or of the bytes, is dropped or fails than this, in extraction or "
        "after selection; absent: no limit",
    )
    late: Annotated[bool, Outside("is in the config of select")] = Field(
        default=False,
        description="true: added after others had been trained on. It does not change their documents or the tokenizer; what "
        "resembles their validation text is dropped. Late sources are selected in the order of `sources`, so add new ones last",
    )
    unique_tokens: Annotated[Tokens | None, CAP] = Field(
        default=None, description="if known; otherwise estimated from bytes until tokenize counts"
    )

    @model_validator(mode="after")
    def _html_alone_has_main_text(self) -> Source:
        if self.main_text is not None and not self.read.holds_html:
            raise ValueError(f"main_text is for warc and html, this source reads {self.read.format}; remove main_text")
        return self


class Classifier(Section):
    """A quality score learnt from annotations of one source's documents (FineWeb-Edu's method)."""

    source: str = Field(description="the source whose documents were annotated")
    annotations: Annotated[str, PLACE] = Field(description="JSONL: record_id, url, label 0-5, reason")
    second_annotations: Annotated[str | None, PLACE] = Field(
        default=None, description="the same documents labelled again, for agreement"
    )
    rubric: str = Field(default="edu-v1", description="name of the annotation instructions")
    features: Literal["hashed_ngrams", "fasttext"] = Field(
        default="hashed_ngrams", description="features of the text that the classifier uses"
    )
    max_chars: Annotated[int, Field(gt=0, le=10**6), Unit("characters", "no annotator reads further")] = Field(
        default=2000, description="only the beginning of a document is annotated and scored"
    )
    num_folds: Annotated[int, Field(ge=2, le=100), Unit("folds", "each fold is learnt without its own documents")] = (
        Field(default=5, description="of the cross-validation that scores the labelled documents")
    )
    min_class_size: Annotated[int, Field(gt=0, le=10**6), Unit("documents", "no class would be left")] = Field(
        default=20, description="smaller classes are merged with their neighbour"
    )


class MinScore(Section):
    """Keep documents whose raw score is strictly above `above` (FineWeb-Edu's "3" is 2.5: scores were rounded)."""

    classifier: str = Field(description="a name from `classifiers`")
    above: Annotated[float, Field(ge=-5, le=10), Unit("score", "scores follow labels from 0 to 5")] = Field(
        description="documents at or below it are dropped"
    )


class NearDuplicates(Section):
    """MinHash LSH candidates, verified on full text. P(found) = 1 − (1 − s^rows)^bands."""

    num_bands: Annotated[int, Field(gt=0, le=1000), Unit("bands", "each is stored for every document")] = Field(
        default=14, description="more bands find less similar copies"
    )
    rows_per_band: Annotated[int, Field(gt=0, le=100), Unit("rows", "only exact copies would be found")] = Field(
        default=8, description="more rows leave fewer pairs to compare"
    )
    ngram: Ngram = Field(default=5, description="documents are compared as sets of word n-grams of this length")
    min_jaccard: Annotated[
        float, Field(ge=0.1, le=1), Unit("similarity", "lower, all texts are copies of each other")
    ] = Field(default=0.7, description="a candidate pair below this is not a duplicate")
    max_source_loss: Annotated[Share, CAP] = Field(
        default=0.5,
        description="stop when more than this share of a source would be dropped as copies of one document, exact ones included",
    )


class RepeatedText(Section):
    """Paragraphs or lines that occur again in later documents are removed from these; the first document keeps them."""

    unit: Literal["paragraph", "line"] = Field(
        default="paragraph",
        description="what is compared: neighbouring lines without a blank one between them, or single lines",
    )
    min_words: Annotated[int, Field(ge=2, le=10_000), Unit("words", "no paragraph is longer")] = Field(
        default=13,
        description="a shorter unit stays wherever it is; an edited document with fewer words left is dropped",
    )
    min_documents: Annotated[int, Field(ge=2, le=10**9), Unit("documents", "there are no more")] = Field(
        default=2, description="a unit that fewer have stays, unless validation text has it"
    )
    sources: list[str] | None = Field(
        default=None,
        description="which take part; absent: all but those of format code, whose licence heads belong to them",
    )
    max_loss: Annotated[Share, CAP] = Field(
        default=0.2, description="stop when a source would lose a larger share of its training text this way"
    )


class Decontaminate(Section):
    """How the items of the recipe's packs are looked for in documents, which are dropped where one is found."""

    rule: Literal["coverage@1", "finemath@1"] = Field(
        default="coverage@1",
        description="coverage@1: enough of a question, by the weight of its words, edited or not; "
        "finemath@1: 13 words of the prompt in a row and a common subsequence of .6 of it, as published",
    )


class Validation(Section):
    """Held-out text per source, chosen by a keyed hash of the duplicate cluster."""

    fraction: Annotated[float, Field(ge=0, le=0.5), Unit("share", "the rest is what is trained on")] = Field(
        default=0.01, description="of each source's text"
    )
    min_bytes: Bytes = Field(default=20_000, description="held out of each source at least")
    max_bytes: Bytes = Field(default=10_000_000, description="held out of each source at most")


class OptOut(Listed):
    """Lists of documents that must not be trained on: files with one entry a line. They are found after extraction, which is not repeated."""

    domains: ListFiles = Field(default=[], description="drops their hosts and all hosts below them")
    urls: ListFiles = Field(
        default=[], description="drops these URLs, as they are written, but for upper and lower case"
    )
    ids: ListFiles = Field(default=[], description="drops documents with these ids, such as paths, and their passages")


class Select(Section):
    """Which documents are kept, decided over all sources together."""

    opt_out: OptOut | None = Field(default=None, description="documents that are dropped on request; absent: none")
    min_scores: dict[Name, MinScore] = Field(default={}, description="source → threshold")
    priority: list[str] = Field(
        default=[], description="whose copy of a duplicate survives; unlisted sources come next, late ones last"
    )
    near_duplicates: NearDuplicates | None = Field(
        default=NearDuplicates(), description="null: only exact copies are removed"
    )
    repeated_text: RepeatedText | None = Field(
        default=None, description="absent: documents are kept or dropped as a whole"
    )
    decontaminate: Decontaminate = Decontaminate()
    validation: Validation = Validation()
