"""Archives: a member gives what the file would give, in a ZIP as in a tar; what ends a process costs one member."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounting import read_whole
from gristmill.data.document import read_documents
from gristmill.data.record import RawDocument, Record, Skip, Unread
from gristmill.extract.curate import Settings
from gristmill.extract.outputs import Extracted
from gristmill.extract.shard import Shard, extract_shard
from gristmill.formats.format import Span, format_named
from gristmill.recipe.schema.formats import READERS, reader_of
from gristmill.store.durable import read_json
from hostile.books import zipped
from hostile.pages import pdf_bomb, pdf_of_itself, sound
from mutations import FILES, epub_file

SUFFIXES = {"jsonl": ".jsonl", "csv": ".csv", "text": ".txt", "html": ".html", "warc": ".warc", "epub": ".epub", "docx": ".docx",
            "pdf": ".pdf", "parquet": ".parquet"}  # fmt: skip


def tarred(members: dict[str, bytes]) -> bytes:
    """A tar archive."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as opened:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return written.getvalue()


def archived(form: str, members: dict[str, bytes]) -> bytes:
    """An archive of a form."""
    if form == "zip":
        return zipped(dict(members))
    return tarred(members) if form == "tar" else gzip.compress(tarred(members))


def plain(records: list[Record]) -> list[Record]:
    """Documents and losses, wherever they were."""
    return [replace(record, entry=None) for record in records if not isinstance(record, Skip)]


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
@given(seed=st.integers(0, 1 << 20), kinds=st.lists(st.sampled_from([*SUFFIXES]), min_size=1, max_size=5))
@hypothesis_settings(deadline=None, max_examples=15)
def test_a_member_gives_what_the_file_gives(
    tmp_path_factory: pytest.TempPathFactory, form: str, seed: int, kinds: list[str]
) -> None:
    folder, noise = tmp_path_factory.mktemp("archive"), random.Random(seed)
    members = {f"{n}{SUFFIXES[kind]}": FILES[kind](noise) for n, kind in enumerate(kinds)}
    (folder / "x.any").write_bytes(archived(form, members))
    wanted: list[Record] = []
    for (name, data), kind in zip(members.items(), kinds):
        (folder / name).write_bytes(data)
        span = Span(path=folder / name, name=f"x#{name}", size=len(data))
        keys = {"text_column": None} if kind == "csv" else {}
        read = READERS[kind].model_validate({"format": kind, "paths": ["x"], **keys})
        alone = list(format_named(kind).read(span, read))
        wanted += (
            alone
            if plain(alone)
            else [Unread(id=span.name, origin=span.name, bytes_in=0, kind="dropped", reason="no_records")]
        )
    assert plain(read_whole("archive", folder / "x.any")) == plain(wanted)
    assert plain(read_whole("archive", folder / "x.any", limit=40)) == plain(wanted), "in spans"


def test_each_member_can_be_entered(tmp_path: Path) -> None:
    members = {
        "a.jsonl": b'\n\n{"text": "1"}\n{"text": "2"}\n',
        "b.csv": b"text\n",
        "c.txt": b"3",
        "d.xyz": b"4",
        "e.txt": b"5",
    }
    format, read = format_named("archive"), READERS["archive"].model_validate({"format": "archive", "paths": ["x"]})
    for form in ("zip", "tar"):
        path = tmp_path / f"x.{form}"
        path.write_bytes(archived(form, members))
        span = Span(path=path, name="x", size=path.stat().st_size)
        whole = list(format.read(span, read))
        entries = [record.entry for record in whole if not isinstance(record, Skip) and record.entry is not None]
        assert entries == [0, 1, 2, 3, 4]
        assert [format.next_entry(span, entry) for entry in entries] == [1, 2, 3, 4, None]
        parts = [replace(span, start=k, end=k + 1 if k < 4 else None) for k in entries]
        assert plain(read_whole("archive", path, spans=parts)) == plain(whole)


def test_tables_are_read_by_the_column_that_the_recipe_names(tmp_path: Path) -> None:
    written = io.BytesIO()
    pq.write_table(pa.table({"body": ["two"]}), written)
    members = {"a.jsonl": b'{"body": "one"}\n', "b.parquet": written.getvalue(), "c.csv": b"body\nthree\n"}
    (tmp_path / "x.zip").write_bytes(zipped(dict(members)))
    found = read_whole("archive", tmp_path / "x.zip", text_column="body")
    assert [record.text for record in found if isinstance(record, RawDocument)] == ["one", "two", "three"]
    (tmp_path / "y.zip").write_bytes(zipped({"a.jsonl": b'{"text": "one"}\n', "c.csv": b"n,words\n1,a long text\n"}))
    found = read_whole("archive", tmp_path / "y.zip")
    assert [record.text for record in found if isinstance(record, RawDocument)] == ["one", "a long text"]


def test_source_files_keep_their_language_and_license(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zipped({"a/b.py": "# SPDX-License-Identifier: MIT\nprint()\n"}))
    (found,) = plain(read_whole("archive", tmp_path / "x.zip"))
    assert isinstance(found, RawDocument)
    assert (found.id, found.language, found.license) == ("x#a/b.py", "python", "MIT")


def test_a_tar_whose_last_member_is_a_zip_is_a_tar(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tarred({"a.txt": b"words", "b.epub": epub_file(random.Random(1))}))
    assert plain(read_whole("archive", tmp_path / "x.tar"))[0].id == "x#a.txt"


def test_nothing_is_left_of_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "x.zip").write_bytes(zipped({"../a.txt": "words", "b.txt": "words"}))
    read = READERS["archive"].model_validate({"format": "archive", "paths": ["x"]})
    records = format_named("archive").read(Span(path=tmp_path / "x.zip", name="x", size=1), read)
    next(records)
    assert os.listdir(tmp_path / "tmp") == []
    assert sorted(os.listdir(tmp_path)) == ["tmp", "x.zip"]


def test_an_archive_is_known_by_its_suffix() -> None:
    assert [reader_of(name) for name in ("a.zip", "a.tar", "a.tgz", "a.tar.gz")] == [READERS["archive"]] * 4


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_member_that_never_ends_or_eats_memory_costs_itself(tmp_path: Path, form: str) -> None:
    hostile = (pdf_bomb if form == "zip" else pdf_of_itself)(tmp_path)
    members = {"a.txt": b"before", "b.pdf": hostile.read_bytes(), "c.pdf": sound("behind"), "d.txt": b"last"}
    path = tmp_path / f"x.{form}"
    path.write_bytes(archived(form, members))
    rules = Settings(
        source="s", read=READERS["archive"].model_validate({"format": "archive", "paths": ["x"]}), extractor="resiliparse",
        keep_maths=True, deadline_seconds=1.0, max_memory_mb=300, max_failed=1.0, min_language_scores=None, packs=(),
        off=frozenset(), limits={}, redact=frozenset(),
    )  # fmt: skip
    shard = Shard(number=0, spans=(Span(path=path, name=path.name, size=path.stat().st_size),), out=tmp_path / "out")
    shard.out.mkdir()
    assert extract_shard(rules, shard) == 3
    assert [one.text for file in Extracted(shard.out).documents for one in read_documents(file)] == [
        "before",
        "behind",
        "last",
    ]
    source = read_json(shard.record_path)["sources"]["s"]
    (reason,) = source["failed"]
    assert reason in ("timeout", "out_of_memory", "killed:SIGABRT", "killed:SIGTRAP", "killed:SIGSEGV", "killed:SIGILL")
    assert source["in"]["documents"] == 4
