"""Text and HTML: the pieces of a file are the file."""

from __future__ import annotations

import codecs
import gzip
import itertools
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import num_bytes, read_whole, reasons, texts
from gristmill.data.passages import record_id
from gristmill.data.record import RawDocument, Unread, clean_text
from gristmill.formats.html import read_html
from gristmill.formats.text import read_text


@given(
    text=st.one_of(
        st.text(
            st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\r\t", exclude_characters="\ufeff"),
            max_size=80,
        ),
        st.lists(st.sampled_from(["a", "é", "\n", "\r\n", "\r", "# ", "CHAPTER 1", "\U0001f600"]), max_size=20).map(
            "".join
        ),
    ),
    split_at=st.sampled_from(["", "a", "#+ ", r"CHAPTER \d+"]),
    mark=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_the_pieces_of_a_text_are_the_text_each_at_its_place(
    tmp_path_factory: pytest.TempPathFactory, text: str, split_at: str, mark: bool
) -> None:
    path = tmp_path_factory.mktemp("text") / "x.txt"
    data = text.encode("utf-8-sig" if mark else "utf-8")
    path.write_bytes(data)
    found = read_whole("text", path, split_at=split_at)
    pieces = [item for item in found if isinstance(item, RawDocument)]
    assert "".join("".join(item.text or "" for item in pieces).split()) == "".join(text.split())
    for item in pieces:
        offset = int(item.origin.partition("#")[2])
        assert clean_text(data[offset : offset + item.bytes_in].decode("utf-8-sig")) == item.text
    assert num_bytes(found) == len(data)


@given(data=st.binary(max_size=120), split_at=st.sampled_from([None, "", "a", "\\w"]), packed=st.booleans())
@settings(deadline=None, max_examples=150)
def test_pieces_add_up_to_the_bytes_of_any_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, split_at: str | None, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("text") / f"x.txt{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(data) if packed else data)
    found = read_whole("text", path, split_at=split_at)
    assert len({item.id for item in found if isinstance(item, RawDocument | Unread)}) == sum(
        isinstance(item, RawDocument | Unread) for item in found
    )
    assert all(record.bytes_in >= 0 for record in found if isinstance(record, RawDocument))


@given(
    words=st.lists(st.sampled_from(["word ", "é", "\n", "\n\n", "\r\n", "\r", "# ", "本。", "    x"]), max_size=150),
    split_at=st.sampled_from([None, "#"]),
    charset=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@settings(deadline=None, max_examples=150)
def test_passages_of_a_file_are_the_file_each_with_its_bytes_place_and_name(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], split_at: str | None, charset: str
) -> None:
    path, text = tmp_path_factory.mktemp("text") / "x.txt", "".join(words)
    path.write_bytes(text.encode(charset))
    found = [*read_text(path, name="x.txt", split_at=split_at, passage_chars=20)]
    pieces = [item for item in found if isinstance(item, RawDocument)]
    assert num_bytes(found) == path.stat().st_size
    if pieces and charset.startswith("utf-8"):
        assert "".join("".join(item.text or "" for item in pieces).split()) == "".join(text.split())
    assert len({item.id for item in pieces}) == len(pieces)
    whole = {item.id for item in read_text(path, name="x.txt", split_at=split_at) if isinstance(item, RawDocument)}
    assert {record_id(item.id) if item.is_passage else item.id for item in pieces} == whole
    if split_at is None:
        assert [item.id for item in pieces] == (
            ["x.txt"] if len(found) == 1 else [f"x.txt#{number}" for number in range(len(found))]
        )
        assert all(item.is_passage == (len(pieces) > 1) for item in pieces)
    if charset == "utf-8":
        for item in pieces:
            offset = int(item.origin.partition("#")[2])
            assert clean_text(path.read_bytes()[offset : offset + item.bytes_in].decode()) == item.text


@pytest.mark.parametrize("charset", ["utf-16", "cp1252", "koi8-r"])
def test_pieces_of_other_charsets_share_the_bytes_of_the_file(tmp_path: Path, charset: str) -> None:
    text = "глава один\nслова слова\nглава два\nслова\n" if charset != "cp1252" else "café un\nmots\ncafé deux\nmots\n"
    (tmp_path / "x.txt").write_bytes(text.encode(charset))
    found = read_whole("text", tmp_path / "x.txt", split_at="глава|café")
    assert len(found) == 2
    assert num_bytes(found) == len(text.encode(charset))


@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
@pytest.mark.parametrize("passage_chars", [None, 1000])
def test_line_ends_change_neither_pieces_nor_passages(tmp_path: Path, line_end: str, passage_chars: int | None) -> None:
    book = "---\n" + "\n\n---\n".join(f"Part {n}.\n\n" + f"Words of part {n}.\n\n" * 90 for n in range(5))
    found = []
    for end in ("\n", line_end):
        (tmp_path / "b.txt").write_bytes(book.replace("\n", end).encode())
        found.append(texts(read_whole("text", tmp_path / "b.txt", split_at="---$", passage_chars=passage_chars)))
    assert found[0] == found[1]
    assert len(found[0]) > 4


def test_a_book_is_cut_into_chapters_plain_or_packed(tmp_path: Path) -> None:
    book = "Title\n\nChapter 1\nOne.\nChapter 2\nTwo. See Chapter 1.\n"
    (tmp_path / "b.txt").write_text(book)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(book.encode()))
    for file in ("b.txt", "b.txt.gz"):
        records = read_whole("text", tmp_path / file, split_at=r"^Chapter \d+$")
        assert texts(records) == ["Title\n\n", "Chapter 1\nOne.\n", "Chapter 2\nTwo. See Chapter 1.\n"]
        documents = [item for item in records if isinstance(item, RawDocument)]
        assert [(item.id, item.origin) for item in documents] == [("x#0", "x#0"), ("x#1", "x#7"), ("x#2", "x#22")]
    assert texts(read_text(tmp_path / "b.txt", name="b")) == [book]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_above_the_limit_is_refused_with_all_its_bytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"b.txt{suffix}"
    path.write_bytes(gzip.compress(bytes(3_000_000)) if suffix else bytes(3_000_000))
    found = list(read_text(path, name="b", max_file_bytes=1_000_000))
    assert texts(found) == ["!file_too_large"]
    assert num_bytes(found) == 3_000_000


