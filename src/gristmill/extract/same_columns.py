"""Files of one source that disagree about their columns: a change of schema in the middle of a data set, seen before any of it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gristmill.errors import DataError
from gristmill.formats.format import format_of
from gristmill.recipe.schema.formats import ReadFiles

LISTED = 5


def check_same_columns(source: str, read: ReadFiles, files: Mapping[Path, str], *, max_failed: float) -> None:
    """Raises DataError where some files have the columns that the recipe names and others do not, so that all their rows would be
    lost. files: path → name. max_failed: at 1 nothing is refused; such a file is then a failed record."""
    if max_failed >= 1:
        return
    reader = format_of(read)
    found = [(name, words) for path, name in files.items() if (words := reader.misfit(path, read))]
    if not 0 < len(found) < len(files):
        return
    listed = "\n".join(f"  {name}: {words}" for name, words in found[:LISTED])
    more = f"\n  and {len(found) - LISTED:,} more" if len(found) > LISTED else ""
    raise DataError(
        f"source {source!r}: {len(found):,} of {len(files):,} files do not have the columns of the others.\n{listed}{more}\n"
        f"  Name in sources.{source}.read.paths the files that fit, and read the others in a source of their own; with max_failed: 1.0 "
        "their rows are lost and counted."
    )
