"""One record to its fates: URL, main text, passages where the recipe cuts long documents, language, rules. Runs inside the guard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

from gristmill.data import deadline
from gristmill.data.charset import decode
from gristmill.data.document import Document
from gristmill.data.ledger import EXCERPT_CHARACTERS, Kind, rejected_row
from gristmill.data.lists import Lists
from gristmill.data.passages import cut_passages, passage_id
from gristmill.data.record import RawDocument, Unread, clean_text
from gristmill.extract.judge import RuleError, judge
from gristmill.extract.language import detect_language
from gristmill.extract.main_text import Extractor, find_main_text
from gristmill.extract.own_packs import OwnPack, load_own_packs, said_where
from gristmill.extract.redact import REDACTED, redact
from gristmill.extract.urls import WITHOUT_URL, load_url_filter
from gristmill.formats.license_files import UNKNOWN
from gristmill.recipe.schema.formats import ReadCode, ReadFiles

STEP = "extract"
LICENSE = "license:"  # and stated, unknown or none: the count of kept documents where licence files are read
REPOSITORY = "repository:"  # and told or none: likewise, where repositories are told
PASSAGES = "passages"  # the count of documents that are a part of a longer one


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is done to each document of a source. `read` is the reader's section of the recipe.

    extractor: None for sources without HTML. min_language_scores: of the languages that are kept, exclusive; None keeps all, and
    language is then not looked for. max_failed: share of records that may end their process.
    """

    source: str
    read: ReadFiles
    extractor: Extractor | None
    keep_maths: bool
    deadline_seconds: float
    max_memory_mb: int
    max_failed: float
    min_language_scores: Mapping[str, float] | None
    packs: tuple[str, ...]
    off: frozenset[str]
    limits: dict[str, float]
    redact: frozenset[str]
    own_packs: tuple[OwnPack, ...] = ()
    urls: Lists | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fate:
    """What became of one document, a record or a passage of it: its row, kept or rejected, and what was counted on the way."""

    kind: Kind
    row: dict[str, Any]
    bytes_in: int
    reason: str = ""
    would_drop: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)


def curate(raw: RawDocument, settings: Settings) -> tuple[Fate, ...]:
    """The fates of a record: one, or one of each passage, whose bytes are shares of the record's and add up to them."""
    counts: Counter[str] = Counter()
    if settings.urls is not None and (blocked := _blocked(raw, settings, counts)):
        return (blocked,)
    text = _text_of(raw, settings, counts)
    if isinstance(text, Fate):
        return (text,)
    limit = settings.read.passage_chars
    passages = [text] if limit is None else cut_passages(text, limit)
    fates = []
    for own, passage in _documents(raw, passages):
        if own.is_passage:
            counts[PASSAGES] += 1
            deadline.extend()  # each document has its own
        fates.append(_judge(own, passage, settings, counts, name=raw.id))
        counts = Counter()
    return tuple(fates)


def _blocked(raw: RawDocument, settings: Settings, counts: Counter[str]) -> Fate | None:
    """The fate of a record whose URL is on a list. One without a URL is counted."""
    assert settings.urls is not None
    if not raw.url:
        counts[WITHOUT_URL] += 1
        return None
    if (why := load_url_filter(settings.urls).blocks(raw.url)) is None:
        return None
    return reject(
        raw, settings.source, "dropped", why.reason, value=why.value, limit=why.limit, detail=clean_text(why.entry)
    )


def _documents(raw: RawDocument, passages: list[str]) -> Iterator[tuple[RawDocument, str]]:
    """Each passage as a document of its own. One alone is the record."""
    if len(passages) == 1:
        yield raw, passages[0]
        return
    sizes = [len(passage.encode("utf-8")) for passage in passages]
    total, done, taken = sum(sizes), 0, 0
    for number, (passage, size) in enumerate(zip(passages, sizes, strict=True)):
        done += size
        share = raw.bytes_in * done // total - taken
        taken += share
        own = replace(raw, id=passage_id(raw.id, number), bytes_in=share, text=None, payload=None, is_passage=True)
        yield own, passage


def _text_of(raw: RawDocument, settings: Settings, counts: Counter[str]) -> str | Fate:
    """The text of a record, or why it has none."""
    source, text = settings.source, raw.text
    if text is None:
        assert raw.payload is not None, f"record {raw.id} has neither text nor payload"
        text, charset = decode(raw.payload, raw.charset)
        counts[f"charset:{charset}"] += 1
    if raw.payload is not None and (raw.is_all_text or settings.extractor is not None):
        extractor = None if raw.is_all_text else settings.extractor
        found = find_main_text(text, extractor=extractor, keep_maths=settings.keep_maths)
        for name in ("formulas_in", "formulas_out", "layout_in", "layout_out"):
            counts.update({f"{name}:{kind}": count for kind, count in getattr(found, name).items()})
        if found.reason is not None:
            kind: Kind = "dropped" if found.reason == "empty_main_text" else "failed"
            return reject(raw, source, kind, found.reason, value=found.value, limit=found.limit, counts=counts)
        text = found.text
    text = clean_text(text)
    if not text.strip():
        return reject(raw, source, "dropped", "empty_text", counts=counts)
    return text


