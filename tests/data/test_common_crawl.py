"""Pages out of a crawl on a real server that cuts, is busy and lies: the same WARC files whatever happens, and a reason for the rest."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crawl import CRAWL, make_crawl, page_html, serve_index, write_table
from gristmill.data import common_crawl
from gristmill.data.common_crawl import Wish, fetch_crawl, what_is_wrong
from gristmill.data.connection import Connections
from gristmill.data.crawl_index import Query
from gristmill.data.crawl_table import Table
from gristmill.data.download import Client
from gristmill.data.patience import Patience, UnreachableError
from gristmill.data.record import RawDocument
from gristmill.errors import DataError, Interrupted
from gristmill.formats.warc import read_warc
from gristmill.store.jsonl import read_jsonl
from web import FAULTS, Web, served

QUICK = Patience(attempts=5, first_seconds=0.001, most_seconds=0.002, timeout_seconds=0.3)
PAGES = 9


@pytest.fixture(scope="module")
def started() -> Iterator[Web]:
    with served() as web:
        yield web


@pytest.fixture
def web(started: Web) -> Web:
    started.faults, started.asked, started.connections = [], [], 0
    started.lines = make_crawl(started, num_pages=PAGES)
    return started


def fetch(web: Web, out: Path, *, stop_after: int | None = None, **keys: Any) -> dict[str, Any]:
    """stop_after: answers of the server until somebody asks to stop."""
    query = {
        "index": web.address,
        "crawl": CRAWL,
        "url": "*.example.org",
        "mime": "text/html",
        "language": "eng",
        "status": 200,
    }
    query |= {key: keys.pop(key) for key in [*keys] if key in query}
    caps = {"max_records": 100, "max_bytes": None, **keys}
    if (table := caps.pop("table", None)) is not None:
        del query["index"], query["url"]
        query |= {"address": table, "tld": caps.pop("tld", None), "max_records": caps["max_records"]}
    asked: Query | Table = Query(**query) if table is None else Table(**query)  # type: ignore[arg-type]
    wish = Wish(query=asked, data=web.address, **caps)
    out.mkdir(exist_ok=True)

    def should_stop() -> bool:
        return stop_after is not None and len(web.asked) >= stop_after

    with Connections() as connections:
        client = Client(patience=QUICK, connections=connections, should_stop=should_stop)
        return fetch_crawl(client, wish, out, progress=lambda position: None, say=lambda line: None)


def archive_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "files").iterdir())}


def documents(out: Path) -> list[RawDocument]:
    found = [record for path in sorted((out / "files").iterdir()) for record in read_warc(path, name=path.name)]
    assert all(isinstance(record, RawDocument) for record in found), "only pages are in the files"
    return [record for record in found if isinstance(record, RawDocument)]


def test_every_page_that_the_index_finds_is_a_document_and_its_place_is_recorded(web: Web, tmp_path: Path) -> None:
    counts = fetch(web, tmp_path)
    assert counts["records"] == PAGES
    assert {document.url for document in documents(tmp_path)} == {f"https://example.org/{n:03}" for n in range(PAGES)}
    files = archive_bytes(tmp_path)
    for row in read_jsonl(tmp_path / "records.jsonl"):
        member = files[row["file"]][row["at"] : row["at"] + row["num_bytes"]]
        assert member == web.files[f"/{row['archive']}"][row["offset"] : row["offset"] + row["num_bytes"]]
        assert page_html(int(row["url"][-3:])) in gzip.decompress(member)


def test_neighbours_are_asked_for_at_once_by_one_connection_that_says_who_asks(web: Web, tmp_path: Path) -> None:
    counts = fetch(web, tmp_path)
    ranges = [span for _, span in web.asked if span]
    assert len(ranges) == 2, "one for each archive"
    assert counts["overhead_bytes"] > 0
    assert web.connections == 1
    assert web.agents == {"gristmill"}


def test_a_connection_that_the_other_side_closed_while_it_waited_is_no_failure(web: Web, tmp_path: Path) -> None:
    web.faults = ["leave"] * 6
    with Connections() as connections:
        client = Client(patience=Patience(attempts=1, timeout_seconds=5), connections=connections)
        path = next(iter(web.files))
        for _ in range(4):
            assert client.read(f"{web.address}{path}", max_bytes=10**6) == web.files[path]
    assert web.connections == 4


def test_caps_take_the_first_pages_in_the_order_of_the_index(web: Web, tmp_path: Path) -> None:
    assert fetch(web, tmp_path / "a", max_records=3)["records"] == 3
    assert sorted(document.url or "" for document in documents(tmp_path / "a")) == [
        f"https://example.org/{n:03}" for n in range(3)
    ]
    assert len([path for path, span in web.asked if not span]) == 2, "the number of pages, and the first page alone"
    size = sum(row["num_bytes"] for row in read_jsonl(tmp_path / "a" / "records.jsonl"))
    assert fetch(web, tmp_path / "b", max_bytes=size)["records"] == 3
    assert archive_bytes(tmp_path / "a") == archive_bytes(tmp_path / "b")


def test_files_are_of_a_bounded_size(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_crawl, "FILE_BYTES", 1000)
    fetch(web, tmp_path)
    files = archive_bytes(tmp_path)
    assert len(files) > 2
    assert len(documents(tmp_path)) == PAGES


@given(faults=st.lists(st.sampled_from(("", *FAULTS)), max_size=5), stop_after=st.integers(1, 8) | st.none())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_fails_and_wherever_it_is_stopped_the_files_are_the_same(
    web: Web, tmp_path_factory: pytest.TempPathFactory, faults: list[str], stop_after: int | None
) -> None:
    out = tmp_path_factory.mktemp("x")
    web.faults, web.asked = [*faults], []
    with contextlib.suppress(Interrupted, UnreachableError):
        fetch(web, out, stop_after=stop_after)
    web.faults = []
    assert fetch(web, out)["records"] == PAGES
    members = (row for row in sorted(web.lines, key=lambda row: (row["filename"], int(row["offset"]))))
    expected = b"".join(
        web.files[f"/{row['filename']}"][int(row["offset"]) : int(row["offset"]) + int(row["length"])]
        for row in members
    )
    assert archive_bytes(out) == {f"{CRAWL}-00000.warc.gz": expected}


@pytest.mark.parametrize("torn", [1, 40, 300])
def test_what_a_kill_tore_is_written_again(web: Web, tmp_path: Path, torn: int) -> None:
    fetch(web, tmp_path / "plain")
    fetch(web, tmp_path / "torn")
    log = tmp_path / "torn" / "records.jsonl"
    log.write_bytes(log.read_bytes()[:-torn])
    [last] = [*(tmp_path / "torn" / "files").iterdir()]
    last.write_bytes(last.read_bytes()[:-1] + b"?" * 50)
    (tmp_path / "torn" / "files" / "left.tmp").write_bytes(b"x")
    fetch(web, tmp_path / "torn")
    assert archive_bytes(tmp_path / "torn") == archive_bytes(tmp_path / "plain")


def test_an_index_that_changes_later_changes_nothing_of_what_was_chosen(web: Web, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fetch(web, tmp_path, stop_after=5)
    serve_index(web, [])
    assert fetch(web, tmp_path)["records"] == PAGES


def test_lines_that_do_not_fit_or_lie_outside_are_counted_and_not_followed(web: Web, tmp_path: Path) -> None:
    lines = make_crawl(web, num_pages=3)
    strange: list[dict[str, Any]] = [
        {**lines[0], "filename": "../../etc/passwd.warc.gz"},
        {**lines[0], "filename": "http://elsewhere/x.warc.gz"},
        {**lines[0], "offset": "-5"},
        {**lines[0], "length": "99999999999"},
        {**lines[0], "url": 7},
        {"message": "hello"},
        {**lines[0], "languages": "deu"},
        {**lines[0], "status": "404"},
        lines[1],
    ]
    answer = "".join(json.dumps(line) + "\n" for line in [*lines, *strange]) + "[1]\n{torn"
    web.pages[f"/{CRAWL}-index"] = lambda query: b'{"pages": 1}' if "showNumPages" in query else answer.encode()
    counts = fetch(web, tmp_path)
    assert counts["index_lines"] == {"chosen": 3, "bad_index_line": 8, "not_asked_for": 2, "repeated": 1}
    assert all(path.startswith(("/crawl-data/", f"/{CRAWL}-index")) for path, _ in web.asked)


def test_a_record_that_is_not_there_or_not_the_page_is_a_counted_failure(web: Web, tmp_path: Path) -> None:
    lines = make_crawl(web, num_pages=8)
    first = {key: lines[0][key] for key in ("filename", "offset", "length")}
    lines[1] = {**lines[1], **first, "offset": str(int(first["offset"]) + 1)}
    lines[2] = {**lines[2], "filename": "crawl-data/gone.warc.gz"}
    lines[3] = {**lines[3], "offset": "99999999"}
    lines[4] = {**lines[4], "length": str(int(lines[4]["length"]) + 9)}
    lines[5] = {**lines[5], "url": "https://example.org/other"}
    serve_index(web, lines)
    counts = fetch(web, tmp_path)
    assert counts["failed"] == {
        "missing": 1,
        "not_a_gzip_member": 1,
        "not_one_gzip_member": 1,
        "of_another_url": 1,
        "outside_of_archive": 1,
    }
    assert len(documents(tmp_path)) == counts["records"] == 3
    reasons = [row["failed"] for row in read_jsonl(tmp_path / "records.jsonl") if "failed" in row]
    assert len(reasons) == 5


def test_a_host_that_refuses_all_from_some_range_on_loses_nothing(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common_crawl, "RANGE_BYTES", 1)  # one record a range
    fetch(web, tmp_path / "plain")
    monkeypatch.setattr(common_crawl, "HOPELESS", 3)
    asked = len(web.asked)
    web.faults = [*[""] * (asked - PAGES + 2), "refuse", *[""] * 2, *["refuse"] * 3]
    out = tmp_path / "refused"
    with pytest.raises(UnreachableError, match="answers 403, 3 times in a row, after 8 records"):
        fetch(web, out)
    assert [row.get("failed") for row in read_jsonl(out / "records.jsonl")][2] == "refused"
    web.faults = []
    assert fetch(web, out)["failed"] == {"refused": 1}
    assert len(documents(out)) == PAGES - 1


def test_a_host_that_sends_whole_archives_is_not_read(web: Web, tmp_path: Path) -> None:
    web.faults = ["", "", "", "", *["ignores ranges"] * 2]
    with pytest.raises(DataError, match="none of 9 records could be fetched: 9 other_answer"):
        fetch(web, tmp_path)


def test_a_query_that_finds_nothing_is_told_with_the_address_that_was_asked(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)nothing for '\*.example.org' that fits.*languages%3Afra"):
        fetch(web, tmp_path / "a", language="fra")
    serve_index(web, [])
    with pytest.raises(DataError, match="has no page like"):
        fetch(web, tmp_path / "b")


def test_a_member_that_unpacks_to_more_than_a_page_may_have_is_refused_early() -> None:
    bomb = gzip.compress(b"WARC/1.0\r\n" + bytes(65_000_000), mtime=0)
    assert what_is_wrong(bomb, url="", num_bytes=len(bomb)) == "too_large"


@given(data=st.binary(max_size=200), packed=st.booleans())
def test_any_bytes_get_a_verdict(data: bytes, packed: bool) -> None:
    member = zlib.compress(data, wbits=31) if packed else data
    assert what_is_wrong(member, url="https://example.org/", num_bytes=len(member)) is not None


# ── by the columnar index ────────────────────────────────────────────────────────────────────────────────────────────


def test_both_indexes_bring_the_same_files(web: Web, tmp_path: Path) -> None:
    table = write_table(tmp_path / "table", web.lines)
    counts = [fetch(web, tmp_path / "cdx"), fetch(web, tmp_path / "columns", table=table)]
    assert counts[0] == counts[1]
    assert archive_bytes(tmp_path / "cdx") == archive_bytes(tmp_path / "columns")
    rows = [[*read_jsonl(tmp_path / name / "records.jsonl")] for name in ("cdx", "columns")]
    assert rows[0] == rows[1]


LINES = st.fixed_dictionaries(
    {
        "tld": st.sampled_from(["de", "fr", "org"]),
        "languages": st.sampled_from(["deu", "deu,eng", "eng", "", "fra,deu"]),
        "status": st.sampled_from(["200", "200", "404"]),
        "mime-detected": st.sampled_from(["text/html", "text/html", "text/plain"]),
    }
)


@given(
    told=st.lists(LINES, min_size=PAGES, max_size=PAGES),
    tld=st.none() | st.sampled_from(["de", "org"]),
    language=st.none() | st.sampled_from(["deu", "eng"]),
    mime=st.none() | st.just("text/html"),
    max_records=st.integers(1, 6),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_first_rows_that_fit_are_chosen_however_the_table_is_cut(
    web: Web,
    tmp_path_factory: pytest.TempPathFactory,
    told: list[dict[str, str]],
    tld: str | None,
    language: str | None,
    mime: str | None,
    max_records: int,
    shape: tuple[int, int],
) -> None:
    lines = sorted(({**line, **more} for line, more in zip(web.lines, told)), key=lambda line: line["tld"])
    folder = tmp_path_factory.mktemp("table")
    write_table(folder, lines, files=shape[0], rows_per_group=shape[1])
    fitting = [
        line["url"]
        for line in lines
        if tld in (None, line["tld"])
        and (language is None or language in line["languages"].split(","))
        and mime in (None, line["mime-detected"])
        and line["status"] == "200"
    ]
    table = Table(
        address=folder.as_uri(), crawl=CRAWL, tld=tld, language=language, mime=mime, status=200, max_records=max_records
    )
    pages = [table.page_of(Client(), page) for page in range(table.num_pages(Client()))]
    assert [place.url for places, _ in pages for place in places][:max_records] == fitting[:max_records]
    assert max(len(places) for places, _ in pages) <= max_records
    if len(fitting) < max_records:
        assert sum(len(places) + sum(passed.values()) for places, passed in pages) == PAGES, "each row has a fate"


def test_a_table_that_is_stopped_resumes_and_what_is_no_place_is_counted(web: Web, tmp_path: Path) -> None:
    lines = [{**line, "filename": "../secret"} if number == 3 else line for number, line in enumerate(web.lines)]
    table = write_table(tmp_path / "table", lines, files=3)
    with pytest.raises(Interrupted):
        fetch(web, tmp_path / "out", table=table, stop_after=1)
    counts = fetch(web, tmp_path / "out", table=table)
    assert counts["records"] == PAGES - 1
    assert counts["index_lines"] == {"chosen": PAGES - 1, "bad_index_line": 1}


def test_a_table_that_is_none_is_told(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"subset=warc has no \.parquet files\. Look at the crawl's name"):
        fetch(web, tmp_path / "out", table=tmp_path.as_uri())
    table = write_table(tmp_path / "table", web.lines, files=1)
    with pytest.raises(DataError, match=r"has nothing for hosts below \.de in eng that fits: 9 not_asked_for"):
        fetch(web, tmp_path / "out", table=table, tld="de")
    [part] = (tmp_path / "table").rglob("*.parquet")
    pq.write_table(pa.table({"url": ["a"]}), part)
    with pytest.raises(DataError, match=r"has no column url_host_tld, .*: it is no index of a crawl"):
        fetch(web, tmp_path / "other", table=table)
    part.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="is not a Parquet file"):
        fetch(web, tmp_path / "damaged", table=table)
