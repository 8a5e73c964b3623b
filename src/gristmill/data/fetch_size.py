"""How large what a recipe fetches will be: counted in tables on this machine, or asked of the servers, within a short limit, and never
more than heads and listings."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from gristmill.data.connection import ask
from gristmill.data.download import AGENT
from gristmill.data.fetch import WholeFiles, first_files
from gristmill.data.hub import list_dataset
from gristmill.data.id_tables import told_of_tables
from gristmill.data.object_store import list_store
from gristmill.data.outside import find_outside
from gristmill.errors import GristmillError
from gristmill.planning.fetches import Told
from gristmill.recipe.schema.fetching import Fetch, FetchHub, FetchObjectStore, FetchSoftwareHeritage, FetchUrls
from gristmill.store.remote import Remote
from gristmill.units import counted, in_bytes

SECONDS = 1.0  # for all sources together: a plan answers at once, with a network and without
MAX_HEADS = 16


def ask_sizes(sections: Mapping[str, Fetch], *, seconds: float = SECONDS) -> dict[str, Told]:
    """What is told of each source, all asked at once; of those whose size can be asked for without fetching them."""
    found: dict[str, Told] = {}

    def answer(name: str, section: WholeFiles) -> None:
        try:
            told = _of_urls(section, seconds) if isinstance(section, FetchUrls) else _listed(section, seconds)
            found[name] = _first(told) if isinstance(sections[name], FetchSoftwareHeritage) else told
        except (GristmillError, OSError) as error:
            words = (str(error).splitlines() or [type(error).__name__])[0]
            found[name] = Told(problem=words.removeprefix(f"{getattr(section, 'dataset', '')}: ").rstrip("."))

    asked_for = {
        name: section.ids_from if isinstance(section, FetchSoftwareHeritage) else section
        for name, section in sections.items()
    }
    askable = {name: section for name, section in asked_for.items() if isinstance(section, WholeFiles)}
    _side_by_side([partial(answer, name, section) for name, section in askable.items()], seconds=seconds)
    return {name: found.get(name, Told(problem=f"no answer within {seconds:g} s")) for name in askable}


def count_ids(sections: Mapping[str, Fetch], folder: Path) -> dict[str, Told]:
    """What tables of ids on this machine tell of the files that they ask for. folder: of the recipe. Where they cannot be read, nothing:
    whoever checks the files says so."""
    found: dict[str, Told] = {}
    for name, section in sections.items():
        if isinstance(section, FetchSoftwareHeritage) and section.ids is not None:
            with contextlib.suppress(GristmillError, OSError):
                paths = [*find_outside(folder, section.ids, where=name).files]
                files, size = told_of_tables(
                    paths, section.id_column, max_files=section.max_files, max_bytes=section.max_bytes
                )
                found[name] = Told(files=files, num_bytes=size, problem="its tables of ids do not tell")
    return found


def _first(told: Told) -> Told:
    """What is known before the tables of ids are here."""
    size = "" if told.num_bytes is None else f", {in_bytes(told.num_bytes)}"
    return Told(problem=told.problem or f"the ids are fetched first, {counted(told.files or 0, 'file')}{size}")


def _listed(section: FetchHub | FetchObjectStore, seconds: float) -> Told:
    if isinstance(section, FetchHub):
        listed = list_dataset(section.dataset, section.revision, section.files, timeout_seconds=seconds).files
    else:
        listed = list_store(Remote(section.address), section.files)
    chosen = first_files(listed, max_files=section.max_files, max_bytes=section.max_bytes)
    return Told(files=len(chosen), num_bytes=sum(one.num_bytes or 0 for one in chosen))


def _of_urls(section: FetchUrls, seconds: float) -> Told:
    if len(section.urls) > MAX_HEADS:
        return Told(files=len(section.urls), problem=f"{len(section.urls):,} addresses are too many to ask each")
    sizes: list[int] = []
    problems: list[str] = []

    def head(url: str) -> None:
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        try:
            with ask(url, headers, timeout_seconds=seconds, method="HEAD") as answer:
                length = answer.headers.get("content-length", "")
                if answer.status == 200 and length.isdecimal():
                    sizes.append(int(length))
                else:
                    problems.append(f"{url} answers {answer.status} and no length")
        except Exception as error:  # of the network, of TLS, of HTTP: all mean that the size is not known
            problems.append(f"{url}: {error or type(error).__name__}")

    _side_by_side([partial(head, one.url) for one in section.urls], seconds=seconds)
    if len(sizes) == len(section.urls):
        return Told(files=len(sizes), num_bytes=sum(sizes))
    return Told(files=len(section.urls), problem=problems[0] if problems else f"no answer within {seconds:g} s")


def _side_by_side(questions: Sequence[Callable[[], None]], *, seconds: float) -> None:
    """Asks all at once and waits so long; who has not answered by then is not waited for."""
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=question, daemon=True) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
