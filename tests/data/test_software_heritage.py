"""Files by their hashes from a real server: content that proves itself, text in the charset of the table, a reason for each that lacks."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gristmill.data import software_heritage
from gristmill.data.connection import Connections
from gristmill.data.download import Client
from gristmill.data.id_tables import told_of_tables
from gristmill.data.patience import Patience
from gristmill.data.software_heritage import Blobs, fetch_blobs, hashes_of
from gristmill.errors import DataError, Interrupted
from gristmill.store.jsonl import read_jsonl
from web import Web, served

QUICK = Patience(attempts=4, first_seconds=0.001, most_seconds=0.002, timeout_seconds=0.3)
FILES = {f"src/{n}.py": f"def grind_{n}():\n    return {n}\n".encode() for n in range(6)}


@pytest.fixture(scope="module")
def started() -> Iterator[Web]:
    with served() as web:
        yield web


@pytest.fixture
def web(started: Web) -> Web:
    started.faults, started.asked, started.files, started.headers = [], [], {}, {}
    for content in FILES.values():
        put(started, content)
    return started


def put(web: Web, content: bytes) -> str:
    """Puts a file into both places of the archive; returns its id."""
    sha1, git = hashes_of(content)
    web.files[f"/content/{sha1}"] = gzip.compress(content, mtime=0)
    web.files[f"/api/1/content/sha1_git:{git}/raw/"] = content
    return sha1


def table(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "ids.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def rows_of_files() -> list[dict[str, Any]]:
    return [
        {"blob_id": hashes_of(content)[0], "path": path, "language": "Python", "licenses": ["MIT"], "stars": 3}
        for path, content in FILES.items()
    ]


def fetch(web: Web, ids: Path | list[Path], out: Path, *, stop_after: int | None = None, **keys: Any) -> dict[str, Any]:
    plain = {"id_column": "blob_id", "encoding_column": "src_encoding", "max_files": None, "max_bytes": None}
    blobs = Blobs(
        ids=[ids] if isinstance(ids, Path) else ids,
        content=f"{web.address}/content",
        api=f"{web.address}/api/1",
        **{**plain, **keys},
    )
    out.mkdir(exist_ok=True)

    def should_stop() -> bool:
        return stop_after is not None and len(web.asked) >= stop_after

    with Connections() as connections:
        client = Client(patience=QUICK, connections=connections, should_stop=should_stop)
        return fetch_blobs(client, blobs, out, progress=lambda position: None, say=lambda line: None)


def fetched(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "files").iterdir()) for row in pq.read_table(path).to_pylist()]


def test_rows_of_the_table_get_their_text_in_their_order(web: Web, tmp_path: Path) -> None:
    counts = fetch(web, table(tmp_path, rows_of_files()), tmp_path / "out")
    assert counts == {"blobs": 6, "content_bytes": sum(map(len, FILES.values())), "failed": {}}
    assert [(row["path"], row["text"].encode()) for row in fetched(tmp_path / "out")] == [*FILES.items()]
    assert fetched(tmp_path / "out")[0]["licenses"] == '["MIT"]'
    assert fetched(tmp_path / "out")[0]["stars"] == "3"


@given(content=st.binary(max_size=50))
def test_hashes_are_those_of_sha1_and_of_git(content: bytes) -> None:
    assert hashes_of(content)[0] == hashlib.sha1(content).hexdigest()
    assert hashes_of(content)[1] == hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()


def test_the_hash_of_git_is_that_of_git_itself() -> None:
    done = subprocess.run(["git", "hash-object", "--stdin"], input=b"grist\n", capture_output=True, check=True)
    assert hashes_of(b"grist\n")[1] == done.stdout.decode().strip()


def test_a_swhid_is_asked_of_the_api_and_text_lines_of_ids_do(web: Web, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"swh:1:cnt:{hashes_of(content)[1]}\n" for content in FILES.values()))
    fetch(web, ids, tmp_path / "out")
    assert [row["text"].encode() for row in fetched(tmp_path / "out")] == [*FILES.values()]
    assert all(path.startswith("/api/1/content/sha1_git:") for path, _ in web.asked)


def test_text_is_in_the_charset_that_the_table_gives(web: Web, tmp_path: Path) -> None:
    ids = tmp_path / "ids.jsonl"
    rows = [
        {"blob_id": put(web, "# müßig, käse\n".encode("latin-1")), "src_encoding": "ISO-8859-1"},
        {"blob_id": put(web, "# привет\n".encode("koi8-r")), "src_encoding": "KOI8-R"},
        {"blob_id": put(web, "# grün\n".encode()), "src_encoding": None},
    ]
    ids.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fetch(web, ids, tmp_path / "out")
    assert [row["text"] for row in fetched(tmp_path / "out")] == ["# müßig, käse\n", "# привет\n", "# grün\n"]


def test_each_that_lacks_has_a_reason(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software_heritage, "MAX_BLOB_BYTES", 1_000_000)
    good, other = rows_of_files()[0]["blob_id"], put(web, b"other")
    bomb, damaged, binary = put(web, bytes(5_000_000)), put(web, b"damaged"), put(web, bytes(range(32)) * 9)
    web.files[f"/content/{other}"] = gzip.compress(b"replaced")
    web.files[f"/content/{damaged}"] = web.files[f"/content/{damaged}"][:-3]
    ids = [good, "a" * 40, "not an id", other, bomb, damaged, binary]
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(ids))
    counts = fetch(web, path, tmp_path / "out")
    reasons = {"missing": 1, "not_an_id": 1, "another_content": 2, "too_large": 1, "binary": 1}
    assert (counts["blobs"], counts["failed"]) == (1, reasons)
    [line] = read_jsonl(tmp_path / "out" / "blobs.jsonl")
    assert ["a" * 40, "missing"] in line["failed"]


def test_each_id_that_was_asked_for_is_a_row_or_a_failure_also_if_it_stands_twice(web: Web, tmp_path: Path) -> None:
    good = [row["blob_id"] for row in rows_of_files()]
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(["a" * 40, good[0], "a" * 40, good[0], good[1], good[2]]))
    size = len(next(iter(FILES.values())))
    counts = fetch(web, path, tmp_path / "out", max_bytes=2 * size)
    [line] = read_jsonl(tmp_path / "out" / "blobs.jsonl")
    assert (counts["blobs"], counts["failed"]) == (2, {"missing": 2})
    assert line["asked"] == line["rows"] + len(line["failed"])


def test_no_more_is_fetched_than_is_held_once_max_bytes_is_reached(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software_heritage, "HELD", 2)
    assert (
        fetch(web, table(tmp_path, rows_of_files()), tmp_path / "out", max_bytes=1 + len(FILES["src/0.py"]))["blobs"]
        == 1
    )
    assert len(web.asked) == 2


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_start_after_a_stop_leaves_what_an_unbroken_one_leaves(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    monkeypatch.setattr(software_heritage, "BLOBS_PER_FILE", 2)
    ids = table(tmp_path, rows_of_files())
    fetch(web, ids, tmp_path / "plain")
    web.asked, web.faults = [], ["busy", "cut", "close"]
    with pytest.raises(Interrupted):
        fetch(web, ids, tmp_path / "out", stop_after=stop_after)
    fetch(web, ids, tmp_path / "out")
    both = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "files").iterdir()} for name in ("plain", "out")
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 3


def test_content_may_be_sent_as_packed_by_gzip_and_nothing_else(web: Web, tmp_path: Path) -> None:
    ids = table(tmp_path, rows_of_files())
    web.headers = {"Content-Encoding": "gzip"}
    assert fetch(web, ids, tmp_path / "out")["blobs"] == 6
    web.headers = {"Content-Encoding": "br"}
    with pytest.raises(DataError, match=r"is sent packed \(br\) although"):
        fetch(web, ids, tmp_path / "other")


def test_caps_take_the_first_of_the_table(web: Web, tmp_path: Path) -> None:
    ids, size = table(tmp_path, rows_of_files()), sum(map(len, [*FILES.values()][:2]))
    assert fetch(web, ids, tmp_path / "a", max_files=3)["blobs"] == 3
    assert fetch(web, ids, tmp_path / "b", max_bytes=size)["blobs"] == 2


def test_tables_follow_each_other_and_one_without_ids_is_named(web: Web, tmp_path: Path) -> None:
    rows = rows_of_files()
    paths = [tmp_path / f"{name}.parquet" for name in ("a", "b")]
    pq.write_table(pa.Table.from_pylist(rows[:2]), paths[0])
    pq.write_table(pa.Table.from_pylist(rows[2:]), paths[1])
    assert fetch(web, paths, tmp_path / "out")["blobs"] == 6
    pq.write_table(pa.table({"sha": ["a"]}), paths[1])
    with pytest.raises(DataError, match=r"b\.parquet has no column 'blob_id'"):
        fetch(web, paths, tmp_path / "other")


def test_a_table_without_ids_or_with_hashes_of_git_is_told_what_to_change(web: Web, tmp_path: Path) -> None:
    ids = table(tmp_path, [{"sha": "a" * 40}])
    with pytest.raises(DataError, match="no column 'blob_id'; it has 'sha'"):
        fetch(web, ids, tmp_path / "out")
    git = tmp_path / "git.txt"
    git.write_text(hashes_of(b"grist\n")[1])
    with pytest.raises(DataError, match=r"1 missing\.\n.*write hashes of git as swh:1:cnt"):
        fetch(web, git, tmp_path / "out")


@given(
    lengths=st.lists(st.lists(st.integers(0, 20), max_size=4), min_size=1, max_size=3),
    max_files=st.none() | st.integers(1, 9),
    max_bytes=st.none() | st.integers(1, 60),
)
@hypothesis_settings(max_examples=30, deadline=None)
def test_what_tables_tell_is_what_the_caps_let_through(
    lengths: list[list[int]], max_files: int | None, max_bytes: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, paths = tmp_path_factory.mktemp("ids"), []
    for number, some in enumerate(lengths):
        paths.append(folder / f"{number}.parquet")
        pq.write_table(
            pa.table({"blob_id": ["a" * 40] * len(some), "length_bytes": pa.array(some, pa.int64())}), paths[-1]
        )
    files = size = 0
    for length in [length for some in lengths for length in some][:max_files]:
        if size + length > (max_bytes or 1000):
            break
        files, size = files + 1, size + length
    assert told_of_tables(paths, "blob_id", max_files=max_files, max_bytes=max_bytes) == (files, size)


def test_tables_without_lengths_tell_how_many_ids_they_have(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\n\nb\n")
    ids = table(tmp_path, [{"blob_id": "a", "length_bytes": None}, {"blob_id": "b", "length_bytes": 3}])
    assert told_of_tables([tmp_path / "ids.txt"], "blob_id", max_files=None, max_bytes=None) == (2, None)
    assert told_of_tables([ids], "blob_id", max_files=None, max_bytes=None) == (2, None)
    assert told_of_tables([ids, tmp_path / "ids.txt"], "blob_id", max_files=3, max_bytes=None) == (3, None)


def test_files_in_lists_of_repositories_are_rows_with_the_columns_of_both(web: Web, tmp_path: Path) -> None:
    """As in the-stack-v2-train-smol-ids."""
    files = [{"blob_id": row["blob_id"], "path": row["path"], "length_bytes": 7} for row in rows_of_files()]
    repositories = [
        {"repo_name": "ada/mill", "path": "of the repository", "files": files[:2]},
        {"repo_name": "none/here", "path": "", "files": []},
        {"repo_name": "bob/sail", "path": "", "files": files[2:]},
    ]
    ids = table(tmp_path, repositories)
    assert told_of_tables([ids], "blob_id", max_files=None, max_bytes=None) == (6, 42)
    assert told_of_tables([ids], "blob_id", max_files=3, max_bytes=20) == (2, 14)
    fetch(web, ids, tmp_path / "out", max_files=5)
    found = fetched(tmp_path / "out")
    assert [row["text"].encode() for row in found] == [*FILES.values()][:5]
    assert [(row["path"], row["repo_name"]) for row in found[1:3]] == [
        ("src/1.py", "ada/mill"),
        ("src/2.py", "bob/sail"),
    ]
