"""why: the fate of a document, by its id."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.commands.why import why
from gristmill.data.document import DOCUMENT_SCHEMA, Document, document_schema, shard_path, write_documents
from gristmill.data.ledger import REJECTED_SCHEMA, rejected_row
from gristmill.data.write import write_rows
from gristmill.errors import DataError, RecipeError


def told(target: Path, name: str) -> str:
    console = Console(file=io.StringIO(), width=200)
    why(target, name, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def document(name: str, source: str, **other: Any) -> Document:
    return Document(id=name, source=source, text=f"The [bold]text[/] of {name}.", origin="f#0", bytes_in=9, **other)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose extract dropped one document by a rule, and whose select kept two and dropped two for one of them."""
    for folder in ("extract/web", "select/web", "select/book"):
        (tmp_path / folder).mkdir(parents=True)
    short = rejected_row(
        id="short", source="web", step="extract", reason="too_few_words", value=12.0, limit=50.0, bytes_in=9
    )
    write_rows(shard_path(tmp_path / "extract/web", 0, stem="rejected"), REJECTED_SCHEMA, [short])
    write_documents(shard_path(tmp_path / "extract/web", 0), [document("seen-by-nobody", "web")])
    copies = [
        rejected_row(
            id=f"copy{n}",
            source="web",
            step="select",
            reason="near_duplicate",
            value=0.8 + n / 100,
            limit=0.7,
            duplicate_of="a",
            bytes_in=9,
        )
        for n in range(2)
    ]
    write_rows(shard_path(tmp_path / "select/web", 0, stem="rejected"), REJECTED_SCHEMA, copies)
    write_rows(
        shard_path(tmp_path / "select/web", 0, stem="train"),
        DOCUMENT_SCHEMA,
        [document("a", "web", url="http://a.org").row()],
    )
    write_rows(
        shard_path(tmp_path / "select/book", 0, stem="validation"), DOCUMENT_SCHEMA, [document("a", "book").row()]
    )
    return tmp_path


def test_a_rule_is_told_with_its_numbers(run: Path) -> None:
    assert told(run, "short").splitlines()[:2] == ["web  short", "extract: too_few_words  12 against the limit 50"]


def test_a_copy_names_what_it_lost_to_and_that_one_its_copies(run: Path) -> None:
    assert "select: near_duplicate  0.81 against the limit 0.7  copy of a" in told(run, "copy1")
    lines = told(run, "a").splitlines()
    assert lines[:4] == ["book  a", "select: kept, held out", "origin f#0", "The [bold]text[/] of a."]
    assert lines[5:9] == ["web  a", "select: kept to train on", "url http://a.org", "origin f#0"]
    assert lines[-3:] == [
        "2 left because of it:",
        "  web  copy0  near_duplicate 0.800",
        "  web  copy1  near_duplicate 0.810",
    ]


def test_the_repository_of_a_source_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "select/code").mkdir(parents=True)
    schema = document_schema(with_repository=True)
    row = document("mill-1.2/a.py", "code", repository="mill-1.2").row()
    write_rows(shard_path(tmp_path / "select/code", 0, stem="train"), schema, [row])
    assert "repository mill-1.2" in told(tmp_path, "mill-1.2/a.py").splitlines()


def test_a_document_tells_the_rules_that_judged_it_and_its_score(finished_run: Path) -> None:
    """Of the source that has a classifier: scores as they lie in the files, of documents kept and of those that left for theirs."""
    rows = pq.read_table(finished_run / "select" / "manuals").select(["id"])["id"].to_pylist()
    scores = {
        row["id"]: row["score"]
        for path in finished_run.glob("score/manuals/*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    for name in (rows[0], rows[-1]):
        lines = told(finished_run, name).splitlines()
        assert "rules gopher_repetition@1, gopher_quality@1, fineweb@1" in lines
        assert f"score {scores[name]:.4g}" in lines


def test_what_select_decided_is_not_told_twice(run: Path) -> None:
    with pytest.raises(DataError, match=r"no document of .* has the id 'seen-by-nobody'"):
        told(run, "seen-by-nobody")


def test_an_id_that_is_not_there_names_those_that_hold_it(run: Path) -> None:
    with pytest.raises(DataError, match=r"has the id 'cop'\. Ids that hold it: 'copy0', 'copy1'\."):
        told(run, "cop")
    with pytest.raises(DataError, match="`gristmill inspect` shows ids of a run"):
        told(run, "nothing like it")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"is no run's folder with curated documents"):
        told(tmp_path, "a")


def test_all_row_groups_are_looked_through(tmp_path: Path) -> None:
    (tmp_path / "extract/web").mkdir(parents=True)
    table = pa.Table.from_pylist([document(f"d{n}", "web").row() for n in range(50)], schema=DOCUMENT_SCHEMA)
    pq.write_table(table, shard_path(tmp_path / "extract/web", 0), row_group_size=7)
    for n in (0, 6, 7, 49):
        assert "extract: kept" in told(tmp_path, f"d{n}")
