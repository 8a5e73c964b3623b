"""A survey of raw files: what each format's reader finds in them, counted in guarded children, so that no file can end it.

A survey reads up to READ_BYTES of each format, of files drawn by chance. In files with columns the text is `messages`, or else the
column that holds most text. Documents are looked at closely that are drawn by chance over all of what is read: their languages are
told, and the main text of pages is extracted, as a run would; how much the other pages hold is told from these.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from gristmill.commands.survey_job import TOLD_PLACES, Close, Head, Lost, Result, SurveyJob, sample_of
from gristmill.data.by_size import SampleBySize
from gristmill.data.cursor import State
from gristmill.data.guard import run_guarded
from gristmill.data.outside import visible_files, why_no_file, without_inner_links
from gristmill.draft.interval import Estimate
from gristmill.errors import DataError
from gristmill.extract.language import Languages
from gristmill.formats.format import Span, bytes_behind, size_of
from gristmill.recipe.schema.formats import READERS, reader_of
from gristmill.statistics import ratio_of_sums

READ_BYTES = 100_000_000
DEADLINE_SECONDS = 10.0
MAX_MEMORY_MB = 1024
OTHER = "other"
ONE_FILE_ERROR = 0.5  # relative: one file tells nothing of the others


@dataclass(kw_only=True)
class Found:
    """What was found in the files of one format. heads: one per set of columns; lost: the first records without text of each reason;
    plain_bytes: text that is in no page; pages_left: that were not looked at; drawn: documents that were, closely; by_file: (bytes of
    text and of pages, bytes on disk) of each file that was read."""

    files: list[Path]
    num_bytes: int = 0
    bytes_read: int = 0
    documents: int = 0
    plain_bytes: int = 0
    page_bytes: int = 0
    page_text_bytes: int = 0
    pages_left: int = 0
    copies: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    lost: list[Lost] = field(default_factory=list)
    drawn: SampleBySize[Close] = field(default_factory=lambda: SampleBySize(0))
    by_file: list[tuple[float, float]] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    samples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """By how much the figures of what was read are to be multiplied."""
        return self.num_bytes / self.bytes_read if 0 < self.bytes_read < self.num_bytes else 1.0

    @property
    def languages(self) -> Languages:
        """By the documents that were looked at closely."""
        told = [
            (close.language, weight * close.text_bytes / size)
            for weight, size, close in self.drawn.weighted()
            if close.text_bytes
        ]
        is_whole = self.drawn.is_whole and self.scale == 1
        return Languages.of(told, of_documents=len(told) if is_whole else round(self.documents * self.scale))

    @property
    def text_bytes(self) -> Estimate:
        """Of all documents: what was counted; what pages hold, by those that were drawn where not all were looked at; and what files
        that were not read hold, by those that were."""
        pages, error = self._text_of_pages()
        value, variance = self.scale * (self.plain_bytes + pages), (self.scale * error) ** 2
        if self.scale > 1:
            variance += (self._error_of_files() * value) ** 2
        half = math.sqrt(variance)
        return Estimate(value=value, low=max(0.0, value - half), high=value + half)

    def _text_of_pages(self) -> tuple[float, float]:
        """Bytes of text in pages, and half of its interval. Those that were looked at and did not stay in the sample came early."""
        if not self.pages_left:
            return self.page_text_bytes, 0.0
        drawn = [(weight, size, close) for weight, size, close in self.drawn.weighted() if close.is_page]
        if not drawn:  # next to other documents they are small
            return self.page_text_bytes, self.page_bytes
        share = ratio_of_sums([w * close.text_bytes / size for w, size, close in drawn], [w for w, _, _ in drawn])
        return self.page_bytes * share.value, self.page_bytes * min(1.0, share.high - share.value)

    def _error_of_files(self) -> float:
        """Half of the interval of text per byte on disk, relative: files that were read are a random sample."""
        if len(self.by_file) < 2 or not sum(text for text, _ in self.by_file):
            return ONE_FILE_ERROR
        share = ratio_of_sums(*zip(*self.by_file))
        half = (share.high - share.value) / share.value * math.sqrt(1 - len(self.by_file) / len(self.files))
        return half if math.isfinite(half) else ONE_FILE_ERROR


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
    return {kind: without_inner_links(files) for kind, files in sorted(groups.items())}


def format_for(path: Path) -> str:
    """The name of the format that fits the file's name, or OTHER."""
    return next((name for name, reader in READERS.items() if reader is reader_of(path.name)), OTHER)


