"""What was taken of a file beside what it holds, which its format measures apart from its reader: no byte may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.data.ledger import Ledger
from gristmill.data.record import Record, Skip
from gristmill.extract.curate import Fate
from gristmill.formats.format import Content

NOTHING = Content(num_bytes=0)


@dataclass(kw_only=True)
class Taken:
    """Bytes and records of a span or file that have a fate, and the documents that these became, beside its content; None where it
    could not be measured."""

    num_bytes: int = 0
    num_records: int = 0
    num_documents: int = 0
    content: Content | None = NOTHING

    def matches(self) -> bool:
        """Whether what was taken is what there is."""
        if self.content is None:
            return True
        records = self.content.num_records
        return self.num_bytes == self.content.num_bytes and records in (None, self.num_records)

    def add(self, other: Taken) -> None:
        """Adds another span of the same file."""
        self.num_bytes += other.num_bytes
        self.num_records += other.num_records
        self.num_documents += other.num_documents
        if self.content is None or other.content is None:
            self.content = None
        else:
            mine, theirs = self.content.num_records, other.content.num_records
            self.content = Content(
                num_bytes=self.content.num_bytes + other.content.num_bytes,
                num_records=None if mine is None or theirs is None else mine + theirs,
            )

    def to_json(self) -> list[Any]:
        content = None if self.content is None else [self.content.num_bytes, self.content.num_records]
        return [self.num_bytes, self.num_records, self.num_documents, content]

    @classmethod
    def from_json(cls, value: list[Any]) -> Taken:
        num_bytes, num_records, num_documents, content = value
        measured = None if content is None else Content(num_bytes=content[0], num_records=content[1])
        return cls(num_bytes=num_bytes, num_records=num_records, num_documents=num_documents, content=measured)


def take(taken: Taken, found: Record | tuple[Fate, ...]) -> None:
    """Adds a skip, or a record or the documents that it became."""
    if isinstance(found, Skip):
        taken.num_bytes += found.num_bytes
        return
    documents = found if isinstance(found, tuple) else (found,)
    taken.num_bytes += sum(document.bytes_in for document in documents)
    taken.num_records += 1
    taken.num_documents += len(documents)


def enter(ledger: Ledger, source: str, name: str, taken: Taken) -> None:
    """Enters a file's content as what came in.

    Raises AssertionError where what was read of it is not what lies in it: always a bug of ours.
    """
    ledger.saw(
        source, taken.num_bytes if taken.content is None else taken.content.num_bytes, documents=taken.num_documents
    )
    if not taken.matches():
        content = taken.content
        assert content is not None
        raise AssertionError(
            f"{source}: of {name} {taken.num_bytes:,} bytes in {taken.num_records:,} records have a fate; measured apart "
            f"from the reader it holds {content.num_bytes:,} bytes"
            + ("" if content.num_records is None else f" in {content.num_records:,} records")
        )


def join_shared(records: list[Mapping[str, Any]]) -> dict[str, Taken]:
    """Name → what all shards together have of the files that they share."""
    files: dict[str, Taken] = {}
    for record in records:
        for name, value in record["shared"].items():
            one = Taken.from_json(value)
            if name in files:
                files[name].add(one)
            else:
                files[name] = one
    return files
