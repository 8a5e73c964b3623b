"""Fetching through the command line from a real server: killed, stopped, out of disk, offline; and what plan says beforehand."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from crawl import CRAWL, make_crawl, write_table
from gristmill.data.document import read_documents
from gristmill.data.fetch_size import ask_sizes
from gristmill.extract.outputs import Extracted
from gristmill.recipe.schema.fetching import FetchUrls
from gristmill.store.jsonl import read_jsonl
from web import Web, served

MAIN = "from gristmill.cli import main; main()"
TEXT = "".join(f"Chapter {n}\nThe {n}th miller ground {n * 7} sacks of wheat.\n" for n in range(6000)).encode()
RECIPE: dict[str, Any] = {
    "schema_version": 1,
    "name": "mill",
    "description": "One book from elsewhere.",
    "seed": 1,
    "sources": {"book": {"read": {"format": "text", "paths": ["*.txt"], "split_at": "^Chapter "}, "license": "CC0"}},
    "tokenizer": {"vocab_size": 320, "mixture": {"book": 1.0}},
    "model": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
              "max_position_embeddings": 128, "initializer_range": 0.1},
    "pretrain": {"global_batch_tokens": 1024, "warmup_tokens": 1024, "decay_tokens": 1024, "checkpoint_every_tokens": 1024,
                 "optimizer": {"peak_lr": 1.0e-3}, "watch": {"every_tokens": 1024, "validation_bytes": 1000},
                 "stages": [{"name": "only", "tokens": 10240, "seq_len": 64, "mixture": {"book": 1.0}}]},
}  # fmt: skip


@pytest.fixture
def web() -> Iterator[Web]:
    with served() as web:
        web.headers = {"ETag": '"1"'}
        web.files = {"/a.txt": TEXT, "/b.txt": TEXT[::-1]}
        yield web
        web.resume.set()


def written(folder: Path, fetch: dict[str, Any], **read: Any) -> Path:
    """The recipe with its source fetched so."""
    recipe = json.loads(json.dumps(RECIPE))
    recipe["sources"]["book"]["fetch"] = fetch
    recipe["sources"]["book"]["read"] = read or recipe["sources"]["book"]["read"]
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def urls(web: Web, *names: str) -> dict[str, Any]:
    return {
        "kind": "urls",
        "urls": [
            {"url": f"{web.address}/{name}", "sha256": hashlib.sha256(web.files[f"/{name}"]).hexdigest()}
            for name in names
        ],
    }


def started(recipe: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, "run", str(recipe), "--until", "fetch/book", "--processes", "1", *options]
    return subprocess.Popen(command, cwd=recipe.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=60)
    return process.returncode, out


def fetched(recipe: Path) -> dict[str, bytes]:
    folder = recipe.parent / "runs" / "mill" / "fetch" / "book" / "files"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_fetch_that_is_killed_or_stopped_at_a_silent_server_resumes_at_its_byte(
    web: Web, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    recipe = written(tmp_path, urls(web, "a.txt"))
    web.faults = ["stall"]
    process = started(recipe)
    assert web.stalled.wait(30)
    time.sleep(0.3)
    process.send_signal(number)
    before = time.monotonic()
    assert finished(process)[0] == code
    assert time.monotonic() - before < 20, "the server is silent for longer"
    web.resume.set()
    assert finished(started(recipe))[0] == 0
    assert fetched(recipe) == {"a.txt": TEXT}
    assert web.asked[-1] == ("/a.txt", f"bytes={len(TEXT) // 2}-")


@pytest.mark.slow
def test_what_is_complete_stays_when_another_file_is_stopped(web: Web, tmp_path: Path) -> None:
    recipe = written(tmp_path, urls(web, "a.txt", "b.txt"))
    web.faults = ["", "stall"]
    process = started(recipe)
    assert web.stalled.wait(30)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    code, out = finished(process)
    assert (code, "Traceback" in out) == (130, False)
    first = {path for path, _ in web.asked}
    web.resume.set()
    web.asked = []
    assert finished(started(recipe))[0] == 0
    assert first == {"/a.txt", "/b.txt"}
    assert len(web.asked) == 1, "only what was not complete is asked for"
    assert fetched(recipe) == {"a.txt": TEXT, "b.txt": TEXT[::-1]}


def test_a_full_disk_is_told_and_a_larger_one_resumes(web: Web, tmp_path: Path) -> None:
    web.files["/a.txt"] = TEXT * 12
    recipe = written(tmp_path, urls(web, "a.txt"))
    (tmp_path / "runs").mkdir()
    run = shlex.join([sys.executable, "-c", MAIN, "run", str(recipe), "--until", "fetch/book", "--processes", "1"])
    script = f"""
        mount -t tmpfs -o size=2m none runs || exit 99
        {run}; echo "first: $?"
        mount -o remount,size=40m runs
        {run}; echo "second: $?"
        sha256sum runs/mill/fetch/book/files/a.txt
    """
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if done.returncode in (1, 99) and "first" not in done.stdout:
        pytest.skip("no file system can be mounted here")
    assert "first: 75" in done.stdout, done.stdout + done.stderr
    assert "the disk is full while writing" in done.stdout + done.stderr
    assert "second: 0" in done.stdout
    assert hashlib.sha256(web.files["/a.txt"]).hexdigest() in done.stdout
    assert web.asked[-1][1].startswith("bytes="), "what fitted is not fetched again"


def test_offline_asks_nothing_and_uses_what_was_fetched(
    web: Web, tmp_path: Path, gristmill: Callable[..., Any]
) -> None:
    recipe = written(tmp_path, urls(web, "a.txt"))
    options = ("--until", "extract/book", "--processes", "1", "--runs-dir", tmp_path / "runs")
    refused = gristmill("run", recipe, *options, "--offline")
    assert (refused.code, web.asked) == (75, [])
    assert "--offline, and not yet fetched: fetch/book.\n  Run once without --offline" in refused.err
    assert gristmill("run", recipe, *options).code == 0
    num_asked = len(web.asked)
    os.remove(tmp_path / "runs" / "mill" / "extract" / "book")
    assert gristmill("run", recipe, *options, "--offline").code == 0
    assert len(web.asked) == num_asked


def test_plan_says_what_is_fetched_from_where_how_large_and_where_it_lies(
    web: Web, tmp_path: Path, gristmill: Callable[..., Any]
) -> None:
    recipe = written(tmp_path, urls(web, "a.txt", "b.txt"))
    options = ("--runs-dir", tmp_path / "runs")

    def said(*more: object) -> str:
        return re.sub(r"\s+", " ", gristmill("plan", recipe, *options, *more).out)

    assert "2 files, 712 kB; will lie in" in said()
    assert {how for _, how in web.asked} == {"HEAD"}
    web.asked = []
    assert "size not known (not asked)" in said("--offline")
    assert web.asked == []
    gristmill("run", recipe, *options, "--until", "fetch/book", "--processes", "1")
    assert "fetched, 2 files, 712 kB, in" in said()
    facts = json.loads(gristmill("plan", recipe, *options, "--json").out)["fetches"]["book"]
    assert (facts["how_known"], facts["num_bytes"], facts["files"]) == ("fetched", 2 * len(TEXT), 2)


def test_sizes_are_not_waited_for(web: Web) -> None:
    section = FetchUrls.model_validate(
        {"kind": "urls", "urls": [{"url": "http://192.0.2.1/x.txt", "sha256": "0" * 64}]}  # RFC 5737: nobody is there
    )
    before = time.monotonic()
    told = ask_sizes({"book": section}, seconds=0.3)["book"]
    assert time.monotonic() - before < 1.5
    assert told.num_bytes is None
    assert told.problem


def test_pages_of_a_crawl_become_documents(web: Web, tmp_path: Path, gristmill: Callable[..., Any]) -> None:
    make_crawl(web, num_pages=9)
    fetch = {"kind": "common_crawl", "crawl": CRAWL, "url": "*.example.org", "max_records": 6, "language": "eng"}
    recipe = written(tmp_path, {**fetch, "index": web.address, "data": web.address}, format="warc", paths=["*.warc.gz"])
    options = ("--until", "extract/book", "--processes", "1", "--runs-dir", tmp_path / "runs")
    done = gristmill("run", recipe, *options)
    assert done.code == 0, done.err
    ledger = Extracted(tmp_path / "runs" / "mill" / "extract" / "book").ledger.source("book")
    assert (ledger.came_in.documents, ledger.total("kept").documents) == (6, 6)
    num_asked = len(web.asked)
    moved = yaml.safe_load(recipe.read_text())
    moved["sources"]["book"]["fetch"]["data"] = "https://mirror.example.org"
    recipe.write_text(yaml.safe_dump(moved))
    assert gristmill("run", recipe, *options).code == 0
    assert len(web.asked) == num_asked, "another mirror fetches nothing again"
    assert len(read_jsonl(tmp_path / "runs" / "mill" / "fetch" / "book" / "records.jsonl")) == 6


def test_pages_of_all_sites_by_the_columnar_index_become_documents(
    web: Web, tmp_path: Path, gristmill: Callable[..., Any]
) -> None:
    lines = make_crawl(web, num_pages=9)
    table = write_table(tmp_path / "table", [{**line, "tld": "de" if n % 3 else "fr"} for n, line in enumerate(lines)])
    fetch = {"kind": "common_crawl", "crawl": CRAWL, "table": table, "tld": "de", "max_records": 5, "data": web.address}
    recipe = written(tmp_path, fetch, format="warc", paths=["*.warc.gz"])
    options = ("--processes", "1", "--runs-dir", tmp_path / "runs")
    assert f"{CRAWL}, at most 5 pages of .de: size not known" in " ".join(
        gristmill("plan", recipe, *options).out.split()
    )
    done = gristmill("run", recipe, *options, "--until", "extract/book")
    assert done.code == 0, done.err
    assert "5 records for hosts below .de, by 2 of 2 pages of the index" in " ".join(done.out.split())
    ledger = Extracted(tmp_path / "runs" / "mill" / "extract" / "book").ledger.source("book")
    assert (ledger.came_in.documents, ledger.total("kept").documents) == (5, 5)
    for wrong, words in (
        ({"url": "*.de"}, "expected one of url"),
        ({"table": None, "url": "*.de"}, "tld is for table"),
    ):
        assert (
            words in gristmill("plan", written(tmp_path, {**fetch, **wrong}, format="warc", paths=["*"]), *options).err
        )


def test_files_of_a_store_are_fetched_and_keep_their_folders(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "deep").mkdir(parents=True)
    for name in ("a.txt", "deep/b.txt", "c.md"):
        (store / name).write_text(f"{name} is a text of the store. " * 200)
    recipe = written(
        tmp_path,
        {"kind": "object_store", "address": f"file://{store}", "files": ["**/*.txt"]},
        format="text",
        paths=["**/*.txt"],
    )
    code, words = finished(started(recipe))
    assert code == 0, words
    files = tmp_path / "runs" / "mill" / "fetch" / "book" / "files"
    assert (files / "deep" / "b.txt").read_bytes() == (store / "deep" / "b.txt").read_bytes()
    assert not (files / "c.md").exists()


def test_files_of_software_heritage_become_documents_and_tables_that_lack_are_told(
    web: Web, tmp_path: Path, gristmill: Callable[..., Any]
) -> None:
    contents = [f"def grind_{n}():\n    return {n}\n".encode() for n in range(3)]
    hashes = [hashlib.sha1(content).hexdigest() for content in contents]
    web.files |= {f"/content/{sha1}": gzip.compress(content) for sha1, content in zip(hashes, contents)}
    fetch = {"kind": "software_heritage", "ids": ["ids/*.txt"], "content": f"{web.address}/content"}
    recipe = written(tmp_path, fetch, format="parquet", paths=["*.parquet"], id_column="blob_id")
    options = ("--processes", "1", "--runs-dir", tmp_path / "runs")
    refused = gristmill("plan", recipe, *options)
    assert refused.code == 2
    assert "sources.book.fetch.ids.0 names" in refused.err
    assert web.asked == []
    (tmp_path / "ids").mkdir()
    (tmp_path / "ids" / "a.txt").write_text("\n".join([*hashes, "0" * 40]))
    done = gristmill("run", recipe, *options, "--until", "extract/book")
    assert done.code == 0, done.err
    out = Extracted(tmp_path / "runs" / "mill" / "extract" / "book")
    texts = {document.id: document.text for path in out.documents for document in read_documents(path)}
    assert texts == {sha1: content.decode() for sha1, content in zip(hashes, contents)}
    assert gristmill("run", recipe, *options, "--until", "extract/book", "--offline").code == 0
    (tmp_path / "ids" / "b.txt").write_text(hashes[0])
    assert gristmill("run", recipe, *options, "--until", "extract/book", "--offline").code == 75, (
        "other ids, other files"
    )


def test_files_of_software_heritage_by_a_table_that_is_fetched_first(
    web: Web, tmp_path: Path, gristmill: Callable[..., Any]
) -> None:
    """As The Stack v2 gives them: a table of ids, with charset, length and repository, somewhere else."""
    texts = [f"# Mühle {n}\n" for n in range(3)]
    rows = []
    for number, text in enumerate(texts):
        content = text.encode("latin-1")
        rows.append({"blob_id": hashlib.sha1(content).hexdigest(), "src_encoding": "ISO-8859-1", "repo_name": f"ada/mill{number}",
                     "length_bytes": len(content)})  # fmt: skip
        web.files[f"/content/{rows[-1]['blob_id']}"] = gzip.compress(content)
    for name, part in (("a", rows[:2]), ("b", rows[2:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / f"{name}.parquet")
        web.files[f"/{name}.parquet"] = (tmp_path / f"{name}.parquet").read_bytes()
    fetch: dict[str, Any] = {"kind": "software_heritage", "content": f"{web.address}/content"}
    read = {"format": "parquet", "paths": ["*.parquet"], "id_column": "blob_id", "repository_column": "repo_name"}
    options = ("--processes", "1", "--runs-dir", tmp_path / "runs")

    here = written(tmp_path, {**fetch, "ids": ["*.parquet"], "max_files": 2}, **read)
    size = sum(row["length_bytes"] for row in rows[:2])
    assert f"the first 2: 2 files, {size} B; will lie in" in " ".join(
        gristmill("plan", here, "--offline", *options).out.split()
    )

    recipe = written(tmp_path, {**fetch, "ids_from": urls(web, "a.parquet", "b.parquet")}, **read)
    planned = " ".join(gristmill("plan", recipe, *options).out.split())
    assert "Software Heritage, the ids of 2 URLs, the first is" in planned
    assert "size not known (the ids are fetched first, 2 files" in planned
    web.faults, web.asked = ["cut", "", "busy", "cut"], []
    done = gristmill("run", recipe, *options, "--until", "extract/book")
    assert done.code == 0, done.err
    out = tmp_path / "runs" / "mill"
    found = [row for path in Extracted(out / "extract/book").documents for row in pq.read_table(path).to_pylist()]
    assert [(row["text"], row["repository"]) for row in found] == [
        (text, f"ada/mill{n}") for n, text in enumerate(texts)
    ]
    origins = json.loads((out / "fetch/book/origins.json").read_text())
    assert {*origins["ids"]} == {"a.parquet", "b.parquet"}
    assert not (out / "fetch/book/ids").exists()
    assert gristmill("run", recipe, *options, "--until", "extract/book", "--offline").code == 0
    both = written(tmp_path, {**fetch, "ids": ["a.parquet"], "ids_from": urls(web, "a.parquet")}, **read)
    assert "expected one of ids" in gristmill("plan", both, *options).err