def look(
    kind: str,
    files: Sequence[Path],
    limit: int,
    *,
    read_bytes: int = READ_BYTES,
    progress: Callable[[float], None] = lambda share: None,
) -> Found:
    """Reads the files of one format, in random order up to `read_bytes` where they are more, and counts. limit: samples of text.
    progress: gets the share of the bytes that are behind it, twice a second."""
    found = Found(files=list(files), num_bytes=sum(map(size_of, files)))
    if kind == OTHER:
        return found
    chosen = _chosen(files, read_bytes)
    found.bytes_read = sum(map(size_of, chosen))
    found.drawn = sample_of(kind)
    digests: set[tuple[int, int]] = set()
    text_of = Counter[int]()
    spans = [Span(path=path, name=path.name, size=size_of(path)) for path in chosen]

    def at(state: State) -> None:
        progress(bytes_behind(spans, state.part, state.entry) / max(1, found.bytes_read))

    results: list[Result] = _guarded(SurveyJob(kind, chosen, limit), at)
    for result in results:
        if isinstance(result, Lost):
            found.unread[result.reason] += 1
            found.page_bytes += 0 if result.close is None else result.close.size
            if result.place and sum(one.reason == result.reason for one in found.lost) < TOLD_PLACES:
                found.lost.append(result)
        elif isinstance(result, Head):
            if all(
                [column.name for column in head.columns] != [c.name for c in result.columns] for head in found.heads
            ):
                found.heads.append(result)
        else:
            found.documents += 1
            found.plain_bytes += 0 if result.page_bytes else result.text_bytes or 0
            found.page_bytes += result.page_bytes
            found.page_text_bytes += result.text_bytes or 0 if result.page_bytes else 0
            found.pages_left += result.text_bytes is None and result.page_bytes > 0
            text_of[result.file] += result.page_bytes or result.text_bytes or 0
            found.copies += result.digest in digests
            digests.add(result.digest)
            if result.sample is not None and len(found.samples) < limit:
                found.samples.append(result.sample)
        if not isinstance(result, Head) and result.close is not None:
            found.drawn.add(result.close.key, result.close.size, result.close)
    found.by_file = [(text_of[number], size_of(path)) for number, path in enumerate(chosen)]
    return found


def _chosen(files: Sequence[Path], read_bytes: int) -> tuple[Path, ...]:
    """All files, in their order, or a random sample of about so many bytes; which it is does not depend on where they lie."""
    left, chosen = read_bytes, []
    above = os.path.commonpath([path.parent for path in files]) if files else ""
    for path in sorted(files, key=lambda path: xxhash.xxh3_64_intdigest(os.fsencode(os.path.relpath(path, above)))):
        if left <= 0:
            break
        chosen.append(path)
        left -= size_of(path)
    among = {*chosen}
    return tuple(path for path in files if path in among)


def heads_of(kind: str, files: Sequence[Path]) -> dict[Path, Head]:
    """The columns of each file that could be looked at."""
    heads: list[Result] = _guarded(SurveyJob(kind, tuple(files), 0, heads_only=True))
    return {head.path: head for head in heads if isinstance(head, Head)}


def _guarded(job: SurveyJob, progress: Callable[[State], None] = lambda state: None) -> Any:
    with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        spool = Path(folder) / "spool"
        return run_guarded(
            job, spool=spool, deadline_seconds=DEADLINE_SECONDS, max_memory_mb=MAX_MEMORY_MB, progress=progress
        )
