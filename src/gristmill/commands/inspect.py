"""`gristmill inspect`: look at data. A run's folder shows where every document went, a recipe what its sources read; anything else is
looked at as raw text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.commands.inspect_files import inspect_files, inspect_sources
from gristmill.commands.rejected import Rejected, print_lines, print_matches, rejected_files
from gristmill.commands.run_folder import refuse_broken_links
from gristmill.commands.selections import Side
from gristmill.commands.why import UNIT_CHARS, evidence
from gristmill.data.document import read_batches
from gristmill.data.ledger import REJECTED_SCHEMA, Ledger, read_ledger, rejected_row
from gristmill.display import plain_table, print_whole
from gristmill.errors import DataError, RecipeError
from gristmill.extract.not_read import kept_not_read
from gristmill.recipe.load import IN_FOLDER, RECIPE_SUFFIXES, load_recipe, named_nearly
from gristmill.select.outputs import Selected
from gristmill.store.store import RunLinks, Store
from gristmill.synthesize.outputs import Conversations
from gristmill.units import counted, megabytes

SAMPLE_CHARS = 300
FILE_SAMPLES, RUN_SAMPLES = 1, 10
SHOWN_UNITS = 5


def inspect(
    target: Path,
    *,
    rejected: bool,
    source: str | None,
    reason: str | None,
    samples: int | None,
    console: Console,
    where: str | None = None,
    as_json: bool = False,
) -> None:
    """Shows a run (ledgers, samples of what was kept or, with `rejected`, dropped, and why), what a recipe reads, or raw files.

    `source`, `reason` and `where`, a condition in SQL over REJECTED_SCHEMA, narrow a run down; `samples`: of a run in all, spread over
    sources and reasons, with `where` the first; of anything else, of each source or format. as_json: what was dropped as lines, all
    of them unless `samples` says how many.
    Raises RecipeError when `target` does not exist or the options do not fit, DataError when the run has no such source or
    reason, ArtifactError when it is a copy of a run without its files, MissingExtra for `where` without DuckDB.
    """
    if not target.exists():
        near = named_nearly(target)
        raise RecipeError(
            f"{target} does not exist. {near}Give a run's folder (runs/<name>), or a file or folder of texts."
        )
    artefacts = ledger_folders(target)
    if not artefacts:
        refuse_broken_links(target)
        if rejected or as_json or (source, reason, where) != (None, None, None):
            raise RecipeError(
                f"--rejected, --where, --json, --source and --reason look into a run, and {target} holds no ledger of one."
            )
        _inspect_texts(target, FILE_SAMPLES if samples is None else samples, console)
        return
    ledgers = {name: read_ledger(folder / "ledger.json") for name, folder in artefacts.items()}
    _check_names(ledgers, source, reason)
    if where is not None:
        with Rejected(artefacts.values(), where, source=source, reason=reason) as chosen:
            if as_json:
                print_lines(chosen.rows(samples), console)
            else:
                print_matches(chosen, RUN_SAMPLES if samples is None else samples, console)
        return
    dropped = (row for folder in artefacts.values() for row in rejected_rows(folder, source, reason))
    if as_json:
        print_lines(itertools.islice(dropped, samples), console)
        return
    if reason is None:
        print_whole(_overview(ledgers, source), console)
    print_whole(_fates(ledgers, source, reason), console)
    for line in _repeated(target, source) if "select" in artefacts and reason is None else ():
        console.print(line, markup=False, highlight=False)
    rows = dropped if rejected or reason is not None else kept_rows(target, source)
    for row in spread(rows, RUN_SAMPLES if samples is None else samples):
        console.print(_sample(row))
    if not rejected and reason is None:
        console.print("[dim]--rejected shows samples of what was dropped, with the value against the limit[/]")
    for other in kept_not_read(target):
        console.print(f"not read: {other}", markup=False, highlight=False)


def _inspect_texts(target: Path, samples: int, console: Console) -> None:
    """What a recipe reads, or raw files. samples: of each source or format."""
    recipe = target / IN_FOLDER if target.is_dir() else target
    if recipe.suffix in RECIPE_SUFFIXES and recipe.is_file():
        inspect_sources(load_recipe(recipe), samples=samples, console=console)
    else:
        inspect_files(target, samples=samples, console=console)


def ledger_folders(target: Path) -> dict[str, Path]:
    """The curation artefacts of a run (or the one that `target` is), by name, in the order of the flow.

    What select was made from counts, by its record; what was extracted since then does not belong to the same account.
    """
    if (target / "ledger.json").is_file():
        return {target.name: target}
    run = RunLinks(Store(target.parent), target.name)
    found = {name: path for name, path in run.made_from("select").items() if name.startswith("extract/")}
    if not found:
        extracted = sorted(path.parent for path in target.glob("extract/*/ledger.json"))
        found = {path.relative_to(target).as_posix(): path for path in extracted}
    for name in ("select", "synthesize"):
        if (target / name / "ledger.json").is_file():
            found[name] = target / name
    return found


def rejected_rows(folder: Path, source: str | None = None, reason: str | None = None) -> Iterator[dict[str, Any]]:
    """The rejected documents and conversations of an artefact, as rows of REJECTED_SCHEMA, in order."""
    for row in itertools.chain(_rejected_documents(folder), _rejected_conversations(folder)):
        if source in (None, row["source"]) and reason in (None, row["reason"]):
            yield row


def _rejected_documents(folder: Path) -> Iterator[dict[str, Any]]:
    for path in rejected_files(folder):
        for batch in read_batches(path, columns=REJECTED_SCHEMA.names):
            yield from batch.to_pylist()


def _rejected_conversations(folder: Path) -> Iterator[dict[str, Any]]:
    """The conversations that synthesize refused; their kind takes the place of a source."""
    left = Conversations(folder)
    for refused in left.refused if left.rejected.is_file() else ():
        yield rejected_row(
            id=refused.id,
            source=refused.kind,
            step=folder.name,
            reason=refused.reason,
            bytes_in=0,
            detail=refused.detail,
            text=" / ".join(message["content"] for message in refused.messages),
        )


def kept_rows(target: Path, source: str | None = None) -> Iterator[dict[str, Any]]:
    """What select kept (extract, where there is no select yet), training text first."""
    chosen = source or "*"
    paths = sorted(target.glob(f"select/{chosen}/train-*.parquet"))
    paths = paths or sorted(target.glob(f"extract/{chosen}/documents-*.parquet"))
    for path in paths:
        for batch in read_batches(path, columns=["id", "source", "text"]):
            yield from ({**row, "reason": "", "excerpt": row["text"][:SAMPLE_CHARS]} for row in batch.to_pylist())


def spread(rows: Iterator[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Up to `limit` rows, taken in turn from each source and reason, in the order met."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        group = groups.setdefault((row["source"], row["reason"]), [])
        if len(group) < limit:
            group.append(row)
    turns = (group[turn] for turn in range(limit) for group in groups.values() if turn < len(group))
    return [row for row, _ in zip(turns, range(limit))]


def _check_names(ledgers: dict[str, Ledger], source: str | None, reason: str | None) -> None:
    sources = sorted({name for ledger in ledgers.values() for name in ledger.sources})
    if source is not None and source not in sources:
        raise DataError(f"the run has no source {source!r}; it has {', '.join(sources)}.")
    reasons = sorted(
        {name for ledger in ledgers.values() for row in ledger.sources.values() for _, name in row.fates if name}
    )
    if reason is not None and reason not in reasons:
        raise DataError(f"nothing was rejected as {reason!r}; the reasons are {', '.join(reasons) or 'none'}.")


def _overview(ledgers: dict[str, Ledger], source: str | None) -> Table:
    table = plain_table("step", "source", "documents in >", "kept >", "dropped >", "failed >", "MB in >", "MB kept >")
    for step, ledger in ledgers.items():
        for name, row in sorted(ledger.sources.items()):
            if source in (None, name):
                totals = {kind: row.total(kind) for kind in ("kept", "dropped", "failed")}
                table.add_row(
                    step,
                    name,
                    f"{row.came_in.documents:,}",
                    *(f"{total.documents:,}" for total in totals.values()),
                    megabytes(row.came_in.num_bytes),
                    megabytes(totals["kept"].num_bytes),
                )
    return table


def _fates(ledgers: dict[str, Ledger], source: str | None, reason: str | None) -> Table:
    table = plain_table("step", "source", "fate", "reason", "documents >", "share >", "MB >")
    for step, ledger in ledgers.items():
        for name, row in sorted(ledger.sources.items()):
            for kind in ("dropped", "failed", "would_drop"):
                for why, count in row.reasons(kind).items():
                    if source in (None, name) and reason in (None, why):
                        share = count.documents / max(1, row.came_in.documents)
                        words = (step, name, kind.replace("_", " "), why)
                        table.add_row(*words, f"{count.documents:,}", f"{share:.1%}", megabytes(count.num_bytes))
            for why, count in row.edited.items():
                if source in (None, name) and reason in (None, why):
                    share = count.documents / max(1, row.came_in.documents)
                    words = (step, name, "edited", why)
                    table.add_row(*words, f"{count.documents:,}", f"{share:.1%}", megabytes(count.num_bytes))
    return table


def _repeated(target: Path, source: str | None) -> Iterator[str]:
    """What select took out of documents as repeated, and the units that most of them lost."""
    report = Selected(target / "select").repeated_text
    if report is None:
        return
    is_run = RunLinks(Store(target.absolute().parent), target.absolute().name).target("select") is not None
    for name, taken in report.taken.items():
        if taken.num_bytes and source in (None, name):
            tokens = Side(target).tokens_taken(name) if is_run else None
            yield (
                f"{name}: {taken.num_bytes:,} bytes of training text ({report.share(name):.1%}"
                f"{'' if tokens is None else f', about {tokens:,} tokens'}) stand in other documents: "
                f"{counted(taken.edited_units, report.unit)} taken out of {counted(taken.edited_documents, 'document')}, "
                f"{taken.dropped_documents:,} dropped"
            )
    for one in report.most_frequent[:SHOWN_UNITS]:
        yield f"  lost by {one.lost_by:,}, kept by {one.kept_by}: {' '.join(one.excerpt.split())[:UNIT_CHARS]}"


def _sample(row: dict[str, Any]) -> Text:
    text = Text()
    text.append(f"\n{row['source']}  {row['id']}", style="bold")
    if row["reason"]:
        text.append("\n").append_text(evidence(row))
    text.append(f"\n{' '.join(row['excerpt'].split())}")
    return text
