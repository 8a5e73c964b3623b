"""Cuts the files of a source into shards of work: a fixed function of names and sizes, never of the machine.

A shard is a list of spans. Small files share a shard, a large file or tree that can be entered in the middle is cut into
several. A file counts LEAST_FILE_BYTES at least, so that a million empty files are many shards, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gristmill.data.outside import without_inner_links
from gristmill.formats.format import LEAST_FILE_BYTES, Span, format_of, size_of
from gristmill.graph.step import OutsideFiles
from gristmill.recipe.schema.formats import ReadCode, ReadFiles

PARALLEL_SHARDS = 8


def find_files(outside: OutsideFiles, read: ReadFiles) -> dict[Path, str]:
    """The files to read → name: those the recipe names, and in folders those with a suffix of the format; a link to one of them is not
    read again. A tree of code is one."""
    if isinstance(read, ReadCode):
        return dict(outside.paths)
    fits = [file for file in outside.files if file in outside.paths or read.suffix_in(file.name) is not None]
    return {file: outside.files[file] for file in without_inner_links(fits)}


def plan_shards(files: Mapping[Path, str], read: ReadFiles) -> list[tuple[Span, ...]]:
    """Shards within the format's bounds, in the order of `files` (path → name)."""
    format = format_of(read)
    least, most = format.shard_bytes
    limit = min(max(sum(max(size_of(path), LEAST_FILE_BYTES) for path in files) // PARALLEL_SHARDS, least), most)
    shards: list[tuple[Span, ...]] = []
    current: list[Span] = []
    size = 0
    for path, name in files.items():
        spans = format.spans(path, name=name, limit=limit)
        spans_size = max(spans[0].size, LEAST_FILE_BYTES)
        if current and (len(spans) > 1 or size + spans_size > limit):
            shards.append(tuple(current))
            current, size = [], 0
        if len(spans) > 1:
            shards += [(span,) for span in spans]
        else:
            current += spans
            size += spans_size
    if current:
        shards.append(tuple(current))
    return shards
