"""Annotations: quality labels of documents, given by a model or a person under a rubric.

One JSON object per line: record_id and/or url (which document), label 0-5, reason, rubric, annotator. A second file with
labels of the same documents, given independently, tells how far the labels themselves can be trusted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gristmill.errors import DataError
from gristmill.store.jsonl import numbered_objects

KEYS = {"record_id", "url", "label", "reason", "rubric", "annotator"}
MAX_LABEL = 5


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One label. A document is named by its WARC record id, its URL, or both; the record id decides."""

    record_id: str | None
    url: str | None
    label: int
    reason: str
    rubric: str
    annotator: str

    @property
    def names(self) -> list[str]:
        """What the document may be known by, the surest first."""
        return [name for name in (self.record_id, self.url) if name]


def read_annotations(path: Path, *, first: int | None = None) -> list[Annotation]:
    """All labels of a file, in order, or the first so many.

    Raises DataError, naming file and line, for a line that is not an object, an unknown key, a label that is no whole
    number from 0 to 5, a line that names no document, a document labelled twice, or a file without labels.
    """
    found: dict[str, Annotation] = {}
    for number, value in islice(numbered_objects(path), first):
        annotation = _parse(value, where=f"{path}:{number}")
        if annotation.names[0] in found:
            raise DataError(
                f"{path}:{number}: {annotation.names[0]!r} was labelled before. One label per document; a second opinion "
                f"belongs in a file of its own (second_annotations)."
            )
        found[annotation.names[0]] = annotation
    if not found:
        raise DataError(f"{path} holds no annotations.")
    return list(found.values())


def _parse(value: dict[str, Any], *, where: str) -> Annotation:
    if unknown := value.keys() - KEYS:
        raise DataError(f"{where}: unknown keys {sorted(unknown)}; expected {sorted(KEYS)}.")
    for key in KEYS - {"label"}:
        if not isinstance(value.get(key), str | None):
            raise DataError(f"{where}: {key} is {value[key]!r}, expected a text.")
    label = value.get("label")
    if type(label) is not int or not 0 <= label <= MAX_LABEL:
        raise DataError(f"{where}: label is {label!r}, expected a whole number from 0 to {MAX_LABEL}.")
    if not value.get("record_id") and not value.get("url"):
        raise DataError(f"{where}: neither record_id nor url says which document this labels.")
    return Annotation(
        record_id=value.get("record_id") or None,
        url=value.get("url") or None,
        label=label,
        reason=value.get("reason") or "",
        rubric=value.get("rubric") or "",
        annotator=value.get("annotator") or "",
    )


def merge_small_classes(labels: Sequence[int], *, min_class_size: int) -> dict[int, int]:
    """Label -> the label it is trained as: classes below the size go to the neighbour, the smaller one at a tie.

    The smallest class moves first, until all are large enough or one is left; a class keeps its own value otherwise.
    """
    counts = Counter(labels)
    target = {label: label for label in counts}
    while len(counts) > 1:
        small = min(counts, key=lambda label: (counts[label], -label))
        if counts[small] >= min_class_size:
            break
        others = [label for label in counts if label != small]
        neighbour = min(others, key=lambda label: (abs(label - small), counts[label], label))
        counts[neighbour] += counts.pop(small)
        target = {label: neighbour if to == small else to for label, to in target.items()}
    return dict(sorted(target.items()))
