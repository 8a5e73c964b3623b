"""What a recipe fetches: what it is, where its files lie or will lie, and how large they are by what is known.

fetched: as counted ─→ else as a server told ─→ else the limit in the recipe ─→ else not known
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gristmill.graph.state import States
from gristmill.recipe.schema.fetching import Fetch, FetchCommonCrawl, FetchHub, FetchObjectStore, FetchSoftwareHeritage
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.store import RunLinks
from gristmill.units import counted, in_bytes

SizeKnown = Literal["fetched", "told", "at most", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What servers say of a source. files, num_bytes: None where they say nothing. problem: why, in words."""

    files: int | None = None
    num_bytes: int | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class FetchFacts:
    """One source that lies elsewhere. here_bytes: of it on this machine. note: why its size is not known."""

    what: str
    place: str
    how_known: SizeKnown
    files: int | None
    num_bytes: int | None
    here_bytes: int
    note: str

    def __str__(self) -> str:
        files = "" if self.files is None else f"{counted(self.files, 'file')}, "
        size = f"size not known ({self.note})" if self.num_bytes is None else in_bytes(self.num_bytes)
        size = f"at most {size}" if self.how_known == "at most" else size
        if self.how_known == "fetched":
            return f"{self.what}: fetched, {files}{size}, in {self.place}"
        here = f"; {in_bytes(self.here_bytes)} of it are here" if self.here_bytes else ""
        return f"{self.what}: {files}{size}{here}; will lie in {self.place}"


def find_fetches(
    recipe: Recipe, links: RunLinks, states: States | None, told: Mapping[str, Told]
) -> dict[str, FetchFacts]:
    """The facts of each source that is fetched. states: None where they are not worked out; what the run has then speaks."""
    return {
        name: _facts(name, source.fetch, links, states, told.get(name))
        for name, source in recipe.sources.items()
        if source.fetch is not None
    }


def _facts(name: str, fetch: Fetch, links: RunLinks, states: States | None, told: Told | None) -> FetchFacts:
    step = f"fetch/{name}"
    identity = links.before(step) if states is None else states[step].identity
    record = None if identity is None else links.record_of(step, identity)
    what, place = _words(fetch), str(links.folder / step / "files")
    if record is not None:
        counts = record.get("counts", {})
        num_bytes = int(counts.get("bytes", 0))
        return FetchFacts(
            what=what,
            place=place,
            how_known="fetched",
            files=counts.get("files"),
            num_bytes=num_bytes,
            here_bytes=num_bytes,
            note="",
        )
    limit = fetch.max_bytes
    is_told = told is not None and told.num_bytes is not None
    how_known: SizeKnown = "told" if is_told else "unknown" if limit is None else "at most"
    return FetchFacts(
        what=what,
        place=place,
        how_known=how_known,
        files=None if told is None else told.files,
        num_bytes=told.num_bytes if told is not None and is_told else limit,
        here_bytes=_bytes_under(links.unfinished(step)),
        note="not asked" if told is None else told.problem,
    )


def _bytes_under(folder: Path | None) -> int:
    parts = [] if folder is None else [*folder.glob("files/**/*"), *folder.glob(f"parts/{'[0-9]' * 5}")]
    return sum(path.stat().st_size for path in parts if path.is_file())


def _words(fetch: Fetch) -> str:
    if isinstance(fetch, FetchHub):
        return f"{fetch.dataset} at {fetch.revision}, {' '.join(fetch.files)}"
    if isinstance(fetch, FetchObjectStore):
        return f"{fetch.address}, {' '.join(fetch.files)}"
    if isinstance(fetch, FetchCommonCrawl):
        of = fetch.url or (f".{fetch.tld}" if fetch.tld else "all sites")
        return f"{fetch.crawl}, at most {counted(fetch.max_records, 'page')} of {of}"
    if isinstance(fetch, FetchSoftwareHeritage):
        most = "" if fetch.max_files is None else f", the first {fetch.max_files:,}"
        ids = " ".join(fetch.ids or ()) if fetch.ids_from is None else _words(fetch.ids_from)
        return f"Software Heritage, the ids of {ids}{most}"
    return f"{counted(len(fetch.urls), 'URL')}, the first is {fetch.urls[0].url}"
