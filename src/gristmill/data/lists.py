"""Lists that a recipe names: files with one entry a line, of several kinds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gristmill.errors import DataError
from gristmill.graph.step import OutsideFiles
from gristmill.recipe.schema.curation import list_label
from gristmill.store.durable import file_sha256


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
    """The entries of a list; blank lines and such that begin with "#" are none."""
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        yield from (entry for line in file if (entry := line.strip()) and not entry.startswith("#"))


def check_list(path: Path) -> None:
    """Raises DataError for a list without entries."""
    if next(read_list(path), None) is None:
        raise DataError(f"{path} has no entries; expected one a line.")
