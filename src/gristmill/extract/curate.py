"""One document from record to fate: main text, language, rules. Runs inside the guard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gristmill.data.charset import decode
from gristmill.data.document import Document
from gristmill.data.ledger import Kind, rejected_row
from gristmill.data.record import RawDocument, Unread, clean_text
from gristmill.extract.language import detect_language
from gristmill.extract.main_text import Extractor, find_main_text
from gristmill.extract.rules import judge
from gristmill.recipe.schema.formats import ReadFiles

STEP = "extract"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is done to each document of a source. `read` is the reader's section of the recipe.

    extractor: None for sources without HTML. languages: None keeps all, and language is then not looked for.
    min_language_score is exclusive. max_failed: share of records that may end their process.
    """

    source: str
    read: ReadFiles
    extractor: Extractor | None
    keep_maths: bool
    deadline_seconds: float
    max_memory_mb: int
    max_failed: float
    languages: frozenset[str] | None
    min_language_score: float
    packs: tuple[str, ...]
    off: frozenset[str]
    limits: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fate:
    """What became of one record: a kept document's row or a rejected one's, and what was counted on the way."""

    kind: Kind
    row: dict[str, Any]
    bytes_in: int
    reason: str = ""
    would_drop: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)


def curate(raw: RawDocument, settings: Settings) -> Fate:
    """The fate of one document: main text, language and rules; the first failure decides.

    A text too short to tell its language passes the language filter with no language (counted).
    """
    source = settings.source
    counts: Counter[str] = Counter()
    text = raw.text
    if text is None:
        assert raw.payload is not None, f"record {raw.id} has neither text nor payload"
        text, charset = decode(raw.payload, raw.charset)
        counts[f"charset:{charset}"] += 1
    if raw.payload is not None and (raw.is_all_text or settings.extractor is not None):
        extractor = None if raw.is_all_text else settings.extractor
        found = find_main_text(text, extractor=extractor, keep_maths=settings.keep_maths)
        counts.update({f"formulas_in:{kind}": count for kind, count in found.formulas_in.items()})
        counts.update({f"formulas_out:{kind}": count for kind, count in found.formulas_out.items()})
        if found.reason is not None:
            kind: Kind = "dropped" if found.reason == "empty_main_text" else "failed"
            return reject(raw, source, kind, found.reason, value=found.value, limit=found.limit, counts=counts)
        text = found.text
    text = clean_text(text)
    if not text.strip():
        return reject(raw, source, "dropped", "empty_text", counts=counts)
    language, score = raw.language, None
    if settings.languages is not None:
        language, score = detect_language(text)
        if language is None:
            counts["too_short_to_tell_language"] += 1
            score = None
        elif language not in settings.languages:
            return reject(
                raw, source, "dropped", "other_language", detail=f"{language} {score:.3f}", text=text, counts=counts
            )
        elif score <= settings.min_language_score:
            limit = settings.min_language_score
            return reject(
                raw,
                source,
                "dropped",
                "language_unsure",
                value=score,
                limit=limit,
                detail=language,
                text=text,
                counts=counts,
            )
    verdict = judge(text, settings.packs, off=settings.off, limits=settings.limits)
    counts.update({f"lines_removed:{reason}": count for reason, count in verdict.lines_removed.items()})
    if verdict.drop is not None:
        drop = verdict.drop
        return reject(raw, source, "dropped", drop.reason, value=drop.value, limit=drop.limit, text=text, counts=counts)
    document = Document(
        id=clean_text(raw.id),
        source=source,
        text=verdict.text,
        origin=clean_text(raw.origin),
        bytes_in=raw.bytes_in,
        url=None if raw.url is None else clean_text(raw.url),
        language=language,
        language_score=score,
        license=raw.license,
    )
    would_drop = tuple(failure.reason for failure in verdict.would_drop)
    return Fate(kind="kept", row=document.row(), bytes_in=raw.bytes_in, would_drop=would_drop, counts=counts)


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
