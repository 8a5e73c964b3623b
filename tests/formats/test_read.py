"""Readers give each record once, count what they cannot read, and name the file and place."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


# ── text, HTML, code ─────────────────────────────────────────────────────────────────────────────────────────────────


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


def tree() -> dict[str, bytes]:
    return {
        "src/a.py": b"print(1)\n",
        "src/b.c": b"int main;\n",
        "src/c.bin.py": b"\0\1",
        "readme.xyz": b"hello",
        "big.py": b"x" * 2000,
    }


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as opened:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_a_source_tree_as_folder_or_archive(tmp_path: Path, packed: bool) -> None:
    for name, data in tree().items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    (tmp_path / "tree" / "link.py").symlink_to("/etc/passwd")
    path = archive(tmp_path / "t.tar.gz", tree()) if packed else tmp_path / "tree"
    found: dict[str, Any] = {item.id: item for item in read_code(path, name="t", max_bytes=1000)}
    assert set(found) == {f"t#{name}" for name in tree()}
    assert (found["t#src/a.py"].text, found["t#src/a.py"].language) == ("print(1)\n", "python")
    assert found["t#src/b.c"].language == "c"
    assert (found["t#src/c.bin.py"].kind, found["t#src/c.bin.py"].reason) == ("dropped", "binary_file")
    assert (found["t#readme.xyz"].kind, found["t#readme.xyz"].reason) == ("dropped", "other_extension")
    assert (found["t#big.py"].kind, found["t#big.py"].reason, found["t#big.py"].bytes_in) == (
        "failed",
        "file_too_large",
        2000,
    )
    only_c = [item.id for item in read_code(path, name="t", extensions=[".c"]) if isinstance(item, RawDocument)]
    assert only_c == ["t#src/b.c"]


def test_a_source_file_is_read_as_one_even_if_it_is_called_like_an_archive(tmp_path: Path) -> None:
    (tmp_path / "tarfile.py").write_text("print(1)\n", encoding="utf-8")
    (record,) = read_code(tmp_path / "tarfile.py", name="lib/tarfile.py")
    assert isinstance(record, RawDocument)
    assert (record.id, record.text, record.language) == ("lib/tarfile.py#0", "print(1)\n", "python")
    (dropped,) = read_code(tmp_path / "tarfile.py", name="lib/tarfile.py", extensions=[".c"])
    assert isinstance(dropped, Unread)
    assert dropped.reason == "other_extension"


@pytest.mark.parametrize(
    ("head", "license"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        (
            "/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */\n",
            "GPL-2.0-only WITH Linux-syscall-note",
        ),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0-->\r\n", "CC-BY-4.0"),
        (
            "//SPDX-License-Identifier:\t(LGPL-2.1+ OR (MIT AND BSD-3-Clause))\r\n",
            "(LGPL-2.1+ OR (MIT AND BSD-3-Clause))",
        ),
        ("\n" * 19 + "# SPDX-License-Identifier: MIT\n", "MIT"),
        ("\n" * 20 + "# SPDX-License-Identifier: MIT\n", None),
        ("# SPDX-License-Identifier:\n# MIT\n", None),
        ("# Licensed under the MIT licence.\n", None),
    ],
)
def test_a_source_file_keeps_the_licence_it_states_itself(tmp_path: Path, head: str, license: str | None) -> None:
    (tmp_path / "a.py").write_text(f"{head}print(1)\n", encoding="utf-8", newline="")
    (record,) = read_code(tmp_path / "a.py", name="a.py")
    assert isinstance(record, RawDocument)
    assert record.license == license


def test_a_cut_archive_gives_its_files_and_says_so(tmp_path: Path) -> None:
    noise = random.Random(1)
    files = {f"{number}.py": noise.randbytes(3000).hex().encode() for number in range(20)}
    path = archive(tmp_path / "t.tar.gz", files)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    records = list(read_code(path, name="t"))
    assert [item.reason for item in records if isinstance(item, Unread)] == ["corrupt_archive"]
    assert 5 < len(records) < 15
