"""STEP fetch, one per source that lies elsewhere: addresses, a data set of the Hub, an object store, pages of Common Crawl or files of
Software Heritage ─→ files, checked, and their origins.

files/         files that are complete; the content of the artefact
origins.json   url, size, hash and ETag of each
listing.json   of addresses, the Hub and object stores: what is fetched, decided once: sizes, hashes, the commit
parts/         of these: files under way; a killed step continues with the bytes that are there
ids/           the same four for tables of ids that are fetched first; gone when their files are there

What the last two write beside the files, and how they resume, is in `common_crawl.py` and `software_heritage.py`.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from gristmill.data.common_crawl import Wish, fetch_crawl
from gristmill.data.connection import Connections
from gristmill.data.crawl_index import Query
from gristmill.data.crawl_table import Table
from gristmill.data.download import Client, Wanted
from gristmill.data.executor import LocalThreads
from gristmill.data.hub import account_headers, list_dataset
from gristmill.data.object_store import StoreClient, list_store
from gristmill.data.patience import Patience, UnreachableError
from gristmill.data.software_heritage import Blobs, fetch_blobs
from gristmill.errors import DataError, Interrupted
from gristmill.graph.progress import Position
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.fetching import (
    FetchCommonCrawl,
    FetchHub,
    FetchObjectStore,
    FetchSoftwareHeritage,
    FetchUrls,
)
from gristmill.store.durable import file_sha256, read_json, write_json
from gristmill.store.remote import Remote
from gristmill.units import counted, in_bytes

VERSION = 1
WholeFiles = FetchUrls | FetchHub | FetchObjectStore
CONNECTIONS = 4  # at a time: what one host takes without complaint


def run(ctx: StepContext, *, patience: Patience | None = None) -> dict[str, Any]:
    """Fetches what is missing of one source; returns counts.

    Raises DataError for an answer that is wrong, UnreachableError (75) where the network fails: what is there stays for the next
    start.
    """
    section, place = ctx.config["fetch"], ctx.watching.config["fetch"]
    trying = patience or Patience()
    with Connections() as connections, connections.shut_when(ctx.should_stop):
        if not isinstance(section, FetchCommonCrawl | FetchSoftwareHeritage):
            counts = _committed(ctx, _files(ctx, place, ctx.out, trying, connections))
            shutil.rmtree(ctx.out / "parts")
            (ctx.out / "listing.json").unlink()
            return counts
        client = Client(patience=trying, should_stop=ctx.should_stop, say=ctx.say, connections=connections)
        if isinstance(section, FetchCommonCrawl):
            return _put_together(ctx, _crawl(ctx, client, section, place))
        assert isinstance(place, FetchSoftwareHeritage)
        tables = _tables(ctx, place, trying, connections)
        counts = _put_together(ctx, _blobs(ctx, client, section, place, tables), tables)
        if tables is not None:
            (ctx.out / "ids" / "origins.json").unlink()  # first: without it, what is missing would be fetched again
            shutil.rmtree(ctx.out / "ids")
        return counts


def _crawl(ctx: StepContext, client: Client, section: FetchCommonCrawl, place: FetchCommonCrawl) -> dict[str, Any]:
    """place: the section with its hosts, which are no part of what is fetched."""
    query: Query | Table
    if place.table is not None:
        query = Table(
            address=place.table,
            crawl=section.crawl,
            tld=section.tld,
            mime=section.mime,
            language=section.language,
            status=section.status,
            max_records=section.max_records,
        )
    else:
        assert section.url is not None, "the schema asks for one of both"
        query = Query(
            index=place.index,
            crawl=section.crawl,
            url=section.url,
            mime=section.mime,
            language=section.language,
            status=section.status,
        )
    wish = Wish(query=query, data=place.data, max_records=section.max_records, max_bytes=section.max_bytes)
    return fetch_crawl(client, wish, ctx.out, progress=ctx.progress, say=ctx.say)


def _tables(
    ctx: StepContext, place: FetchSoftwareHeritage, patience: Patience, connections: Connections
) -> dict[str, Any] | None:
    """The origins of the tables of ids, once all are fetched; None where the recipe names files."""
    if place.ids_from is None:
        return None
    out = ctx.out / "ids"
    out.mkdir(exist_ok=True)
    if not (out / "origins.json").exists():
        write_json(out / "origins.json", _files(ctx, place.ids_from, out, patience, connections))
    return dict(read_json(out / "origins.json"))


def _blobs(
    ctx: StepContext,
    client: Client,
    section: FetchSoftwareHeritage,
    place: FetchSoftwareHeritage,
    tables: Mapping[str, Any] | None,
) -> dict[str, Any]:
    fetched = ctx.out / "ids" / "files"
    blobs = Blobs(
        ids=tuple(ctx.files["ids"].files) if tables is None else tuple(fetched / name for name in tables["files"]),
        id_column=section.id_column,
        encoding_column=section.encoding_column,
        content=place.content,
        api=place.api,
        max_files=section.max_files,
        max_bytes=section.max_bytes,
    )
    return fetch_blobs(client, blobs, ctx.out, progress=ctx.progress, say=ctx.say)


def _put_together(ctx: StepContext, counts: dict[str, Any], tables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Commits files that were put together here. tables: the origins of what they were put together by, where it was fetched, too."""
    paths = sorted((ctx.out / "files").iterdir())
    facts = {path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in paths}
    found: Mapping[str, Any] = tables or {"commit": None, "licence": None}
    more = {} if tables is None else {"ids": tables["files"]}
    return {**_committed(ctx, {**found, "files": facts, **more}), **counts}


