"""diff: two selections document by document, what was asked otherwise, and what is no selection."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gristmill.commands.diff import diff
from gristmill.data.document import DOCUMENT_SCHEMA, Document, shard_path
from gristmill.data.ledger import REJECTED_SCHEMA, rejected_row
from gristmill.data.write import write_rows
from gristmill.errors import ArtifactError, RecipeError
from gristmill.select.outputs import RepeatedReport, TextTaken
from gristmill.select.signatures import Bands, PrintShard
from gristmill.store.durable import write_json
from gristmill.store.fingerprint import fingerprint
from gristmill.store.store import RunLinks, Store

SIDES = ("train", "validation")
EXTRACT = "extract: "
Fates = dict[str, tuple[str, str]]  # id → (fate, text); "extract: too_few_words" of extract
A: Fates = {
    "k": ("train", "kept"),
    "m": ("train", "moves"),
    "v": ("validation", "held out"),
    "lost": ("train", "a [bold]text[/] that B drops"),
    "lost too": ("train", "another"),
    "won": ("extract: too_few_words", "short"),
    "near": ("near_duplicate", "copy"),
    "gone": ("train", "only A"),
    "same": ("near_duplicate", "still a copy"),
}
B: Fates = {
    "k": ("train", "kept, edited"),
    "m": ("validation", "moves"),
    "v": ("validation", "held out"),
    "lost": ("score_too_low", "a [bold]text[/] that B drops"),
    "lost too": ("score_too_low", "another"),
    "won": ("train", "short"),
    "near": ("extract: too_few_words", "copy"),
    "new": ("near_validation", "only B"),
    "same": ("near_duplicate", "still a copy"),
}


def made(runs: Path, name: str, sources: dict[str, Fates], *, limit: int = 50, tokens: int | None = None) -> Path:
    """A run that curated these documents, and tokenized them where `tokens` of each side are given."""
    links, made_from = RunLinks(Store(runs), name), {}
    kept: dict[str, Any] = {}
    for source, fates in sources.items():
        extract, signatures = f"extract/{source}", f"signatures/{source}"
        folder = _open(links, extract, limit)
        dropped = {name: row for name, row in fates.items() if row[0].startswith(EXTRACT)}
        _write(folder, source, {"extract": dropped})
        passed = {name: row for name, row in fates.items() if name not in dropped}
        write_rows(shard_path(folder, 0), DOCUMENT_SCHEMA, _documents(source, passed))
        made_from[extract] = _commit(links, extract, limit, {"source.min_words": limit})
        sign = PrintShard(
            out=_open(links, signatures, limit), bands=Bands(num_bands=1, rows_per_band=1, ngram=2), seed=1
        )
        sign(shard_path(links.folder / extract, 0))
        made_from[signatures] = _commit(links, signatures, limit, {})
    folder = _open(links, "select", limit)
    for source, fates in sources.items():
        by_fate = {side: {name: row for name, row in fates.items() if row[0] == side} for side in SIDES}
        rest = {name: row for name, row in fates.items() if row[0] not in SIDES and not row[0].startswith(EXTRACT)}
        (folder / source).mkdir()
        _write(folder / source, source, {**by_fate, "select": rest})
        kept[source] = {side: {"documents": len(rows), "bytes": sum(len(text) for _, text in rows.values())}
                        for side, rows in by_fate.items()}  # fmt: skip
    write_json(folder / "split.json", kept)
    selected = _commit(links, "select", limit, {"seed": 8}, made_from=made_from)
    if tokens is not None:
        _open(links, "tokenize", limit)
        counts = {source: {side: {"tokens": tokens} for side in SIDES} for source in sources}
        _commit(links, "tokenize", limit, {}, made_from={"select": selected}, counts=counts)
    (links.folder / "recipe.yaml").write_text("tokenizer: {vocab_size: 1024}\n")
    return links.folder


def _identity(step: str, limit: int) -> str:
    return fingerprint([step, limit])


def _open(links: RunLinks, step: str, limit: int) -> Path:
    return links.store.open_work(step, _identity(step, limit))


def _commit(links: RunLinks, step: str, limit: int, config: dict[str, Any], **record: Any) -> str:
    identity = _identity(step, limit)
    document = {"config": config, "version": {}, "files": {}, "inputs": {}}
    links.store.commit(step, identity, {"made_from": {}, "document": document, "resolved": config, **record})
    assert links.link(step, identity)
    return identity


def _write(folder: Path, source: str, kinds: dict[str, Fates]) -> None:
    for kind, fates in kinds.items():
        if kind in SIDES:
            write_rows(shard_path(folder, 0, stem=kind), DOCUMENT_SCHEMA, _documents(source, fates))
            continue
        measured = {"source": source, "step": kind, "bytes_in": 10, "value": 12.0, "limit": 50.0}
        rows = [
            rejected_row(id=name, reason=fate.removeprefix(EXTRACT), text=text, **measured)
            for name, (fate, text) in fates.items()
        ]
        write_rows(shard_path(folder, 0, stem="rejected"), REJECTED_SCHEMA, rows)


def _documents(source: str, fates: Fates) -> list[dict[str, Any]]:
    return [
        Document(id=name, source=source, text=text, origin="f#0", bytes_in=10).row()
        for name, (_, text) in fates.items()
    ]


def told(a: Path, b: Path, *, as_json: bool = False) -> str:
    console = Console(file=io.StringIO(), width=60)
    diff(a, b, console=console, as_json=as_json)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return made(tmp_path, "a", {"web": A}), made(tmp_path, "b", {"web": B, "late": {"x": ("train", "y")}}, limit=40)


def test_each_document_is_told_by_what_became_of_it_in_both(runs: tuple[Path, Path]) -> None:
    found = json.loads(told(*runs, as_json=True))
    groups = {(group["a"], group["b"]): group["documents"] for group in found["sources"]["web"]["groups"]}
    assert groups.pop(("train", "score_too_low")) == 2
    assert groups == dict.fromkeys(
        [
            ("train", "train"), ("train", "validation"), ("validation", "validation"),
            ("too_few_words", "train"), ("near_duplicate", "too_few_words"), ("train", None), (None, "near_validation"),
            ("near_duplicate", "near_duplicate"),
        ],
        1,
    )  # fmt: skip
    assert found["sources"]["web"]["other_text"] == 1
    assert found["sources"]["web"]["a"]["documents"] == 6
    assert (found["sources"]["late"]["a"], found["sources"]["late"]["b"]["documents"]) == (None, 1)
    assert found["not_read"] == []


def test_the_page_names_the_rule_its_effect_and_documents_to_judge(runs: tuple[Path, Path]) -> None:
    text = told(*runs)
    assert "source.min_words: 50 → 40  extract/web" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "web dropped by B only score_too_low 2 0.00" in rows
    assert "web dropped by both near_duplicate → too_few_words 1 0.00" in rows
    assert "web kept by both train → validation 1 0.00" in rows
    assert "web kept by both on the same side 2 0.00" in rows
    assert "late only B has it kept 1 0.00" in rows
    assert "web: 1 document of those that both extracted with another text under the same id" in " ".join(text.split())
    judged = text[text.index("web: dropped by B only, score_too_low, 2 documents") :]
    assert "B select: score_too_low  12 against the limit 50\na [bold]text[/] that B drops" in judged
    assert f"gristmill why {runs[1]} lost" in judged.replace("\n", "")


def test_tokens_are_counted_or_by_the_bytes_of_the_other_run_or_of_the_vocabulary(tmp_path: Path) -> None:
    a = made(tmp_path, "a", {"web": A}, tokens=10)
    b = made(tmp_path, "b", {"web": B}, limit=40)
    c = made(tmp_path, "c", {"web": B}, limit=30)
    web = json.loads(told(a, b, as_json=True))["sources"]["web"]
    assert (web["a"]["tokens"], web["a"]["is_counted"]) == (20, True)
    assert web["b"] == {"documents": 4, "bytes": 30, "is_counted": False, "edited_documents": 0, "taken_bytes": 0,
                        "tokens": round(30 * 20 / web["a"]["bytes"])}  # fmt: skip
    assert json.loads(told(c, b, as_json=True))["sources"]["web"]["b"]["tokens"] == round(30 / 2.4)


def test_tokens_of_an_earlier_selection_do_not_count(runs: tuple[Path, Path]) -> None:
    links = RunLinks(Store(runs[0].parent), runs[0].name)
    _open(links, "tokenize", 50)
    counts = {"web": {side: {"tokens": 10} for side in SIDES}}
    _commit(links, "tokenize", 50, {}, made_from={"select": _identity("select", 40)}, counts=counts)
    assert not json.loads(told(*runs, as_json=True))["sources"]["web"]["a"]["is_counted"]


def test_an_id_that_stands_twice_is_said_and_rows_are_counted(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", {"web": A}), made(tmp_path, "b", {"web": B}, limit=40)
    path = b / "select/web/train-00000.parquet"
    path.chmod(0o644)
    write_rows(path, DOCUMENT_SCHEMA, _documents("web", {"k": B["k"]}) + _documents("web", {"k": B["k"]}))
    assert "web: 1 row of B with an id that stood before" in told(a, b)


def test_inputs_that_were_removed_are_said(runs: tuple[Path, Path]) -> None:
    shutil.rmtree(runs[1].parent / ".store" / "extract" / "web" / _identity("extract/web", 40))
    found = json.loads(told(*runs, as_json=True))
    assert found["not_read"] == [f"{runs[1]}/extract/web was removed: what it dropped is not compared"]


def test_copies_of_runs_are_compared_as_the_runs(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copies = []
    for run in runs:
        copies.append(tmp_path / "copies" / run.name)
        shutil.copytree(run, copies[-1])
    ours, theirs = (json.loads(told(*pair, as_json=True)) for pair in (runs, copies))
    assert ours["sources"] == theirs["sources"]
    assert ours["changes"] == theirs["changes"]


def test_what_is_no_selection_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    with pytest.raises(RecipeError, match=r"project is no run's folder\. Give two"):
        told(runs[0], tmp_path / "project")
    (tmp_path / "c" / "extract").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"c has no select yet.*\n.*--until select"):
        told(tmp_path / "c", runs[0])
    twin = made(tmp_path, "twin", {"web": A})
    with pytest.raises(RecipeError, match="nothing differs: both have the same selection"):
        told(runs[0], twin)
    shutil.copytree(runs[0], tmp_path / "elsewhere" / "deep" / "a", symlinks=True)
    with pytest.raises(ArtifactError, match="leads nowhere"):
        told(tmp_path / "elsewhere" / "deep" / "a", runs[1])


def test_text_that_was_taken_out_of_kept_documents_is_told_with_its_tokens(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", {"web": A}, tokens=10), made(tmp_path, "b", {"web": A}, limit=40)
    taken = TextTaken(edited_documents=3, edited_units=4, edited_bytes=17, dropped_documents=1, dropped_bytes=20)
    report = RepeatedReport(
        unit="line", min_words=8, min_documents=2, train_bytes={"web": 99}, taken={"web": taken}, most_frequent=()
    )
    write_json(b / "select" / "repeated.json", report.to_json())
    size = sum(len(text) for fate, text in A.values() if fate in SIDES)
    words = f"web: B takes 37 bytes (about {round(20 * 37 / size)} tokens) of repeated text out of training text, and edits 3 documents"
    assert words in " ".join(told(a, b).split())
    found = json.loads(told(a, b, as_json=True))["sources"]["web"]
    assert (found["b"]["edited_documents"], found["b"]["taken_bytes"]) == (3, 37)