def test_lines_beside_a_damaged_stretch_are_lost_with_it_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [b"line %d of the text\n" % number for number in range(400)]
    first, second, third = (
        gzip.compress(b"".join(lines[a:b]) + extra)
        for a, b, extra in ((0, 100, b"a ha"), (100, 200, b""), (200, 400, b""))
    )
    damaged = bytearray(second)
    damaged[-6] ^= 0xFF
    (tmp_path / "x.txt.gz").write_bytes(first + bytes(damaged) + third)
    found = read_whole("text", tmp_path / "x.txt.gz")
    documents = [item.text or "" for item in found if isinstance(item, RawDocument)]
    assert [item.id for item in found if isinstance(item, RawDocument)] == ["x", "x#1"]
    assert documents[0] == b"".join([*lines[:100], b"a ha", *lines[100:200]]).decode()
    assert documents[1] == b"".join(lines[201:]).decode()
    assert reasons(found) == {"corrupt_gzip": 1}


@given(
    cuts=st.lists(st.integers(0, 400), min_size=1, max_size=4),
    lines=st.lists(st.text("ab é\n", max_size=9), max_size=9),
)
@settings(deadline=None, max_examples=100)
def test_no_document_is_glued_over_a_gap(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], lines: list[str]
) -> None:
    data = "\n".join(lines).encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    path = tmp_path_factory.mktemp("gaps") / "x.txt.gz"
    path.write_bytes(b"\0junk\0".join(gzip.compress(data[a:b]) for a, b in itertools.pairwise(bounds)))
    for split_at in (None, "a"):
        for item in read_whole("text", path, split_at=split_at):
            if isinstance(item, RawDocument):
                start = int(item.origin.partition("#")[2])
                assert not any(start < bound < start + item.bytes_in for bound in bounds[1:-1])
                assert clean_text(data[start : start + item.bytes_in].decode()) == item.text


WORDS = {
    "utf-8": "Der Müller ging früh am Morgen über die Brücke.",
    "utf-8-sig": "Der Müller ging früh am Morgen über die Brücke.",
    "utf-16-le": "Der Müller ging früh am Morgen über die Brücke, 水車.",
    "utf-16-be": "Мельник рано утром шёл к реке, где старое колесо стояло с осени.",
    "utf-16": "Der Müller ging früh am Morgen über die Brücke, 水車.",
    "cp1252": "Der Müller ging „früh“ am Morgen über die Brücke – für 3 €.",
    "latin-1": "Le meunier était déjà parti à la rivière, où l'été finissait.",
    "shift_jis": "水車小屋の男は朝早く川へ歩いて行った。橋の上には誰もいなかった。",
    "koi8-r": "Мельник рано утром шёл к реке, где старое колесо стояло с осени.",
}


@pytest.mark.parametrize("charset", WORDS)
def test_words_in_any_charset_are_read_right(tmp_path: Path, charset: str) -> None:
    (tmp_path / "x.txt").write_bytes((f"{WORDS[charset]}\n" * 9).encode(charset))
    assert texts(read_whole("text", tmp_path / "x.txt")) == [f"{WORDS[charset]}\n" * 9]


@pytest.mark.parametrize(
    "data",
    [
        bytes(5000),
        random.Random(1).randbytes(200_000),
        b"%PDF-1.7\n" + b"words " * 100,
        ("words of a text\0" * 99).encode("utf-16-le"),
        ("水車小屋の男は朝早く川へ歩いて行った。" * 99).encode("utf-16-le"),
        codecs.BOM_UTF16_LE + ("\1\2 words" * 99).encode("utf-16-le"),
        codecs.BOM_UTF32_LE + ("words " * 99).encode("utf-32-le"),
        b"\x7fELF\2\1\1" + bytes(9) + random.Random(2).randbytes(3000),
        zlib.compress(b"".join(b"line %d\n" % n**3 for n in range(9000))),
    ],
)
def test_what_is_no_text_is_a_reason_whatever_it_is_called(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    assert texts(read_whole("text", tmp_path / "x.txt", split_at="a")) == ["!binary_file"]


@pytest.mark.parametrize("data", [b"words " * 99 + b"\0", b"N\bNA\bAM\bME\bE\n", b"\x1b[1mwords\x1b[0m"])
def test_a_stray_byte_and_marks_of_printers_and_terminals_are_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    assert texts(read_whole("text", tmp_path / "x.txt")) == [data.decode()]


def test_an_html_file_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text("<html>b")
    (record,) = read_html(tmp_path / "b.html", name="pages/b.html")
    assert isinstance(record, RawDocument)
    assert (record.id, record.payload) == ("pages/b.html", b"<html>b")
    assert reasons(read_html(tmp_path / "b.html", name="p", max_bytes=5)) == {"file_too_large": 1}
    assert reasons(read_html(tmp_path / "none.html", name="p")) == {"unreadable_file": 1}
