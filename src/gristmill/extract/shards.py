"""Cuts the files of a source into shards of work: a fixed function of names and sizes, never of the machine.

A shard is a list of spans. Small files share a shard; a large file whose format can be entered in the middle (WARC,
plain JSONL, Parquet) is cut into several.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gristmill.data.document import open_parquet
from gristmill.graph.step import OutsideFiles

Format = Literal["warc", "html", "jsonl", "parquet", "text", "code"]

# Bytes of file per shard, least and most: a source is cut into about PARALLEL_SHARDS shards within these bounds. Work on
# the largest takes about a minute, which is what a crash of the whole process can cost.
SHARD_BYTES: dict[Format, tuple[int, int]] = {
    "warc": (500_000, 8_000_000),
    "html": (2_000_000, 32_000_000),
    "jsonl": (8_000_000, 64_000_000),
    "parquet": (8_000_000, 64_000_000),
    "text": (8_000_000, 64_000_000),
    "code": (8_000_000, 64_000_000),
}
PARALLEL_SHARDS = 8
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "warc": (".warc", ".warc.gz", ".wet", ".wet.gz"),
    "html": (".html", ".htm", ".xhtml"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
    "parquet": (".parquet",),
    "text": (".txt", ".txt.gz", ".md", ".md.gz"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A part of a file: bytes [start, end) for WARC and JSONL, row groups for Parquet, the whole file for end None."""

    path: Path
    name: str
    start: int = 0
    end: int | None = None
    size: int


def find_files(outside: OutsideFiles, format: Format) -> dict[Path, str]:
    """The files to read → name: those the recipe names, and in folders those with a suffix of the format. A tree of code is one."""
    if format == "code":
        return dict(outside.paths)
    return {
        file: name
        for file, name in outside.files.items()
        if file in outside.paths or file.name.lower().endswith(SUFFIXES[format])
    }


def other_files(outside: OutsideFiles, format: Format) -> list[Path]:
    """The files of folders that nobody reads, because their suffix is none of the format's."""
    return [] if format == "code" else [*outside.files.keys() - find_files(outside, format).keys()]


def plan_shards(files: Mapping[Path, str], format: Format) -> list[tuple[Span, ...]]:
    """Shards within SHARD_BYTES, in the order of `files` (path → name)."""
    least, most = SHARD_BYTES[format]
    limit = min(max(sum(map(_size, files)) // PARALLEL_SHARDS, least), most)
    shards: list[tuple[Span, ...]] = []
    current: list[Span] = []
    size = 0
    for path, name in files.items():
        spans = _spans(path, format, name, limit)
        if current and (len(spans) > 1 or size + spans[0].size > limit):
            shards.append(tuple(current))
            current, size = [], 0
        if len(spans) > 1:
            shards += [(span,) for span in spans]
        else:
            current += spans
            size += spans[0].size
    if current:
        shards.append(tuple(current))
    return shards


def _spans(path: Path, format: Format, name: str, limit: int) -> list[Span]:
    size = _size(path)
    if size <= limit or format in ("html", "text", "code") or (format == "jsonl" and path.suffix == ".gz"):
        return [Span(path=path, name=name, size=size)]
    if format == "parquet":
        with open_parquet(path) as file:
            units = file.num_row_groups
    else:
        units = size
    num_spans = min(units, -(-size // limit))
    cuts = [units * number // num_spans for number in range(num_spans + 1)] if num_spans else [0, 0]
    return [
        Span(path=path, name=name, start=start, end=end, size=size // max(1, num_spans))
        for start, end in itertools.pairwise(cuts)
    ]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