def _judge(raw: RawDocument, text: str, settings: Settings, counts: Counter[str], *, name: str) -> Fate:
    """The fate of one document: language and rules; the first failure decides. name: of its record."""
    source, begin = settings.source, redact(text[:EXCERPT_CHARACTERS], settings.redact)[0]
    found = _language_of(raw, text, settings, counts, begin=begin)
    if isinstance(found, Fate):
        return found
    language, score = found
    told = cache(partial(_likely_language, text)) if settings.min_language_scores is None else lambda: language
    own = load_own_packs(settings.own_packs) if settings.own_packs else {}
    try:
        verdict = judge(
            text, settings.packs, off=settings.off, limits=settings.limits, language=told, own=own, name=name
        )
    except RuleError as error:
        path = error.pack.rpartition(":")[0]
        reason, detail = f"rule_error:{path}:{error.reason}", said_where(error.cause, path)
        return reject(raw, source, "failed", reason, detail=detail, text=begin, counts=counts)
    counts.update({f"lines_removed:{reason}": count for reason, count in verdict.lines_removed.items()})
    if verdict.drop is not None:
        drop = verdict.drop
        return reject(
            raw, source, "dropped", drop.reason, value=drop.value, limit=drop.limit, text=begin, counts=counts
        )
    final, replaced = redact(verdict.text, settings.redact)
    counts.update({f"{REDACTED}{kind}": count for kind, count in replaced.items()})
    if isinstance(settings.read, ReadCode) and settings.read.license_files:
        counts[LICENSE + ("none" if raw.license is None else UNKNOWN if raw.license == UNKNOWN else "stated")] += 1
    if settings.read.tells_repositories:
        counts[REPOSITORY + ("none" if raw.repository is None else "told")] += 1
    would_drop = tuple(failure.reason for failure in verdict.would_drop)
    row = _document(raw, final, settings, language, score).row()
    return Fate(kind="kept", row=row, bytes_in=raw.bytes_in, would_drop=would_drop, counts=counts)


def _language_of(
    raw: RawDocument, text: str, settings: Settings, counts: Counter[str], *, begin: str
) -> tuple[str | None, float | None] | Fate:
    """The language of a document and how sure it is, or its fate where it is none that is kept. Where all are kept, what its record says.

    A text too short to tell its language passes with no language (counted). begin: of the text, for the rejected row.
    """
    if settings.min_language_scores is None:
        return raw.language, None
    language, score = detect_language(text)
    if language is None:
        counts["too_short_to_tell_language"] += 1
        return None, None
    if (limit := settings.min_language_scores.get(language)) is None:
        told = f"{language} {score:.3f}"
        return reject(raw, settings.source, "dropped", "other_language", detail=told, text=begin, counts=counts)
    if score <= limit:
        return reject(
            raw,
            settings.source,
            "dropped",
            "language_unsure",
            value=score,
            limit=limit,
            detail=language,
            text=begin,
            counts=counts,
        )
    return language, score


def _document(
    raw: RawDocument, text: str, settings: Settings, language: str | None, language_score: float | None
) -> Document:
    """The document that is kept of a record or a passage."""
    return Document(
        id=clean_text(raw.id),
        source=settings.source,
        text=text,
        origin=clean_text(raw.origin),
        bytes_in=raw.bytes_in,
        url=None if raw.url is None else clean_text(raw.url),
        language=language,
        language_score=language_score,
        license=raw.license,
        repository=None if raw.repository is None else clean_text(raw.repository),
    )


def _likely_language(text: str) -> str | None:
    """The language that a text more probably has than all others together."""
    language, score = detect_language(text)
    return language if score > 0.5 else None


def reject(
    record: RawDocument | Unread,
    source: str,
    kind: Kind,
    reason: str,
    *,
    value: float | None = None,
    limit: float | None = None,
    detail: str = "",
    text: str = "",
    counts: Counter[str] | None = None,
) -> Fate:
    """A record that is not kept, as a row of REJECTED_SCHEMA. `detail` gets the record's URL where it has one."""
    url = f"{detail} {record.url}".strip() if record.url else detail
    row = rejected_row(
        id=clean_text(record.id),
        source=source,
        step=STEP,
        reason=reason,
        bytes_in=record.bytes_in,
        value=value,
        limit=limit,
        detail=clean_text(url),
        text=clean_text(text[:1000]),
    )
    return Fate(kind=kind, row=row, bytes_in=record.bytes_in, reason=reason, counts=counts or Counter())
