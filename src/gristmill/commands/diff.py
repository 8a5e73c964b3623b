"""`gristmill diff`: what a changed rule did. What was asked otherwise, a row a source, a row a group of documents, samples."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.commands.joined import KEPT, Fates, Group
from gristmill.commands.selections import Diff, SourceDiff, Total, compare
from gristmill.commands.why import EXCERPT_CHARS, evidence
from gristmill.display import doing, plain_table, print_whole
from gristmill.graph.state import by_kind
from gristmill.units import counted, megabytes

SAMPLED_GROUPS = 4
MAX_ROWS = 12  # of a source; --json has all
SAME = ("on the same side", "for the same reason")


def diff(a: Path, b: Path, *, console: Console, as_json: bool = False) -> None:
    """Prints what differs between the selections of two runs: --json has all groups, a terminal the largest.

    Raises RecipeError where one is no run with a selection, or both have the same one; ArtifactError for a copy without its files.
    """
    with doing(console, "comparing the documents of both"):
        found = compare(a, b)
    if as_json:
        console.print_json(json.dumps(_plain(found)))
    else:
        _print(found, console)


def _print(diff: Diff, console: Console) -> None:
    console.print(Text.assemble(("A ", "bold"), f"{diff.a}\n", ("B ", "bold"), str(diff.b)))
    for line, steps in diff.changes.items():
        console.print(Text.assemble("  ", line, (f"  {', '.join(by_kind(steps))}", "dim")), soft_wrap=True)
    console.print()
    print_whole(_totals(diff), console)
    console.print()
    print_whole(_groups(diff), console)
    for line in _notes(diff):
        console.print(line, markup=False, highlight=False)
    changed = [
        (name, group) for name, one in diff.sources.items() for group in merged(one.joined.groups) if is_change(group)
    ]
    for name, group in sorted(changed, key=lambda pair: -pair[1].documents)[:SAMPLED_GROUPS]:
        console.print(_samples(name, group, diff.sources[name], diff))


def is_change(group: Group) -> bool:
    """False for what both kept on the same side or dropped for the same reason."""
    return group.a != group.b


def what(group: Group) -> tuple[str, str]:
    """What became of the documents of a group, and the reasons."""
    if group.a is None or group.b is None:
        fate = group.a or group.b or ""
        return f"only {'B' if group.a is None else 'A'} has it", "kept" if fate in KEPT else fate
    if group.a in KEPT and group.b in KEPT:
        return "kept by both", SAME[0] if group.a == group.b else f"{group.a} → {group.b}"
    if group.a in KEPT:
        return "dropped by B only", group.b
    if group.b in KEPT:
        return "dropped by A only", group.a
    return "dropped by both", SAME[1] if group.a == group.b else f"{group.a} → {group.b}"


def merged(groups: Iterable[Group]) -> list[Group]:
    """Groups with one answer to `what` as one, whichever side of the split their documents were on; the changes first, by size."""
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault(what(group), []).append(group)
    sums = [
        replace(same[0], documents=sum(one.documents for one in same), bytes=sum(one.bytes for one in same))
        for same in found.values()
    ]
    return sorted(sums, key=lambda group: (not is_change(group), -group.documents))


def _totals(diff: Diff) -> Table:
    table = plain_table("source", "kept: documents A >", "B >", "MB of text A >", "B >", "tokens A >", "B >", "B − A >")
    for name, one in diff.sources.items():
        a, b = one.a, one.b
        change = (
            ""
            if a is None or b is None or a.tokens is None or b.tokens is None
            else f"{'' if a.is_counted and b.is_counted else '≈ '}{b.tokens - a.tokens:+,}"
        )
        table.add_row(
            name,
            *(f"{total.documents:,}" if total else "–" for total in (a, b)),
            *(megabytes(total.bytes) if total else "–" for total in (a, b)),
            *(_tokens(total) for total in (a, b)),
            change,
        )
    return table


def _tokens(total: Total | None) -> str:
    if total is None or total.tokens is None:
        return "–"
    return f"{'' if total.is_counted else '≈ '}{total.tokens:,}"


def _groups(diff: Diff) -> Table:
    table = plain_table("source", "what became of them", "where or why", "documents >", "MB in >")
    for name, one in diff.sources.items():
        groups = merged(one.joined.groups)
        changes = [group for group in groups if is_change(group)]
        for group in changes[:MAX_ROWS]:
            table.add_row(name, *what(group), *_size([group]))
        if left := changes[MAX_ROWS:]:
            table.add_row(
                name, "other changes", f"{counted(len(left), 'smaller group')}; --json has them", *_size(left)
            )
        for group in groups[len(changes) :]:
            table.add_row(name, *what(group), *_size([group]), style="dim")
    return table


def _size(groups: Sequence[Group]) -> tuple[str, str]:
    return f"{sum(group.documents for group in groups):,}", megabytes(sum(group.bytes for group in groups))


def _notes(diff: Diff) -> Iterator[str]:
    if not any(is_change(group) for one in diff.sources.values() for group in one.joined.groups):
        yield "Every document has the same fate in both."
    estimated = [one for one in diff.sources.values() for total in (one.a, one.b) if total and not total.is_counted]
    if estimated:
        yield "≈ by bytes of text: that selection is not tokenized."
    for name, one in diff.sources.items():
        for label, total in (("A", one.a), ("B", one.b)):
            if total and total.taken_bytes:
                tokens = "" if total.taken_tokens is None else f" (about {counted(total.taken_tokens, 'token')})"
                yield (
                    f"{name}: {label} takes {total.taken_bytes:,} bytes{tokens} of repeated text out of training text, and edits "
                    f"{counted(total.edited_documents, 'document')} for it"
                )
        if one.other_text:
            yield f"{name}: {counted(one.other_text, 'document')} of those that both extracted with another text under the same id"
        if one.other_text is None:
            yield f"{name}: whether texts changed under the same id is not known; the prints of one run were removed"
        for label, repeated in (("A", one.joined.repeated_a), ("B", one.joined.repeated_b)):
            if repeated:
                yield f"{name}: {counted(repeated, 'row')} of {label} with an id that stood before; rows are counted, not ids"
    yield from diff.not_read


def _samples(name: str, group: Group, source: SourceDiff, diff: Diff) -> Text:
    text = Text()
    text.append(f"\n{name}: {', '.join(what(group))}, {counted(group.documents, 'document')}", style="bold")
    ids = []
    for sample in group.samples:
        rows = _rows(source, sample)
        ids.append(str(next(iter(rows.values()))["id"]))
        text.append(f"\n\n{ids[-1]}", style="bold")
        for side, row in rows.items():
            if "reason" in row:
                text.append(f"\n{side} ").append_text(evidence(row))
        text.append(f"\n{_excerpt(rows)}")
    text.append(f"\ngristmill why {_run(group, diff)} {shlex.quote(ids[0])}", style="dim")
    return text


def _rows(source: SourceDiff, sample: tuple[int | None, int | None]) -> dict[str, dict[str, Any]]:
    """A, B → the whole row, where there is one."""
    sides: dict[str, tuple[Fates, int | None]] = {"A": (source.fates_a, sample[0]), "B": (source.fates_b, sample[1])}
    return {label: fates.row(row) for label, (fates, row) in sides.items() if row is not None}


def _excerpt(rows: dict[str, dict[str, Any]]) -> str:
    row = next(iter(rows.values()))
    return " ".join((row.get("excerpt") or row.get("text", "")[:EXCERPT_CHARS]).split())


def _run(group: Group, diff: Diff) -> Path:
    """The run that has more to tell: one that dropped the documents, B first."""
    return diff.a if group.b is None or (group.b in KEPT and group.a is not None and group.a not in KEPT) else diff.b


def _plain(diff: Diff) -> dict[str, Any]:
    return {
        "a": str(diff.a),
        "b": str(diff.b),
        "changes": [{"change": line, "steps": steps} for line, steps in diff.changes.items()],
        "sources": {name: _plain_source(one) for name, one in diff.sources.items()},
        "not_read": diff.not_read,
    }


def _plain_source(one: SourceDiff) -> dict[str, Any]:
    totals = {label: total and vars(total) for label, total in (("a", one.a), ("b", one.b))}
    return {
        **totals,
        "groups": [
            {
                "a": group.a,
                "b": group.b,
                "documents": group.documents,
                "bytes": group.bytes,
                **({"samples": [_plain_sample(one, sample) for sample in group.samples]} if is_change(group) else {}),
            }
            for group in one.joined.groups
        ],
        "other_text": one.other_text,
        "repeated_ids": {"a": one.joined.repeated_a, "b": one.joined.repeated_b},
    }


def _plain_sample(source: SourceDiff, sample: tuple[int | None, int | None]) -> dict[str, Any]:
    rows = _rows(source, sample)
    return {
        "id": next(iter(rows.values()))["id"],
        "excerpt": _excerpt(rows),
        **{
            label.lower(): {key: row[key] for key in ("step", "reason", "value", "limit", "duplicate_of", "detail")}
            for label, row in rows.items()
            if "reason" in row
        },
    }
