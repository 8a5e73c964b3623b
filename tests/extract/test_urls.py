"""URLs are blocked as datatrove's filter blocks them, apart from case; in a source before anything else; by what the lists say."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.data.lists import Lists, check_list, read_list
from gristmill.data.outside import FileHashes, find_step_files
from gristmill.errors import DataError
from gristmill.extract import extract
from gristmill.extract.outputs import Extracted
from gristmill.extract.urls import URL_REASONS, UrlFilter, host_of, load_url_filter
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.curation import UrlRules

HERE = Path(__file__).parent
LISTS = HERE / "url_lists"


def blocking(lists: Mapping[str, list[str]]) -> UrlFilter:
    return UrlFilter(lambda kind: iter(lists.get(kind, [])))


def reason(asked: UrlFilter, url: str) -> str:
    found = asked.blocks(url)
    return found.reason if found else "-"


def test_every_url_is_decided_as_datatrove_decides_it() -> None:
    ours = UrlFilter(lambda kind: read_list(LISTS / f"{kind}.txt"))
    with (HERE / "urls.tsv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file, delimiter="\t")]
    assert [reason(ours, row["url"]) for row in rows] == [row["decision"] for row in rows]
    assert [reason(ours, row["url"].upper()) for row in rows] == [row["decision"] for row in rows]
    decided = Counter(row["decision"] for row in rows)
    assert len(rows) > 1000
    assert decided.keys() == {"-", *URL_REASONS}
    assert min(decided.values()) >= 10


URLS = st.text() | st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "http://", "HTTPS://", "//"]),
    st.sampled_from(["", "me:pw@", "a@b@"]),
    st.sampled_from(["Example.org", "a.example.org.", "[::1]", "example.org:80", "", "."]),
    st.text(st.sampled_from("/?#@:.a-Z%")),
)


@given(URLS)
@example("http://")
@example("//@:")
@example("\ud800")
def test_any_url_gets_a_verdict_and_lists_of_other_things_block_nothing(url: str) -> None:
    assert blocking({}).blocks(url) is None
    some = {"domains": ["example.org"], "hard_words": ["zz"], "soft_words": ["q", "w"], "substrings": ["zzz"]}
    assert (reason(blocking(some), url) == "blocked_domain") == f".{host_of(url)}".endswith(".example.org")


def test_a_domain_takes_what_is_below_it_along_and_a_host_does_not() -> None:
    asked = blocking({"domains": ["blog.example.org", "192.0.2.7"], "hosts": ["www.example.net"]})
    for url in (
        "http://blog.example.org",
        "http://a.BLOG.example.org/x",
        "https://u@blog.example.org.:80/?",
        "192.0.2.7",
    ):
        assert reason(asked, url) == "blocked_domain"
    for url in (
        "http://example.org",
        "http://myblog.example.org",
        "http://x.com/blog.example.org",
        "http://a.www.example.net",
    ):
        assert reason(asked, url) == "-"
    assert reason(asked, "http://www.example.net/") == "blocked_host"


def test_one_soft_word_passes_however_often_and_two_do_not() -> None:
    asked = blocking({"soft_words": ["free", "linux"]})
    assert asked.blocks("http://example.org/free/free-FREE") is None
    found = asked.blocks("http://example.org/free_Linux")
    assert found is not None
    assert (found.entry, found.value, found.limit) == ("free linux", 2, 1)


# ── in a source ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def run_extract(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import run_extract

    return run_extract


SOURCE = {
    "read": {"format": "jsonl", "paths": ["x.jsonl"], "id_field": "id", "url_field": "url"},
    "rules": {"packs": ["code@1"]},
    "urls": {"domains": ["lists/domains.txt"], "soft_words": ["lists/soft.txt", "more.txt"]},
}


def write(folder: Path) -> None:
    (folder / "lists").mkdir()
    (folder / "lists" / "domains.txt").write_text("bad.example\n")
    (folder / "lists" / "soft.txt").write_text("free\n")
    (folder / "more.txt").write_text("cheap\n")
    urls = {
        "good": "http://good.example",
        "bad": "http://x.bad.example",
        "soft": "http://a.example/free-cheap",
        "none": None,
    }
    lines = [json.dumps({"id": name, "text": "++++", "url": url}) for name, url in urls.items() if name != "good"]
    lines.append(json.dumps({"id": "good", "text": "Some words.", "url": urls["good"]}))
    (folder / "x.jsonl").write_text("\n".join(lines))


def test_urls_are_judged_before_the_text_is_looked_at_and_all_is_counted(tmp_path: Path, run_extract: Any) -> None:
    write(tmp_path)
    said: list[str] = []
    context = run_extract.context(tmp_path, tmp_path / "out", SOURCE, say=said.append)
    counts = extract.run(context)
    assert (counts["documents_in"], counts["documents"]) == (4, 1)
    assert counts["dropped"] == {"blocked_domain": 1, "soft_words_in_url": 1, "too_few_letters_and_digits": 1}
    assert "web: 1 document without a URL, which the lists of URLs let pass" in said
    rows = [
        row
        for path in Extracted(tmp_path / "out").rejected
        for row in extract.read_batches(path, columns=["id", "detail"])
    ]
    details = {row["id"]: row["detail"] for batch in rows for row in batch.to_pylist()}
    assert details["bad"] == "bad.example http://x.bad.example"


def test_the_content_of_lists_is_in_the_identity_and_their_place_is_not(tmp_path: Path, run_extract: Any) -> None:
    write(tmp_path)

    def identity(source: Mapping[str, Any]) -> tuple[Any, Any]:
        recipe = run_extract.recipe({"web": {"license": "MIT", **source}})
        (step,) = [step for step in steps_of(recipe) if step.name == "extract/web"]
        hashes = FileHashes(tmp_path / "hashes.json", threads=1, say=lambda line: None)
        files = find_step_files(step.given, tmp_path, step.name)
        return step.given.config["source"].literals(), {label: hashes.of(found) for label, found in files.items()}

    before = identity(SOURCE)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "domains.txt").write_bytes((tmp_path / "lists" / "domains.txt").read_bytes())
    moved = {**SOURCE, "urls": {**SOURCE["urls"], "domains": ["elsewhere/domains.txt"]}}  # type: ignore[dict-item]
    assert identity(moved) == before
    (tmp_path / "more.txt").write_text("cheap\nnew\n")
    assert identity(SOURCE) != before
    assert "urls" not in identity({"read": SOURCE["read"]})[0]


@pytest.mark.parametrize(
    "entry", ["https://example.org", "*.example.org", "0.0.0.0 example.org", "||example.org^", "a@b.org"]
)
def test_a_list_of_hosts_with_what_is_none_is_refused_since_it_would_match_nothing(entry: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"a.org\n[::1]\nlocalhost\n{entry}\n")
    for kind in ("domains", "hosts"):
        with pytest.raises(DataError, match=r"list.txt has the entry .*, which is no host"):
            check_list(path, kind=kind)
    check_list(path, kind="urls")


def test_the_mark_with_which_some_programs_begin_files_is_no_part_of_the_first_entry(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("example.org\n".encode("utf-8-sig"))
    assert [*read_list(tmp_path / "list.txt")] == ["example.org"]


def test_a_list_that_changes_under_way_and_one_without_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# nothing\n\n")
    with pytest.raises(DataError, match=r"list.txt has no entries; expected one a line"):
        check_list(path, kind="hosts")
    lists = Lists.of({"hosts": [path]})
    assert lists is not None
    path.write_text("example.org\n")
    with pytest.raises(DataError, match=r"list.txt changed while documents were judged by it"):
        load_url_filter(lists)
    with pytest.raises(ValueError, match="names no lists; expected some of domains, hosts"):
        UrlRules()
