"""Reads a file as a source does, span by span, and holds what was read against what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gristmill.data.record import RawDocument, Record, Skip
from gristmill.formats.format import Span, format_named
from gristmill.recipe.schema.formats import READERS, ReadFiles


def settings(kind: str, **keys: Any) -> ReadFiles:
    """The section `read` of a recipe."""
    return READERS[kind].model_validate({"format": kind, "paths": ["x"], **keys})


def num_bytes(records: Iterable[Record]) -> int:
    """What records and skips say they take."""
    return sum(record.num_bytes if isinstance(record, Skip) else record.bytes_in for record in records)


def texts(records: Iterable[Record]) -> list[str]:
    """The text of each document, "!reason" for a record that is none; skips are left out."""
    return [
        record.text or "" if isinstance(record, RawDocument) else f"!{record.reason}"
        for record in records
        if not isinstance(record, Skip)
    ]


def reasons(records: Iterable[Record]) -> Counter[str]:
    """How many records are no documents, by reason; skips by theirs."""
    return Counter(record.reason for record in records if not isinstance(record, RawDocument))


def read_whole(
    kind: str, path: Path, *, limit: int = 1 << 40, spans: list[Span] | None = None, **keys: Any
) -> list[Record]:
    """The records of all spans of a file; fails unless their bytes add up to the content of the spans."""
    format, read = format_named(kind), settings(kind, **keys)
    spans = format.spans(path, name="x", limit=limit) if spans is None else spans
    found = [record for span in spans for record in format.read(span, read)]
    contents = [format.content(span, read) for span in spans]
    assert num_bytes(found) == sum(content.num_bytes for content in contents)
    if all(content.num_records is not None for content in contents):
        assert sum(not isinstance(one, Skip) for one in found) == sum(content.num_records or 0 for content in contents)
    return found
