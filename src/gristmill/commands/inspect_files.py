"""What a file or folder of raw text holds: formats, records, columns, languages, copies, tokens by estimate, samples.

Files are read as the sources of a recipe would read them, up to READ_BYTES of each format; beyond that the figures are
scaled up and marked with ≈.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gristmill.commands.survey import OTHER, Found, Head, files_by_format, look
from gristmill.extract.not_read import not_read_in
from gristmill.recipe.schema.formats import READERS
from gristmill.units import megabytes

BYTES_PER_TOKEN = 4
MAX_COLUMN_TABLES = 5


def inspect_files(target: Path, *, limit: int, console: Console) -> None:
    """Prints what is at `target`. Raises DataError when there is no file."""
    formats = {kind: look(kind, files, limit) for kind, files in files_by_format(target).items() if kind != OTHER}
    console.print(_overview(formats))
    for kind, found in formats.items():
        for head in islice(found.heads, MAX_COLUMN_TABLES):
            console.print(_columns(head))
        if found.unread:
            listed = ", ".join(f"{reason} {count:,}" for reason, count in found.unread.most_common())
            console.print(f"{kind}: records without text: {listed}", markup=False)
        if kind != "code" and (shares := found.mixed_languages):
            listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            console.print(
                f"{kind}: in several languages: {listed}; `language: {{keep: [{next(iter(shares))}]}}` of a source keeps one",
                markup=False,
            )
    for one in not_read_in(target):
        console.print(f"not read: {one}", markup=False, highlight=False)
    for kind, found in formats.items():
        for name, excerpt in found.samples:
            console.print(Text.assemble((f"\n{kind}  {name}\n", "bold"), excerpt))


def _overview(formats: dict[str, Found]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "format",
        "files",
        "MB on disk",
        "documents",
        "MB of text",
        "tokens, by estimate",
        "exact copies",
        "languages",
    ):
        table.add_column(heading, justify="left" if heading in ("format", "languages") else "right")
    for kind, found in formats.items():
        about = "≈ " if found.scale > 1 else ""
        size = found.text_bytes * found.scale
        note = " with markup" if READERS[kind].holds_html else ""
        total = max(1, sum(found.languages.values()))
        languages = ", ".join(f"{name} {count / total:.0%}" for name, count in found.languages.most_common(4))
        table.add_row(
            kind,
            f"{len(found.files):,}",
            megabytes(found.num_bytes),
            f"{about}{found.documents * found.scale:,.0f}",
            f"{about}{megabytes(size)}{note}",
            f"{about}{size / BYTES_PER_TOKEN:,.0f}{note}",
            f"{found.copies:,}",
            languages,
        )
    return table


def _columns(head: Head) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        title=escape(f"columns of {head.file}{head.told and f', {head.told}'}"),
        title_justify="left",
    )
    for heading in ("column", "type", "present", "example"):
        table.add_column(heading, justify="right" if heading == "present" else "left")
    for column in head.columns:
        mark = f"{column.name} (text)" if column.is_text else column.name
        table.add_row(Text(mark), column.types, f"{column.present:.0%}", Text(column.example))
    return table
