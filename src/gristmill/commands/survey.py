"""A survey of raw files: what each format's reader finds in them, counted in guarded children, so that no file can end it.

A survey reads up to READ_BYTES of each format. In files with columns the text is `messages`, or else the column that holds
most text. The main text of SAMPLE pages is extracted, as a run would; how much the others hold is told from these.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.commands.survey_job import SAMPLE, TOLD_PLACES, Head, Lost, Result, SurveyJob
from gristmill.data.guard import run_guarded
from gristmill.data.outside import visible_files, why_no_file
from gristmill.errors import DataError
from gristmill.formats.format import size_of
from gristmill.recipe.schema.formats import READERS, reader_of

READ_BYTES = 100_000_000
DEADLINE_SECONDS = 10.0
MAX_MEMORY_MB = 1024
OTHER = "other"


@dataclass(kw_only=True)
class Found:
    """What was found in the files of one format. heads: one per set of columns; lost: the first records without text of each reason."""

    files: list[Path]
    num_bytes: int = 0
    bytes_read: int = 0
    documents: int = 0
    known_text_bytes: int = 0
    pages: Counter[str] = field(default_factory=Counter)  # bytes: "seen" closely, their "text", "other" pages
    copies: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    lost: list[Lost] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    heads: list[Head] = field(default_factory=list)
    samples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """By how much the figures of what was read are to be multiplied."""
        return self.num_bytes / self.bytes_read if 0 < self.bytes_read < self.num_bytes else 1.0

    @property
    def text_bytes(self) -> float:
        """Of all documents that were read."""
        return self.known_text_bytes + self.pages["other"] * self.pages["text"] / max(1, self.pages["seen"])

    @property
    def is_estimate(self) -> bool:
        """Whether the text was not all looked at."""
        return self.scale > 1 or self.pages["other"] > 0


def files_by_format(target: Path) -> dict[str, list[Path]]:
    """The files below `target` (hidden ones left out), by the format of a recipe's reader that their names fit, or "other"."""
    if (why := why_no_file(target)) is not None:
        raise DataError(f"{target} is no file that could be read: {why}. Name a file or a folder.")
    paths = visible_files(target) if target.is_dir() else [target]
    if not paths:
        raise DataError(f"{target} holds no files.")
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[format_for(path)].append(path)
    return dict(sorted(groups.items()))


def format_for(path: Path) -> str:
    """The name of the format that fits the file's name, or OTHER."""
    return next((name for name, reader in READERS.items() if reader is reader_of(path.name)), OTHER)


def look(kind: str, files: Sequence[Path], limit: int, *, read_bytes: int = READ_BYTES) -> Found:
    """Reads the files of one format, up to `read_bytes`, and counts. limit: samples of text."""
    found = Found(files=list(files), num_bytes=sum(map(size_of, files)))
    if kind == OTHER:
        return found
    chosen: list[Path] = []
    for path in files:
        if found.bytes_read >= read_bytes:
            break
        chosen.append(path)
        found.bytes_read += size_of(path)
    results: list[Result] = _guarded(SurveyJob(kind, tuple(chosen), limit))
    digests: set[tuple[int, int]] = set()
    for result in results:
        if isinstance(result, Lost):
            found.unread[result.reason] += 1
            if result.place and sum(one.reason == result.reason for one in found.lost) < TOLD_PLACES:
                found.lost.append(result)
        elif isinstance(result, Head):
            if all(
                [column.name for column in head.columns] != [c.name for c in result.columns] for head in found.heads
            ):
                found.heads.append(result)
        else:
            found.documents += 1
            found.known_text_bytes += result.num_bytes or 0
            if result.page_bytes:
                found.pages["other" if result.num_bytes is None else "seen"] += result.page_bytes
                found.pages["text"] += result.num_bytes or 0
            found.copies += result.digest in digests
            digests.add(result.digest)
            if result.language is not None and found.languages.total() < SAMPLE:
                found.languages[result.language] += 1
            if result.sample is not None and len(found.samples) < limit:
                found.samples.append(result.sample)
    return found


def heads_of(kind: str, files: Sequence[Path]) -> dict[Path, Head]:
    """The columns of each file that could be looked at."""
    heads: list[Result] = _guarded(SurveyJob(kind, tuple(files), 0, heads_only=True))
    return {head.path: head for head in heads if isinstance(head, Head)}


def _guarded(job: SurveyJob) -> Any:
    with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        spool = Path(folder) / "spool"
        return run_guarded(job, spool=spool, deadline_seconds=DEADLINE_SECONDS, max_memory_mb=MAX_MEMORY_MB)
