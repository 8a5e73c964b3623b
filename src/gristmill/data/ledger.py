"""The ledger: what became of every document and every byte, per source.

    documents in = kept + dropped (by reason) + failed (by reason)
    bytes in     = kept + dropped + failed + skipped (by reason: bytes of files that are no document, such as blank lines)
                                            + edited  (by reason: bytes that kept documents lost)

What came in is measured apart from what became of it, so `check` compares two independent counts.
A rule that is switched off is still evaluated; what it would have removed is counted apart, under `would_drop`, and
is no part of the sum.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from gristmill.errors import DataError

Kind = Literal["kept", "dropped", "failed", "would_drop"]
Reasoned = Literal["dropped", "failed", "would_drop"]
REASONED: tuple[Reasoned, ...] = get_args(Reasoned)
EXCERPT_CHARACTERS = 300

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("limit", pa.float64()),
        pa.field("duplicate_of", pa.string()),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("excerpt", pa.string(), nullable=False),
        pa.field("bytes_in", pa.int64(), nullable=False),
    ]
)


def rejected_row(
    *,
    id: str,
    source: str,
    step: str,
    reason: str,
    bytes_in: int,
    value: float | None = None,
    limit: float | None = None,
    duplicate_of: str | None = None,
    detail: str = "",
    text: str = "",
) -> dict[str, Any]:
    """A row of REJECTED_SCHEMA; `value` is what was measured and `limit` what the rule allows, where it has one."""
    return {
        "id": id,
        "source": source,
        "step": step,
        "reason": reason,
        "value": value,
        "limit": limit,
        "duplicate_of": duplicate_of,
        "detail": detail,
        "excerpt": text[:EXCERPT_CHARACTERS],
        "bytes_in": bytes_in,
    }


@dataclass(kw_only=True, slots=True)
class Count:
    """Documents and raw payload bytes."""

    documents: int = 0
    num_bytes: int = 0

    def add(self, documents: int, num_bytes: int) -> None:
        self.documents += documents
        self.num_bytes += num_bytes

    def to_json(self) -> dict[str, int]:
        return {"documents": self.documents, "bytes": self.num_bytes}


@dataclass(kw_only=True, slots=True)
class SourceLedger:
    """The counts of one source: what came in, and per kind and reason what became of it. Kept has the reason ''.

    skipped: reason → bytes that are no document. edited: reason → kept documents that lost a part of their text, and the part of their
    payload bytes that it stands for.
    """

    came_in: Count = field(default_factory=Count)
    fates: dict[tuple[Kind, str], Count] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    edited: dict[str, Count] = field(default_factory=dict)

    def total(self, kind: Kind) -> Count:
        """All reasons of one kind together."""
        total = Count()
        for (other, _), count in self.fates.items():
            if other == kind:
                total.add(count.documents, count.num_bytes)
        return total

    def reasons(self, kind: Kind) -> dict[str, Count]:
        """Counts by reason of one kind, most documents first, then by name."""
        rows = [(reason, count) for (other, reason), count in self.fates.items() if other == kind]
        return dict(sorted(rows, key=lambda row: (-row[1].documents, row[0])))


class Ledger:
    """Counts per source; `saw` when something comes in, `add` when its fate is known, `check` before it is trusted."""

    def __init__(self) -> None:
        self.sources: dict[str, SourceLedger] = {}

    def source(self, name: str) -> SourceLedger:
        """The counts of one source, empty at first."""
        return self.sources.setdefault(name, SourceLedger())

    def saw(self, source: str, num_bytes: int, *, documents: int = 1) -> None:
        """Counts documents (and their raw bytes) that came in."""
        self.source(source).came_in.add(documents, num_bytes)

    def add(self, source: str, kind: Kind, num_bytes: int, *, reason: str = "", documents: int = 1) -> None:
        """Counts a fate. `reason` is empty for "kept" and required for all others."""
        assert (reason == "") == (kind == "kept"), f"kind {kind!r} with reason {reason!r}"
        self.source(source).fates.setdefault((kind, reason), Count()).add(documents, num_bytes)

    def skip(self, source: str, num_bytes: int, *, reason: str) -> None:
        """Counts bytes that are no document."""
        self.source(source).skipped[reason] += num_bytes

    def edit(self, source: str, num_bytes: int, *, reason: str, documents: int = 1) -> None:
        """Counts bytes that kept documents lost; these are not among the bytes kept."""
        self.source(source).edited.setdefault(reason, Count()).add(documents, num_bytes)

    def merge(self, other: Ledger) -> None:
        """Adds the counts of `other` (another shard, say) to these."""
        for name, theirs in other.sources.items():
            mine = self.source(name)
            mine.came_in.add(theirs.came_in.documents, theirs.came_in.num_bytes)
            mine.skipped.update(theirs.skipped)
            for key, count in theirs.fates.items():
                mine.fates.setdefault(key, Count()).add(count.documents, count.num_bytes)
            for reason, count in theirs.edited.items():
                self.edit(name, count.num_bytes, reason=reason, documents=count.documents)

    def check(self) -> None:
        """Raises AssertionError naming the source when documents or bytes do not add up: always a bug of ours."""
        for name, counts in self.sources.items():
            kept, dropped, failed = counts.total("kept"), counts.total("dropped"), counts.total("failed")
            skipped = Count(num_bytes=counts.skipped.total())
            edited = Count(num_bytes=sum(count.num_bytes for count in counts.edited.values()))
            for what in ("documents", "num_bytes"):
                parts = [int(getattr(count, what)) for count in (kept, dropped, failed, skipped, edited)]
                came_in = int(getattr(counts.came_in, what))
                if came_in != sum(parts):
                    raise AssertionError(
                        f"the ledger of source {name!r} does not add up: {what} in {came_in}, "
                        f"kept {parts[0]} + dropped {parts[1]} + failed {parts[2]} + skipped {parts[3]} + edited {parts[4]} = "
                        f"{sum(parts)}"
                    )

    def to_json(self) -> dict[str, Any]:
        """{"sources": {name: {"in": count, "kept": count, "dropped" | "failed" | "would_drop": {reason: count}, "skipped":
        {reason: bytes}, "edited": {reason: count}}}}, the last two only where there are any.

        A count is {"documents", "bytes"}.
        """
        return {"sources": {name: _source_to_json(counts) for name, counts in sorted(self.sources.items())}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ledger:
        """The inverse of `to_json`."""
        ledger = cls()
        for name, counts in value["sources"].items():
            ledger.saw(name, counts["in"]["bytes"], documents=counts["in"]["documents"])
            ledger.add(name, "kept", counts["kept"]["bytes"], documents=counts["kept"]["documents"])
            for kind in REASONED:
                for reason, count in counts[kind].items():
                    ledger.add(name, kind, count["bytes"], reason=reason, documents=count["documents"])
            ledger.source(name).skipped.update(counts.get("skipped", {}))
            for reason, count in counts.get("edited", {}).items():
                ledger.edit(name, count["bytes"], reason=reason, documents=count["documents"])
        return ledger

    def table(self, source: str) -> str:
        """The fates of one source as a small text table, for messages."""
        counts = self.source(source)
        rows = [("in", counts.came_in), ("kept", counts.total("kept"))]
        for kind in REASONED:
            label = kind.replace("_", " ")
            rows += [(f"{label}: {reason}", count) for reason, count in counts.reasons(kind).items()]
        rows += [(f"edited: {reason}", count) for reason, count in sorted(counts.edited.items())]
        rows += [(f"no document: {reason}", Count(num_bytes=size)) for reason, size in sorted(counts.skipped.items())]
        width = max(len(label) for label, _ in rows)
        head = f"  {'':{width}}  documents         bytes"
        return "\n".join(
            [head, *(f"  {label:{width}}  {count.documents:9,}  {count.num_bytes:12,}" for label, count in rows)]
        )


def check_failures(ledger: Ledger, source: str, *, max_failed: float) -> None:
    """Raises DataError where a larger share of a source's documents, or of its bytes, failed than `max_failed`, with the reasons.

    Bytes, because a file that cannot be read at all is one failure, however many documents it holds.
    """
    counts = ledger.source(source)
    came, lost = counts.came_in, counts.total("failed")
    if lost.documents > max_failed * came.documents or lost.num_bytes > max_failed * came.num_bytes:
        raise DataError(
            f"{lost.documents:,} of {came.documents:,} documents of source {source!r}, {lost.num_bytes:,} of {came.num_bytes:,} "
            f"bytes, failed; the limit is {max_failed:.3g} of either:\n"
            f"{ledger.table(source)}\n"
            f"  Failed is what could not be read or processed: look at the files, then raise sources.{source}.max_failed if the "
            "rest is wanted."
        )


def check_loss(counts: SourceLedger, source: str, *, max_loss: float | None) -> None:
    """Raises DataError where a larger share of a source's documents, or of its bytes, is not kept than `max_loss`, with the reasons."""
    came, kept = counts.came_in, counts.total("kept")
    lost = (came.documents - kept.documents, came.num_bytes - kept.num_bytes)
    if max_loss is None or (lost[0] <= max_loss * came.documents and lost[1] <= max_loss * came.num_bytes):
        return
    account = Ledger()
    account.sources[source] = counts
    raise DataError(
        f"source {source!r} loses {lost[0]:,} of {came.documents:,} documents, {lost[1]:,} of {came.num_bytes:,} bytes; the limit "
        f"is {max_loss:.3g} of either:\n{account.table(source)}\n"
        f"  The reasons say what takes most: change that, or raise sources.{source}.max_loss if it is meant."
    )


