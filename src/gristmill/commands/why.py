"""`gristmill why`: what became of one document of a run, and by which evidence.

    extract/<source>   kept, or the rule that dropped it with value and limit
    select             train or validation, or why it left: the score, the item with its span, the survivor that it lost to
    repeated text      which paragraphs or lines it lost, and to which documents
    both               where it came from (file and offset, URL, repository, licence), the rule packs that judged it, its score
    and the other way  the copies that were dropped for it, the training texts that left because they resemble it, and how many others
                       lost text that it keeps

Only columns of ids are read through; of the rows that match, everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from gristmill.commands.run_folder import refuse_broken_links
from gristmill.data.document import open_parquet
from gristmill.errors import DataError, RecipeError
from gristmill.extract.outputs import Extracted
from gristmill.units import counted

KEPT = {"documents": "kept", "train": "kept to train on", "validation": "kept, held out"}
OTHERS = {"rejected": ["duplicate_of"], "edited": ["kept_by"]}  # columns that name another document
RELATIONS = {"only_repeated": "most of it stands in", "near_validation": "resembles", "copy_of_held_out": "resembles"}
SHOWN_NEAR = 5
SHOWN_COPIES = 10
EXCERPT_CHARS = 300
UNIT_CHARS = 80
DETAILS = ("url", "repository", "license", "language", "origin", "rules", "score")


def why(target: Path, name: str, *, console: Console) -> None:
    """Prints the fate of the document with this id, step by step; of several sources where several have it.

    Raises RecipeError when `target` is no run with curated text, DataError when no document has the id.
    """
    shards = _shards(target)
    if not shards:
        refuse_broken_links(target)
        raise RecipeError(f"{target} is no run's folder with curated documents. Give runs/<name>.")
    with ThreadPoolExecutor() as pool:
        found = [row for rows in pool.map(lambda path: list(_rows(path, target, name)), shards) for row in rows]
        fates = [row for row in found if row["id"] == name and "kept_by" not in row]
        if not fates:
            near = sorted({one for ids in pool.map(lambda path: _ids_with(path, name), shards) for one in ids})
            raise DataError(f"no document of {target} has the id {name!r}.{_near_words(near)}")
        scores = [row for path in sorted(target.glob("score/*/scores-*.parquet")) for row in _rows(path, target, name)]
    for row in fates:
        row |= _by_what(target, row["source"], scores)
        console.print(_fate(row))
        if lost := [one for one in found if "kept_by" in one and (one["id"], one["source"]) == (name, row["source"])]:
            console.print(_lost(lost))
        if keeps := [one for one in found if (one.get("kept_by"), one.get("kept_in")) == (name, row["source"])]:
            documents = len({(one["source"], one["id"]) for one in keeps})
            console.print(f"{counted(documents, 'document')} lost text that it keeps", highlight=False)
    if copies := [row for row in found if row["id"] != name and "kept_by" not in row]:
        console.print(_copies(copies))


def _shards(target: Path) -> list[Path]:
    """All files of documents, in the order of the flow. What extract kept is in one of select's files, where there is a select."""
    extracted = sorted(target.glob("extract/*/rejected-*.parquet"))
    selected = sorted(target.glob("select/*/*-[0-9]*.parquet"))
    return [*extracted, *(selected or sorted(target.glob("extract/*/documents-*.parquet")))]


