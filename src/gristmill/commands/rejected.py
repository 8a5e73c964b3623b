"""`gristmill inspect RUN --rejected` by a condition in SQL, and as lines of JSON: the rejected documents of extract and select.

DuckDB (pip install "gristmill[sql]") reads the columns that the condition names. Of the condition it takes one expression, not a
statement, and it may open no file: it sees only the table.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from rich.console import Console
from rich.text import Text

from gristmill.data.document import open_parquet
from gristmill.data.ledger import REJECTED_SCHEMA
from gristmill.display import plain_table, print_whole
from gristmill.errors import MissingExtra, RecipeError
from gristmill.units import counted, megabytes

RESERVED = ("limit",)  # words of SQL among the columns
EXCERPT_WIDTH = 60


@dataclass(frozen=True, kw_only=True)
class Count:
    """Rejected documents of one step and source for one reason; bytes of their records."""

    step: str
    source: str
    reason: str
    documents: int
    bytes: int


class Rejected:
    """The rejected documents of some artefacts that hold to a condition; a context manager."""

    def __init__(self, folders: Iterable[Path], where: str, *, source: str | None, reason: str | None) -> None:
        """Raises MissingExtra without DuckDB, RecipeError for a condition that is none, DataError for a damaged file."""
        if importlib.util.find_spec("duckdb") is None:
            raise MissingExtra('`--where` needs DuckDB: pip install "gristmill[sql]"')
        import duckdb

        self.where = where
        paths = [path for folder in folders for path in rejected_files(folder)]
        for path in paths:
            open_parquet(path).close()
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "enable_external_access": False,
                "python_enable_replacements": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "lock_configuration": True,
            },
        )
        table = ds.dataset([str(path) for path in paths], schema=REJECTED_SCHEMA, format="parquet")
        narrowed = {"source": source, "reason": reason}
        for column, value in narrowed.items():
            if value is not None:
                table = table.filter(ds.field(column) == value)
        with self._told():
            self._rows = self._connection.from_arrow(table).filter(where)

    def __enter__(self) -> Rejected:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    def counts(self) -> list[Count]:
        """By step, source and reason, the most documents first."""
        with self._told():
            found = self._rows.aggregate(
                "step, source, reason, count(*) AS documents, sum(bytes_in)::BIGINT AS bytes"
            ).fetchall()
        counts = [
            Count(step=step, source=source, reason=reason, documents=documents, bytes=size)
            for step, source, reason, documents, size in found
        ]
        return sorted(counts, key=lambda count: (-count.documents, count.step, count.source, count.reason))

    def rows(self, limit: int | None) -> Iterator[dict[str, Any]]:
        """Rows of REJECTED_SCHEMA in the order of their files."""
        with self._told():
            chosen = self._rows if limit is None else self._rows.limit(limit)
            for batch in chosen.to_arrow_reader(1024):
                yield from batch.to_pylist()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What DuckDB says of the condition in one sentence, with the columns there are."""
        import duckdb

        try:
            yield
        except (duckdb.Error, pa.ArrowException) as error:
            said = re.split(r"\n|!$", str(error).strip())[0].rstrip(" .!")
            columns = ", ".join(f'"{name}"' if name in RESERVED else name for name in REJECTED_SCHEMA.names)
            raise RecipeError(
                f"--where {self.where!r}: {said}.\n  Expected one condition, as after WHERE; the columns are {columns}."
            ) from None


def rejected_files(folder: Path) -> list[Path]:
    """The files of rejected documents of an artefact, those of one source after another."""
    return sorted([*folder.glob("rejected-*.parquet"), *folder.glob("*/rejected-*.parquet")])


def print_matches(rejected: Rejected, limit: int, console: Console) -> None:
    """How many there are of each reason, and the first as a table."""
    counts = rejected.counts()
    total = sum(count.documents for count in counts)
    size = sum(count.bytes for count in counts)
    console.print(f"{counted(total, 'document')}, {megabytes(size)} MB", highlight=False)
    if not counts:
        return
    table = plain_table("step", "source", "reason", "documents >", "MB >")
    for count in counts:
        table.add_row(count.step, count.source, count.reason, f"{count.documents:,}", megabytes(count.bytes))
    print_whole(table, console)
    console.print()
    table = plain_table("id", "source", "reason", "value >", "limit >", "bytes in >", "excerpt")
    for row in rejected.rows(limit):
        excerpt = " ".join(row["excerpt"].split())
        table.add_row(
            *(Text(row[column]) for column in ("id", "source", "reason")),
            *("" if row[column] is None else f"{row[column]:.4g}" for column in ("value", "limit")),
            f"{row['bytes_in']:,}",
            Text(excerpt if len(excerpt) <= EXCERPT_WIDTH else f"{excerpt[: EXCERPT_WIDTH - 1]}…"),
        )
    print_whole(table, console)


def print_lines(rows: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Each row as JSON on a line of its own."""
    for row in rows:
        console.out(json.dumps(row), highlight=False)
