"""Lists that a recipe names: files with one entry a line, of several kinds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gristmill.errors import DataError
from gristmill.graph.step import OutsideFiles
from gristmill.recipe.schema.curation import list_label
from gristmill.store.durable import file_sha256

OF_HOSTS = ("domains", "hosts")
FIRST_ENTRIES = 1000  # that are looked at before a run
_NO_HOST = re.compile(r"[\s/*|@]")  # of addresses, of files of hosts, of patterns


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The files of each kind of list with their SHA-256: all is judged by what the step began with."""

    files: tuple[tuple[str, tuple[tuple[Path, str], ...]], ...]

    @classmethod
    def of(cls, paths: Mapping[str, Iterable[Path]]) -> Lists | None:
        """paths: of the files of each kind."""
        files = ((kind, tuple((path, file_sha256(path)) for path in files)) for kind, files in paths.items())
        return cls(files=tuple(files)) if paths else None

    @classmethod
    def among(cls, files: Mapping[str, OutsideFiles], kinds: Iterable[str]) -> Lists | None:
        """The lists of these kinds among the files of a step."""
        return cls.of({kind: files[label].files for kind in kinds if (label := list_label(kind)) in files})

    def entries(self, kind: str) -> Iterator[str]:
        """The entries of all files of a kind. Raises DataError for a file that changed since the step began."""
        for path, sha256 in dict(self.files).get(kind, ()):
            if file_sha256(path) != sha256:
                raise DataError(
                    f"{path} changed while documents were judged by it.\n  Run again once it stops changing."
                )
            yield from read_list(path)


def read_list(path: Path) -> Iterator[str]:
    """The entries of a list; blank lines, such that begin with "#" and a mark of UTF-8 are none."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        yield from (entry for line in file if (entry := line.strip()) and not entry.startswith("#"))


def check_list(path: Path, *, kind: str) -> None:
    """Raises DataError for a list without entries, and for one of hosts or domains whose first entries are none: they would match nothing."""
    first = [*islice(read_list(path), FIRST_ENTRIES)]
    if not first:
        raise DataError(f"{path} has no entries; expected one a line.")
    if kind in OF_HOSTS and (other := next(filter(_NO_HOST.search, first), None)) is not None:
        raise DataError(
            f"{path} has the entry {other!r:.80}, which is no host, so no document would match it; expected lines such as example.org."
        )
