"""What a step leaves, typed: named outputs in its artefact's folder, each *content* or *notes*.

    class Extracted(Outputs):
        documents = Files("documents-*.parquet")
        rejected = Files("rejected-*.parquet", notes=True)

Content is what later steps may build on; notes are times, logs and reports. A step that reads an artefact names the outputs
it reads, and gets an instance through which nothing else can be reached. So what its identity covers is what it can see.
Output paths may hold "{source}": such outputs exist once per source, and a reader is given one source's.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, overload

from gristmill.graph.record import Record
from gristmill.store.artifact import RECORD
from gristmill.store.durable import read_json

Place = TypeVar("Place", Path, list[Path])
EVERY_SOURCE = "*"


class Output(ABC, Generic[Place]):
    """One named output. covers: patterns of the files that belong to it; the path itself where none are given."""

    def __init__(self, path: str, *, covers: tuple[str, ...] = (), notes: bool = False) -> None:
        self.path = path
        self.covers = covers or (path,)
        self.is_notes = notes
        self.name = ""

    def __set_name__(self, owner: type[Outputs], name: str) -> None:
        self.name = name
        owner.declared = {**owner.declared, name: self}

    @overload
    def __get__(self, instance: None, owner: type[Outputs]) -> Output[Place]: ...

    @overload
    def __get__(self, instance: Outputs, owner: type[Outputs]) -> Place: ...

    def __get__(self, instance: Outputs | None, owner: type[Outputs]) -> Output[Place] | Place:
        if instance is None:
            return self
        instance.check(self.name)
        return self.locate(instance.folder, self.path.format(source=instance.source))

    @abstractmethod
    def locate(self, folder: Path, path: str) -> Place:
        """The output in an artefact's folder, its path's "{source}" filled in."""

    def matches(self, name: str, source: str) -> bool:
        """Whether the file with this name, relative to the artefact, belongs to the output."""
        return any(fnmatchcase(name, cover.format(source=source)) for cover in self.covers)


class File(Output[Path]):
    """An output that is reached by one path: a file, a folder, or the stem of several files."""

    def locate(self, folder: Path, path: str) -> Path:
        return folder / path


class Files(Output[list[Path]]):
    """An output of several files, by a pattern; sorted."""

    def locate(self, folder: Path, path: str) -> list[Path]:
        return sorted(folder.glob(path))


class Outputs:
    """A committed artefact, read through the names that its step declares.

    reads: the names that may be used; all for None. source: whose outputs, where there is one set per source.
    content: hash of the content of `reads`; "" where nobody asked.
    """

    declared: ClassVar[Mapping[str, Output[Any]]] = {}
    checked_as_read: ClassVar[
        tuple[str, ...]
    ] = ()  # files that whoever reads them checks, part by part, by hashes of their own

    def __init__(
        self, folder: Path, *, reads: tuple[str, ...] | None = None, source: str = EVERY_SOURCE, content: str = ""
    ) -> None:
        self.folder = folder
        self.reads = tuple(self.declared) if reads is None else reads
        self.source = source
        self.content = content

    @classmethod
    def checks_itself(cls, name: str) -> bool:
        """Whether a file is checked as it is read, so that it need not be read as a whole before."""
        return any(fnmatchcase(name, pattern) for pattern in cls.checked_as_read)

    def check(self, name: str) -> None:
        """Raises AssertionError for an output that the step did not say it reads: its identity would miss it."""
        assert name in self.reads, f"{type(self).__name__}.{name} is read, but the step declares {self.reads}"

    @property
    def record_path(self) -> Path:
        return self.folder / RECORD

    @cached_property
    def record(self) -> Record:
        """How the artefact came to be: notes, for steps that report."""
        return Record.from_json(read_json(self.record_path), where=self.record_path)


def content_hash(
    outputs: type[Outputs], files: Mapping[str, str], *, reads: tuple[str, ...], source: str = EVERY_SOURCE
) -> str:
    """One hash over the files (name → SHA-256) that belong to the named outputs. Notes add nothing to it."""
    chosen = [outputs.declared[name] for name in reads if not outputs.declared[name].is_notes]
    mine = {name: sha256 for name, sha256 in files.items() if any(output.matches(name, source) for output in chosen)}
    return hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()[:32]


def content_files(outputs: type[Outputs], files: Mapping[str, str]) -> dict[str, str]:
    """Those of an artefact's files that are content."""
    chosen = [output for output in outputs.declared.values() if not output.is_notes]
    return {name: sha for name, sha in files.items() if any(output.matches(name, EVERY_SOURCE) for output in chosen)}


def hashes_in(record: Mapping[str, Any]) -> dict[str, str]:
    """File → SHA-256 of the artefact that a record is of."""
    return {name: entry["sha256"] for name, entry in record["manifest"].items()}
