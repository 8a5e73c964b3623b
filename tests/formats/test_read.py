"""Readers give each record once, count what they cannot read, and name the file and place."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.record import RawDocument, Unread
from gristmill.formats.code import read_code
from gristmill.formats.html import read_html
from gristmill.formats.jsonl import read_jsonl
from gristmill.formats.text import read_text

Records = Iterator[RawDocument | Unread]


def fates(records: Records) -> list[str]:
    """The text of each document, and "!reason" for what is none."""
    return [item.text or "" if isinstance(item, RawDocument) else f"!{item.reason}" for item in records]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("reader", [read_jsonl, read_text, read_html, read_code])
@given(data=st.binary(max_size=300))
@settings(deadline=None, max_examples=40)
def test_any_bytes_give_records_and_never_an_exception(
    tmp_path_factory: pytest.TempPathFactory, reader: Callable[..., Records], suffix: str, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / f"x{suffix}"
    path.write_bytes(data)
    records = list(reader(path, name="x"))
    assert all(isinstance(item, RawDocument | Unread) and item.bytes_in >= 0 for item in records)
    assert len({item.id for item in records}) == len(records)


@given(
    lines=st.lists(
        st.one_of(
            st.text(max_size=20).map(lambda text: json.dumps({"text": text}).encode()),
            st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
        ),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 300), max_size=3),
    ends_with_newline=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_spans_of_a_jsonl_file_together_give_what_the_whole_gives(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int], ends_with_newline: bool
) -> None:
    data = b"\n".join(lines) + (b"\n" if ends_with_newline else b"")
    path = tmp_path_factory.mktemp("spans") / "x.jsonl"
    path.write_bytes(data)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [item for a, b in itertools.pairwise(bounds) for item in read_jsonl(path, name="x", start=a, end=b)]
    assert parts == list(read_jsonl(path, name="x"))


@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=80),
    split_at=st.sampled_from(["", "a", "#+ ", r"CHAPTER \d+"]),
)
@settings(deadline=None, max_examples=80)
def test_the_pieces_of_a_text_are_the_text(tmp_path_factory: pytest.TempPathFactory, text: str, split_at: str) -> None:
    path = tmp_path_factory.mktemp("text") / "x.txt"
    path.write_bytes(text.encode())
    pieces = [item.text or "" for item in read_text(path, name="x", split_at=split_at) if isinstance(item, RawDocument)]
    assert "".join("".join(pieces).split()) == "".join(text.split())


# ── JSONL ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_bad_line_is_counted_with_its_place_and_the_good_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [
        b'{"text": "one", "id": 7, "url": "http://a.example"}',
        b'{"text": "bro',
        b'{"text": "nan", "id": NaN}',
        b"[1, 2]",
        b'{"body": "x", "id": "b"}',
        b'{"text": "no id"}',
        b'{"text": 5, "id": "c"}',
        b'{"text": "null id", "id": null}',
        b"",
        b'{"text": "\xff", "id": "d"}',
        b"[" * 100_000,
        b'{"text": "last", "id": "e"}',
    ]
    path.write_bytes(b"\n".join(lines))
    records = list(read_jsonl(path, name="x", id_field="id", url_field="url"))
    assert fates(iter(records)) == [
        "one", "!bad_json", "!bad_json", "!bad_json", "!missing_field", "!missing_field", "!field_is_not_text",
        "!missing_field", "!bad_json", "!bad_json", "last",
    ]  # fmt: skip
    first, *_, last = records
    assert isinstance(first, RawDocument)
    assert isinstance(last, RawDocument)
    assert (first.id, first.url, first.origin, first.bytes_in) == ("7", "http://a.example", "x#0", len(lines[0]) + 1)
    assert (last.id, last.origin) == ("e", f"x#{len(path.read_bytes()) - len(lines[-1])}")
    details = [item.detail for item in records if isinstance(item, Unread)]
    assert details[1] == "NaN is not JSON"
    assert details[3] == "no 'text'; the line has 'body', 'id'"


def test_a_span_in_the_middle_of_a_large_file_is_entered_without_reading_what_comes_before(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    before = 1 << 40
    with path.open("wb") as file:  # a terabyte of nothing, which takes no room on the disk
        file.seek(before)
        file.write(b'\n{"text": "a"}\n{"text": "b"}\n')
    found = list(read_jsonl(path, name="x", start=before, end=before + 10))
    assert [(item.id, item.text) for item in found if isinstance(item, RawDocument)] == [(f"x#{before + 1}", "a")]


def test_a_line_above_the_limit_is_skipped_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + b"x" * 3_000_000 + b'\n{"text": "b"}\n')
    assert fates(read_jsonl(path, name="x", max_bytes=1000)) == ["a", "!line_too_large", "b"]


def test_a_cut_gzip_file_gives_what_came_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % number for number in range(50_000)))
    path.write_bytes(whole[: len(whole) // 2])
    *texts, last = fates(read_jsonl(path, name="x"))
    assert last == "!corrupt_gzip"
    assert texts == [str(number) for number in range(len(texts))]
    assert len(texts) > 1000


# ── text, HTML ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_book_is_cut_into_chapters_plain_or_packed(tmp_path: Path) -> None:
    book = "Title\n\nChapter 1\nOne.\nChapter 2\nTwo. See Chapter 1.\n"
    (tmp_path / "b.txt").write_text(book)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(book.encode()))
    for file in ("b.txt", "b.txt.gz"):
        records = list(read_text(tmp_path / file, name="b", split_at=r"^Chapter \d+$"))
        assert fates(iter(records)) == ["Title\n\n", "Chapter 1\nOne.\n", "Chapter 2\nTwo. See Chapter 1.\n"]
        assert [(item.id, item.origin) for item in records] == [("b#0", "b#0"), ("b#1", "b#7"), ("b#2", "b#22")]
        assert sum(item.bytes_in for item in records) == len(book)
    assert fates(read_text(tmp_path / "b.txt", name="b")) == [book]


def test_a_text_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(bytes(3_000_000)))
    assert fates(read_text(tmp_path / "b.txt.gz", name="b", max_file_bytes=1_000_000)) == ["!file_too_large"]


def test_an_html_file_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text("<html>b")
    (record,) = read_html(tmp_path / "b.html", name="pages/b.html")
    assert (record.id, record.payload) == ("pages/b.html", b"<html>b")
    assert [
        item.reason for item in read_html(tmp_path / "b.html", name="p", max_bytes=5) if isinstance(item, Unread)
    ] == [
        "file_too_large",
    ]
