"""What a file or folder of raw text holds: formats, records, columns, languages, copies, tokens by estimate, samples.

Files are read as the sources of a recipe would read them, up to READ_BYTES of each format; ≈ marks estimates. Tokens are those of a
vocabulary of the size that `init` would choose. The table comes last, for it is what one looks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gristmill.amounts import present_files
from gristmill.commands.survey import OTHER, READ_BYTES, Found, files_by_format, look
from gristmill.commands.survey_job import EMPTY, NO_TEXT, Head
from gristmill.display import doing, print_whole
from gristmill.draft.ahead import Pace
from gristmill.draft.interval import Estimate
from gristmill.draft.size import SHAPES, Wish, shape_for
from gristmill.extract.not_read import NotRead, not_read_beside, not_read_in
from gristmill.formats.format import size_of
from gristmill.planning.estimate import BYTES_PER_TOKEN_ERROR, bytes_per_token
from gristmill.planning.steps import MB, READ, READ_OTHER
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.formats import READERS
from gristmill.units import counted, megabytes

MAX_COLUMN_TABLES = 5
SHOWN_LANGUAGES = 4
LEAST_SHARE = 0.005  # what is less rounds to 0 %


def inspect_files(target: Path, *, samples: int, console: Console) -> None:
    """Prints what is at `target`, with some samples of each format. Raises DataError when there is no file."""
    groups = {kind: (kind, files) for kind, files in files_by_format(target).items() if kind != OTHER}
    _show(groups, not_read_in(target), samples, console)


def inspect_sources(loaded: LoadedRecipe, *, samples: int, console: Console) -> None:
    """Prints what the sources of a recipe read, and all that lies beside it and is not read."""
    sources, present = loaded.recipe.sources, present_files(loaded)
    groups = {name: (sources[name].read.format, files) for name, files in present.items() if files}
    beside = not_read_beside(
        loaded.folder, [sources[name].read for name in groups], has_chat=loaded.recipe.chat is not None
    )
    _show(groups, beside, samples, console)


def _show(
    groups: Mapping[str, tuple[str, Sequence[Path]]], not_read: Sequence[NotRead], samples: int, console: Console
) -> None:
    """groups: name → (format, files)."""
    found = {}
    work = {name: _work(kind, files) for name, (kind, files) in groups.items()}
    with doing(console, "looking") as say:
        pace, done = Pace(sum(work.values())), 0.0

        def tell(share: float) -> None:
            at = done + share * work[name]
            of_all = at / max(1e-9, sum(work.values()))
            say(f"looking, {of_all:.0%}: {what}", pace.seconds(sum(work.values()) - at, done=at))

        for number, (name, (kind, files)) in enumerate(groups.items(), start=1):
            what = f"{name}, {number} of {len(groups)}, {counted(len(files), 'file')}"
            tell(0.0)
            found[name] = look(kind, files, samples, progress=tell)
            done += work[name]
    for name, one in found.items():
        for sample, excerpt in one.samples:
            console.print(Text.assemble((f"{name}  {sample}\n", "bold"), excerpt, "\n"))
    for one in found.values():
        for head in islice(one.heads, MAX_COLUMN_TABLES):
            if head.columns:
                console.print(_columns(head))
    if found:
        print_totals(found, console)
        console.print(
            f"≈ marks estimates, with 95 % intervals. {_of_which_tokens(found)}", markup=False, highlight=False
        )
    for name, one in found.items():
        for line in _notes(one, is_code=groups[name][0] == "code"):
            console.print(f"{name}: {line}", markup=False, highlight=False)
    for other in not_read:
        console.print(f"not read: {other}", markup=False, highlight=False)


def _work(kind: str, files: Sequence[Path]) -> float:
    """Seconds of looking at the files of a format, by the ratios of reading."""
    rate = READ["trafilatura"] if READERS[kind].holds_html else READ.get(kind, READ_OTHER)
    return min(READ_BYTES, sum(map(size_of, files))) / MB * rate


def _notes(found: Found, *, is_code: bool) -> Iterator[str]:
    """What is not as it might be."""
    if found.unread:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in found.unread.most_common())
        yield f"records without text: {listed}"
        yield from map(str, found.lost)
    yield from (f"{head.path.name}: {head.why}" for head in found.heads if head.why in (NO_TEXT, EMPTY))
    if not is_code and (words := found.languages.choice()):
        yield words


def _vocab_size(formats: Mapping[str, Found]) -> int:
    """That init chooses for so much text, where no time is asked for."""
    return shape_for(sum(one.text_bytes.value for one in formats.values()), Wish()).vocab_size


def _of_which_tokens(formats: Mapping[str, Found]) -> str:
    vocab_size, smallest = _vocab_size(formats), SHAPES[0].vocab_size
    words = f"Tokens are those of a vocabulary of {vocab_size:,}, which init takes for so much text"
    if vocab_size == smallest:
        return f"{words}."
    more = bytes_per_token(vocab_size) / bytes_per_token(smallest)
    return f"{words}; with --minutes or --size it may take a smaller one, and one of {smallest:,} makes {more:.1f} times as many."


def print_totals(formats: Mapping[str, Found], console: Console) -> None:
    """A row for each format."""
    print_whole(_overview(formats), console)


def _overview(formats: Mapping[str, Found]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "",
        "files",
        "MB\non disk",
        "documents",
        "MB\nof text",
        "tokens,\nby estimate",
        "exact\ncopies",
        "languages",
    ):
        table.add_column(heading, justify="left" if heading in ("", "languages") else "right", no_wrap=True)
    texts, vocab_size = {name: found.text_bytes for name, found in formats.items()}, _vocab_size(formats)
    for name, found in formats.items():
        text = texts[name]
        table.add_row(
            Text(name),
            f"{len(found.files):,}",
            megabytes(found.num_bytes),
            f"{'≈ ' if found.scale > 1 else ''}{found.documents * found.scale:,.0f}",
            f"{'' if text.is_counted else '≈ '}{megabytes(text.value)}",
            str(_tokens(text, vocab_size)),
            f"{found.copies:,}",
            "\n".join(
                f"{language} {share:.0%}"
                for language, share in [*found.languages.shares.items()][:SHOWN_LANGUAGES]
                if share >= LEAST_SHARE
            ),
        )
    return table


def _tokens(text: Estimate, vocab_size: int) -> Estimate:
    """Of a tokenizer with so large a vocabulary that nobody has trained yet, in so many bytes."""
    value = text.value / bytes_per_token(vocab_size)
    half = value * math.hypot(BYTES_PER_TOKEN_ERROR, (text.high - text.value) / max(1.0, text.value))
    return Estimate(value=value, low=max(0.0, value - half), high=value + half)


def _columns(head: Head) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        title=escape(f"columns of {head.path.name}{head.told and f', {head.told}'}"),
        title_justify="left",
    )
    for heading in ("column", "type", "present", "example"):
        is_short = heading in ("type", "present")
        table.add_column(heading, justify="right" if heading == "present" else "left", no_wrap=is_short)
    for column in head.columns:
        mark = f"{column.name} (text)" if column.is_text else column.name
        table.add_row(Text(mark), column.types, f"{column.present:.0%}", Text(column.example))
    return table
