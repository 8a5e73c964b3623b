"""Where the text of each source came from and under which licences: as the recipe states, as the place says that it was fetched from, and as
its documents say of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from gristmill.data.document import open_parquet
from gristmill.data.outputs import Fetched
from gristmill.report.facts import Facts
from gristmill.select.outputs import Selected
from gristmill.units import counted

LICENCES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class FetchedFrom:
    """What a source was fetched from. num_items: pages of a crawl or blobs that came, None where files are fetched whole; failed: reason →
    how many did not."""

    place: str
    files: int
    num_bytes: int
    num_items: int | None
    failed: Mapping[str, int]
    commit: str
    licence: str

    @property
    def words(self) -> str:
        """The place, at which commit."""
        return f"{self.place} at {self.commit}" if self.commit else self.place


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One source. licence: of the recipe. documents: of those kept, and licences what they state themselves → how many."""

    licence: str
    fetched: FetchedFrom | None
    documents: int
    licences: Counter[str] = field(default_factory=Counter)

    @property
    def licence_words(self) -> str:
        """All that is known of its licence, in words."""
        parts = [self.licence]
        if self.fetched is not None and self.fetched.licence:
            parts.append(f"where it was fetched: {self.fetched.licence}")
        if self.licences:
            named = [f"{name} {count:,}" for name, count in self.licences.most_common(LICENCES_SHOWN)]
            if more := len(self.licences) - LICENCES_SHOWN:
                named += [f"{counted(more, 'other')}"] if more > 0 else []
            parts.append(
                f"stated for {self.licences.total():,} of {counted(self.documents, 'document')}: {', '.join(named)}"
            )
        return "; ".join(parts)


def origins_of(facts: Facts) -> dict[str, Origin]:
    """Source → its origin. Of the kept documents the column of licences is read, where any has one."""
    chosen = facts.left("select", Selected)
    documents, licences = Counter[str](), {source: Counter[str]() for source in facts.sources}
    for path in (*chosen.train, *chosen.validation):
        source = path.parent.name
        with open_parquet(path) as file:
            documents[source] += file.metadata.num_rows
            licences[source].update(_licences_in(file))
    return {
        source: Origin(
            licence=facts.labels.licenses[source],
            fetched=_fetched(facts, f"fetch/{source}"),
            documents=documents[source],
            licences=licences[source],
        )
        for source in facts.sources
    }


def _licences_in(file: pq.ParquetFile) -> Counter[str]:
    found: Counter[str] = Counter()
    place = file.schema_arrow.get_field_index("license")
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        known = group.column(place).statistics
        if known is not None and known.has_null_count and known.null_count == group.num_rows:
            continue
        counts = file.read_row_group(number, columns=["license"]).column("license").value_counts()
        found.update({row["values"]: row["counts"] for row in counts.to_pylist() if row["values"]})
    return found


def _fetched(facts: Facts, step: str) -> FetchedFrom | None:
    if not facts.has(step):
        return None
    record, said = facts.left(step, Fetched).record, facts.left(step, Fetched).facts
    counts = record.counts
    return FetchedFrom(
        place=_place(record.at("fetch")),
        files=counts["files"],
        num_bytes=counts["bytes"],
        num_items=counts.get("records", counts.get("blobs")),
        failed=counts.get("failed", {}),
        commit=said["commit"] or "",
        licence=said["licence"] or "",
    )


def _place(fetch: Mapping[str, Any]) -> str:
    """Where it was fetched, in words."""
    match fetch:
        case {"kind": "hub", "dataset": name}:
            return f"the Hub, {name}"
        case {"crawl": crawl, "url": url}:
            return f"Common Crawl {crawl}, {url}"
        case {"crawl": crawl}:
            return f"Common Crawl {crawl}, {fetch.get('tld', 'all sites')}"
        case {"address": address}:
            return str(address)
        case {"urls": [*files]}:
            hosts = {urlsplit(str(one["url"])).hostname or "" for one in files}
            return ", ".join(sorted(hosts))
        case _:
            return str(fetch["kind"]).replace("_", " ")