def _committed(ctx: StepContext, origins: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the origins; returns the counts. origins: commit, licence and, of each of the files, its bytes and hash at least."""
    write_json(ctx.out / "origins.json", origins)
    sizes = [one["bytes"] for one in origins["files"].values()]
    ctx.say(f"{ctx.part}: fetched {counted(len(sizes), 'file')}, {in_bytes(sum(sizes))}")
    return {"files": len(sizes), "bytes": sum(sizes), "commit": origins["commit"], "licence": origins["licence"]}


def _files(
    ctx: StepContext, section: WholeFiles, out: Path, patience: Patience, connections: Connections
) -> dict[str, Any]:
    """Fetches files that are there as they are, each by its address, into `out`; returns their origins.

    section: with what the identity does not know.
    """
    remote = Remote(section.address) if isinstance(section, FetchObjectStore) else None
    listing = _listing(ctx, section, out / "listing.json", remote)
    wanted = [Wanted(**entry) for entry in listing["files"]]
    files, parts = out / "files", out / "parts"
    parts.mkdir(exist_ok=True)
    total = None if any(one.num_bytes is None for one in wanted) else sum(one.num_bytes or 0 for one in wanted)
    max_bytes = section.max_bytes if isinstance(section, FetchUrls) else None
    received = _Received(ctx, total=total, max_bytes=max_bytes)
    client: Client | StoreClient
    if remote is None:
        client = Client(
            headers=account_headers() if isinstance(section, FetchHub) else {},
            patience=patience,
            should_stop=received.should_stop,
            say=ctx.say,
            count=received.count,
            connections=connections,
        )
    else:
        client = StoreClient(remote=remote, should_stop=received.should_stop, count=received.count)
    number = {one.name: f"{index:05}" for index, one in enumerate(wanted)}
    origins: dict[str, Any] = {}

    def fetch(one: Wanted) -> dict[str, Any]:
        facts = client.fetch(one, files / one.name, parts / number[one.name], max_bytes=max_bytes)
        received.count(one.name, facts["bytes"])
        return facts

    executor = LocalThreads(threads=CONNECTIONS, should_stop=received.should_stop)
    try:
        for one, outcome in executor.map(fetch, wanted):
            if isinstance(outcome, Exception):
                received.errors.append(outcome)
            else:
                origins[one.name] = outcome
    except Interrupted:
        if not received.errors:
            raise
    if received.errors:
        raise min(
            received.errors, key=lambda error: isinstance(error, UnreachableError)
        )  # a wrong answer is told first
    return {"commit": listing["commit"], "licence": listing["licence"], "files": dict(sorted(origins.items()))}


class _Received:
    """The bytes of each file that came so far, by all threads. errors: what ends the fetching: of a file, or more bytes than allowed."""

    def __init__(self, ctx: StepContext, *, total: int | None, max_bytes: int | None) -> None:
        self.errors: list[Exception] = []
        self._ctx, self._total, self._max_bytes = ctx, total, max_bytes
        self._lock, self._sizes = threading.Lock(), dict[str, int]()

    def count(self, name: str, num_bytes: int) -> None:
        """A file has so many bytes now."""
        with self._lock:
            self._sizes[name] = num_bytes
            done, most = sum(self._sizes.values()), self._max_bytes
            if most is not None and done > most:
                self.errors.append(
                    DataError(
                        f"{self._ctx.part}: more than max_bytes ({in_bytes(most)}) would be fetched; raise it, or name fewer files."
                    )
                )
            self._ctx.progress(Position(done=done, total=self._total, unit="byte", counts={"byte": done}))

    def should_stop(self) -> bool:
        """After an error, and when the step is asked to."""
        return bool(self.errors) or self._ctx.should_stop()


def _listing(ctx: StepContext, section: WholeFiles, path: Path, remote: Remote | None) -> dict[str, Any]:
    """What to fetch, decided at the first start: a branch that moves later does not mix two versions."""
    if not path.exists():
        commit = licence = None
        if isinstance(section, FetchHub):
            ctx.progress(Position.doing(f"asking the Hub for {section.dataset}"))
            found = list_dataset(section.dataset, section.revision, section.files)
            commit, licence = found.commit, found.licence
            files = first_files(found.files, max_files=section.max_files, max_bytes=section.max_bytes)
            ctx.say(f"{ctx.part}: {section.dataset} at {commit}, {counted(len(files), 'file')} of {len(found.files):,}")
        elif isinstance(section, FetchObjectStore):
            assert remote is not None
            ctx.progress(Position.doing(f"asking {remote.address} for its files"))
            listed = list_store(remote, section.files)
            files = first_files(listed, max_files=section.max_files, max_bytes=section.max_bytes)
            ctx.say(f"{ctx.part}: {remote.address}, {counted(len(files), 'file')} of {len(listed):,}")
        else:
            files = [Wanted(name=one.name, url=one.url, sha256=one.sha256) for one in section.urls]
        for one in files:
            _check_name(one.name)
        entries = [asdict(one) for one in files]
        write_json(path, {"commit": commit, "licence": licence, "files": entries})
    return dict(read_json(path))


def first_files(files: Iterable[Wanted], *, max_files: int | None, max_bytes: int | None) -> list[Wanted]:
    """The first files that fit. Raises DataError where not even one does."""
    chosen: list[Wanted] = []
    size = 0
    for one in files:
        size += one.num_bytes or 0
        if (max_files is not None and len(chosen) == max_files) or (max_bytes is not None and size > max_bytes):
            break
        chosen.append(one)
    if not chosen:
        raise DataError(f"the first file is {in_bytes(size)}, larger than max_bytes; raise it.")
    return chosen


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise DataError(f"the listing names a file {name!r}, which would lie outside of its folder.")