def _rows(path: Path, target: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of the document, and of the documents that name it as the one that stayed."""
    kind = path.name.rpartition("-")[0]
    with open_parquet(path) as file:
        columns = ["id", *OTHERS.get(kind, ())]
        for number in range(file.metadata.num_row_groups):
            if not _may_hold(file.metadata.row_group(number), columns, name):
                continue
            group = file.read_row_group(number, columns=columns)
            hits = [pc.fill_null(pc.equal(group.column(column), name), False) for column in columns]
            places = np.flatnonzero(np.logical_or.reduce([hit.to_numpy() for hit in hits]))
            if len(places):
                for row in file.read_row_group(number).take(places).to_pylist():
                    step, *_ = path.parent.relative_to(target).parts
                    yield {"fate": KEPT.get(kind, ""), "step": step, "source": path.parent.name, **row}


def _by_what(target: Path, source: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The rule packs that documents of the source were judged by, and the score of this one, where it has one; several where an id is not unique."""
    found = {}
    extracted = Extracted(target / "extract" / source)
    if extracted.record_path.is_file():
        found["rules"] = ", ".join(extracted.record.at("source", "rules", "packs"))
    if own := [row["score"] for row in scores if row["source"] == source]:
        found["score"] = ", ".join(f"{score:.4g}" for score in own)
    return found


def _may_hold(group: pq.RowGroupMetaData, columns: Sequence[str], name: str) -> bool:
    """Whether the least and the greatest value of one of the columns leave room for the name; files in order of their names do not."""
    for place in range(group.num_columns):
        column = group.column(place)
        if column.path_in_schema in columns:
            ends = column.statistics
            if ends is None or not ends.has_min_max or ends.min <= name <= ends.max:
                return True
    return False


def _ids_with(path: Path, name: str) -> list[str]:
    with open_parquet(path) as file:
        for number in range(file.metadata.num_row_groups):
            ids = file.read_row_group(number, columns=["id"]).column("id")
            held = ids.filter(pc.match_substring(ids, name))
            if len(held):
                return [str(one) for one in held.slice(0, SHOWN_NEAR).to_pylist()]
    return []


def _near_words(near: Sequence[str]) -> str:
    if not near:
        return " `gristmill inspect` shows ids of a run."
    return f" Ids that hold it: {', '.join(map(repr, near[:SHOWN_NEAR]))}."


def _fate(row: dict[str, Any]) -> Text:
    text = Text()
    text.append(f"{row['source']}  {row['id']}", style="bold")
    if row["fate"]:
        text.append(f"\n{row['step']}: {row['fate']}", style="green")
    else:
        text.append("\n").append_text(evidence(row))
    for detail in DETAILS:
        if row.get(detail):
            text.append(f"\n{detail} {row[detail]}", style="dim")
    excerpt = row.get("excerpt") or (row.get("text") or "")[:EXCERPT_CHARS]
    text.append(f"\n{' '.join(excerpt.split())}\n")
    return text


def evidence(row: dict[str, Any]) -> Text:
    """Why a document was dropped: step, reason, the value against the limit, the copy that stayed, the span; a row of REJECTED_SCHEMA."""
    text = Text(f"{row['step']}: {row['reason']}", style="yellow")
    words = ""
    if row["value"] is not None:
        words += f"  {row['value']:.4g}" + ("" if row["limit"] is None else f" against the limit {row['limit']:.4g}")
    if row["duplicate_of"] is not None:
        words += f"  {RELATIONS.get(row['reason'], 'copy of')} {row['duplicate_of']}"
    text.append(words, style="default")
    if row["detail"]:
        text.append(f"\n{row['detail']}", style="dim default")
    return text


def _lost(rows: Sequence[dict[str, Any]]) -> Text:
    """The units that a document lost, in the order of its text, each with the document that keeps it."""
    text = Text(f"lost as repeated, {sum(row['bytes'] for row in rows):,} bytes in {len(rows):,}:")
    for row in rows[:SHOWN_COPIES]:
        held = ", held out" if row["held_out"] else ""
        text.append(f"\n  kept by {row['kept_in']}  {row['kept_by']}{held}  ")
        text.append(" ".join(row["excerpt"].split())[:UNIT_CHARS], style="dim")
    if len(rows) > SHOWN_COPIES:
        text.append(f"\n  and {len(rows) - SHOWN_COPIES:,} more", style="dim")
    return text


def _copies(rows: Sequence[dict[str, Any]]) -> Text:
    text = Text(f"{len(rows):,} left because of it:")
    for row in rows[:SHOWN_COPIES]:
        against = "" if row["value"] is None else f" {row['value']:.3f}"
        text.append(f"\n  {row['source']}  {row['id']}  {row['reason']}{against}")
    if len(rows) > SHOWN_COPIES:
        text.append(f"\n  and {len(rows) - SHOWN_COPIES:,} more", style="dim")
    return text
