"""Tables, JSON and mail in UTF-16, or with line ends of CR alone, are what they are in UTF-8 with LF; their bytes are those of the file."""

from __future__ import annotations

import codecs
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import num_bytes, read_whole, texts
from gristmill.data.record import RawDocument, Skip
from gristmill.formats.format import format_named
from gristmill.formats.open_text import in_bytes_of_file

TEXT = st.text(st.sampled_from('aé"\\,[]{}\n𝄞中 '), min_size=1, max_size=9).map(lambda text: f"x{text}")


def table(rows: list[str]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows([["id", "text"], *([str(n), row] for n, row in enumerate(rows))])
    return written.getvalue()


WRITERS = {
    "csv": table,
    "json": lambda rows: json.dumps([{"text": row} for row in rows], ensure_ascii=False),
    "jsonl": lambda rows: "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows),
}


@pytest.mark.parametrize("kind", WRITERS)
@given(
    rows=st.lists(TEXT, max_size=8),
    codec=st.sampled_from(["utf-16-le", "utf-16-be"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
@settings(deadline=None, max_examples=60)
def test_utf16_is_read_as_utf8_is(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rows: list[str], codec: str, mark: str
) -> None:
    path = tmp_path_factory.mktemp("any") / f"x.{kind}"
    path.write_bytes((mark + WRITERS[kind](rows)).encode(codec))
    assert texts(read_whole(kind, path, limit=7)) == rows
    assert [row["text"] for row in format_named(kind).peek(path, num_rows=100)] == rows


@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("kind", [*WRITERS, "mbox"])
def test_carriage_returns_alone_end_lines(kind: str, codec: str, tmp_path: Path) -> None:
    rows = [f"words of {number}" for number in range(9)]
    mail = "".join(f"From a@b.c Thu Jan  1 00:00:00 1970\nSubject: {row}\n\nText.\n\n" for row in rows)
    path, found = tmp_path / f"x.{kind}", {}
    for end in ("\n", "\r"):
        written = mail if kind == "mbox" else WRITERS[kind](rows).replace("\r\n", "\n")
        path.write_bytes(written.replace("\n", end).encode(codec))
        found[end] = read_whole(kind, path, limit=100)
    assert found["\r"] == found["\n"]
    assert len(texts(found["\r"])) == len(rows)


def test_a_stray_carriage_return_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"id,text\n1,one\rtwo\n2,three\n")
    found = [one for one in read_whole("csv", tmp_path / "x.csv") if not isinstance(one, Skip)]
    assert texts(found) == ["!bad_csv", "three"]
    assert "carriage return" in found[0].detail


def test_what_a_reader_passes_over_is_missing_in_the_bytes_of_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes("\ufeffone\ntwo\n".encode("utf-16-le"))
    half = [RawDocument(id="a", origin="x#0", bytes_in=4, text="one")]
    assert num_bytes(in_bytes_of_file(half, path)) == path.stat().st_size // 2
    path.write_bytes(codecs.BOM_UTF16_LE)
    assert num_bytes(in_bytes_of_file([], path)) == 2
    path.write_bytes(b"\x1f\x8b\x08\n\n\0")  # a packed file, cut off, that would be text in UTF-16
    assert texts(read_whole("json", path)) == ["!corrupt_gzip"]


@pytest.mark.parametrize("kind", WRITERS)
def test_damage_costs_what_it_touches(kind: str, tmp_path: Path) -> None:
    whole = ("\ufeff" + WRITERS[kind](["one", "two"])).encode("utf-16-le")
    for cut in range(2, len(whole)):
        (tmp_path / "x").write_bytes(whole[:cut])
        read_whole(kind, tmp_path / "x")  # bytes add up
    (tmp_path / "x").write_bytes(whole.replace("two".encode("utf-16-le"), b"t\0\x00\xd8o\0"))
    assert texts(read_whole(kind, tmp_path / "x")) == ["one", "t\ufffdo"]
