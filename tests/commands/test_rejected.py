"""inspect --rejected --where: one condition in SQL over the rejected documents, and nothing else."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gristmill.commands.inspect import inspect
from gristmill.data.document import shard_path
from gristmill.data.ledger import REJECTED_SCHEMA, Ledger, rejected_row
from gristmill.data.write import write_rows
from gristmill.errors import DataError, MissingExtra, RecipeError
from gristmill.store.durable import write_json

ROWS = [
    ("extract/web", "too_few_words", 12.0),
    ("extract/web", "too_few_words", 45.0),
    ("extract/web", "timeout", None),
    ("extract/book", "too_few_words", 48.0),
    ("select/web", "near_duplicate", 0.8),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose extract dropped two documents of web by a rule, failed one, and dropped one of book; select dropped one of web."""
    ledgers: dict[str, Ledger] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, (folder, reason, value) in enumerate(ROWS):
        step, source = folder.split("/")
        artefact = step if step == "select" else folder
        ledgers.setdefault(artefact, Ledger()).saw(source, 1000)
        ledgers[artefact].add(source, "dropped", 1000, reason=reason)
        row = {"id": f"r{number}", "source": source, "step": step, "reason": reason, "bytes_in": 1000}
        rows.setdefault(folder, []).append(rejected_row(**row, value=value, limit=50.0, text=f"text [bold]{number}"))
    for folder, some in rows.items():
        (tmp_path / folder).mkdir(parents=True)
        write_rows(shard_path(tmp_path / folder, 0, stem="rejected"), REJECTED_SCHEMA, some)
    for artefact, ledger in ledgers.items():
        write_json(tmp_path / artefact / "ledger.json", ledger.to_json())
    return tmp_path


def told(target: Path, where: str | None, *, as_json: bool = False, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=80)
    usual: dict[str, Any] = {"source": None, "reason": None, "samples": None}
    inspect(target, rejected=True, where=where, as_json=as_json, console=console, **{**usual, **options})
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def ids(target: Path, where: str | None, **options: Any) -> list[str]:
    return [json.loads(line)["id"] for line in told(target, where, as_json=True, **options).splitlines()]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("reason = 'too_few_words' and value > 40", ["r3", "r1"]),
        ("value < \"limit\" and step = 'select'", ["r4"]),
        ("value is null", ["r2"]),
        ("excerpt like '%[bold]0'", ["r0"]),
        ("id in (select 'r' || i from range(3) t(i))", ["r0", "r1", "r2"]),
        ("false", []),
    ],
)
def test_a_condition_chooses_among_the_documents_of_all_steps(run: Path, where: str, found: list[str]) -> None:
    assert ids(run, where) == found


def test_a_condition_and_the_other_options_hold_together(run: Path) -> None:
    assert ids(run, "value > 40", source="web") == ["r1"]
    assert ids(run, "value > 40", reason="too_few_words", samples=1) == ["r3"]


def test_lines_without_a_condition_are_all_rows_and_need_no_duckdb(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ids(run, None) == ["r3", "r0", "r1", "r2", "r4"]
    assert ids(run, None, samples=2) == ["r3", "r0"]
    with pytest.raises(MissingExtra, match=r"pip install \"gristmill\[sql\]\""):
        told(run, "true")


def test_a_terminal_shows_how_many_of_each_reason_and_the_first(run: Path) -> None:
    lines = [" ".join(line.split()) for line in told(run, "value > 1", samples=1).splitlines()]
    assert lines == [
        "3 documents, 0.00 MB",
        "step source reason documents MB",
        "extract web too_few_words 2 0.00",
        "extract book too_few_words 1 0.00",
        "",
        "id source reason value limit bytes in excerpt",
        "r3 book too_few_words 48 50 1,000 text [bold]3",
    ]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("words > 40", 'column "words" not found'),
        ("limit > 40", "syntax error"),
        ("", "without selection list"),
        ("value > 'many'", "Could not convert string 'many'"),
        ("true; COPY (select 1) TO 'out.csv'", "modifiers"),
        ("COPY (select 1) TO 'out.csv'", "syntax error"),
        ("true, true", "single expression"),
        ("true) or (true", "syntax error"),
        ("id in (select column0 from read_csv('{file}'))", "file system operations are disabled"),
        ("id in (select content from read_text('{file}'))", "file system operations are disabled"),
        ("exists (from '{file}')", "file system operations are disabled"),
        ("exists (select * from glob('/*'))", "file system operations are disabled"),
        ("exists (from REJECTED_SCHEMA)", "does not exist"),
    ],
)
def test_anything_but_one_condition_over_these_rows_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("r0\n")
    with pytest.raises(RecipeError) as caught:
        told(run, where.replace("{file}", str(tmp_path / "other.csv")))
    first, second = str(caught.value).splitlines()
    assert words in first
    assert second.endswith('id, source, step, reason, value, "limit", duplicate_of, detail, excerpt, bytes_in.')
    assert not (tmp_path / "out.csv").exists()


def test_a_damaged_file_is_named(run: Path) -> None:
    path = run / "extract/web/rejected-00000.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"rejected-00000\.parquet cannot be read as Parquet"):
        told(run, "true")


def test_a_run_that_dropped_nothing_has_no_match(tmp_path: Path) -> None:
    (tmp_path / "extract/web").mkdir(parents=True)
    ledger = Ledger()
    ledger.saw("web", 10)
    ledger.add("web", "kept", 10)
    write_json(tmp_path / "extract/web/ledger.json", ledger.to_json())
    assert told(tmp_path, "true").strip() == "0 documents, 0.00 MB"