def in_sequence(first: SourceLedger, second: SourceLedger) -> SourceLedger:
    """One account of two steps, of which the second takes what the first kept: in, kept at the end, all reasons."""
    joined = SourceLedger(
        came_in=first.came_in, fates={("kept", ""): second.total("kept")}, skipped=first.skipped + second.skipped
    )
    for step in (first, second):
        for kind in REASONED:
            for reason, count in step.reasons(kind).items():
                joined.fates.setdefault((kind, reason), Count()).add(count.documents, count.num_bytes)
        for reason, count in step.edited.items():
            joined.edited.setdefault(reason, Count()).add(count.documents, count.num_bytes)
    return joined


def _source_to_json(counts: SourceLedger) -> dict[str, Any]:
    by_kind: dict[str, Any] = {
        kind: {reason: count.to_json() for reason, count in counts.reasons(kind).items()} for kind in REASONED
    }
    skipped = {"skipped": dict(sorted(counts.skipped.items()))} if counts.skipped else {}
    edited = {reason: count.to_json() for reason, count in sorted(counts.edited.items())}
    return {
        "in": counts.came_in.to_json(),
        "kept": counts.total("kept").to_json(),
        **by_kind,
        **skipped,
        **({"edited": edited} if edited else {}),
    }


def read_ledger(path: Path) -> Ledger:
    """The ledger in a ledger.json that a step wrote."""
    return Ledger.from_json(json.loads(path.read_text(encoding="utf-8")))
