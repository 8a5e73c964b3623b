"""CSV: what Python's and pyarrow's own readers find is found, with the place of each row; bad rows are counted."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole, reasons, texts
from gristmill.data.record import RawDocument, Skip, Unread
from gristmill.formats.csv import FORMAT, delimiter_of, read_csv

FIELD = st.text(alphabet='ab ,"\n\té;', max_size=8)


def table(rows: list[list[str]], *, delimiter: str = ",") -> bytes:
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return written.getvalue().encode()


@given(rows=st.lists(st.tuples(FIELD, FIELD).map(list), max_size=8), packed=st.booleans(), tabs=st.booleans())
@settings(deadline=None, max_examples=60)
def test_rows_are_those_of_pyarrow_and_every_byte_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], packed: bool, tabs: bool
) -> None:
    data = table([["key", "text"], *rows], delimiter="\t" if tabs else ",")
    path = tmp_path_factory.mktemp("any") / f"x.{'tsv' if tabs else 'csv'}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(data) if packed else data)
    records = list(read_csv(path, name="x"))
    options = pyarrow.csv.ParseOptions(delimiter="\t" if tabs else ",", newlines_in_values=True)
    convert = pyarrow.csv.ConvertOptions(column_types={"key": "string", "text": "string"}, strings_can_be_null=False)
    peer = pyarrow.csv.read_csv(io.BytesIO(data), parse_options=options, convert_options=convert)
    found = [record for record in records if isinstance(record, RawDocument)]
    assert [record.text for record in found] == peer.column("text").to_pylist() == [text for _, text in rows]
    assert sum(record.num_bytes if isinstance(record, Skip) else record.bytes_in for record in records) == len(data)
    for record in found:
        offset = int(record.origin.partition("#")[2])
        assert next(csv.reader([data[offset : offset + record.bytes_in].decode()], delimiter="\t" if tabs else ","))
    assert [row["text"] for row in FORMAT.peek(path, num_rows=3)] == [text for _, text in rows[:3]]


def test_each_bad_row_is_counted_and_the_good_ones_are_read(tmp_path: Path) -> None:
    rows = [
        b"\xef\xbb\xbfid,text\n",
        "1,gööd\n".encode(),
        b"\n",
        b"2,a,b\n",
        b"3,\xff\n",
        b",none\n",
        b'4,"two\nlines"\n',
    ]
    (tmp_path / "x.csv").write_bytes(b"".join([*rows, b'5,"' + b"x" * 90 + b"\n", b"6,last\n", b'7,"open\n']))
    records = list(read_csv(tmp_path / "x.csv", name="x", id_column="id", max_bytes=60))
    fates = [item.text if isinstance(item, RawDocument) else f"!{item.reason}" for item in records]
    assert fates == [
        "!column_names", "gööd", "!blank_line", "!bad_csv", "!bad_csv", "!missing_field", "two\nlines", "!row_too_large", "last",
        "!bad_csv",
    ]  # fmt: skip
    assert sum(one.num_bytes if isinstance(one, Skip) else one.bytes_in for one in records) == (
        (tmp_path / "x.csv").stat().st_size
    )


@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.text("abc ,;|\té", max_size=30)), min_size=2, max_size=30),
    delimiter=st.sampled_from(",;|\t"),
    suffix=st.sampled_from([".csv", ".tsv"]),
    asked=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_any_delimiter_is_told_by_the_column_that_is_asked_for(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]], delimiter: str, suffix: str, asked: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / f"x{suffix}"
    path.write_bytes(table([["key", "body"], *([str(key), body] for key, body in rows)], delimiter=delimiter))
    bodies = [body for _, body in rows]
    assert texts(read_whole("csv", path, text_column="body")) == bodies
    assert [row["body"] for row in FORMAT.peek(path, num_rows=len(rows))] == bodies
    if sum(map(len, bodies)) > len(bodies):
        assert texts(read_whole("csv", path, text_column=None)) == bodies


def test_a_table_of_one_column_has_no_delimiter_and_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text\n" + "some words; and more of them\n" * 5)
    with pytest.raises(csv.Error):
        csv.Sniffer().sniff((tmp_path / "x.csv").read_text())
    assert delimiter_of(tmp_path / "x.csv") == ","
    assert len(read_whole("csv", tmp_path / "x.csv")) == 6


def test_a_table_without_names_is_read_by_place(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("\n1;first text\n2;second text\n")
    found = read_whole("csv", tmp_path / "x.csv", text_column="column2", id_column="column1")
    assert texts(found) == ["first text", "second text"]
    assert [item.id for item in found if isinstance(item, RawDocument)] == ["1", "2"]
    assert FORMAT.peek(tmp_path / "x.csv", num_rows=1) == [{"column1": "1", "column2": "first text"}]
    assert FORMAT.told(tmp_path / "x.csv") == "separated by semicolons, without names"
    assert reasons(read_whole("csv", tmp_path / "x.csv", text_column="column3")) == {"missing_column": 1}
    for head in ("id,column2", "id,body"):
        (tmp_path / "y.csv").write_text(f"{head}\n1,a\n")
        assert texts(read_whole("csv", tmp_path / "y.csv", text_column="column2")) == ["a"]


@pytest.mark.parametrize(
    ("charset", "word"),
    [("cp1252", "Brücke – „früh“"), ("koi8-r", "мельник шёл к реке"), ("cp932", "水車小屋の男は朝早く川へ")],
)
def test_a_table_in_another_charset_is_read_in_it(tmp_path: Path, charset: str, word: str) -> None:
    (tmp_path / "x.csv").write_bytes(table([["text"], *[[f"{word} {n}"] for n in range(20)]]).decode().encode(charset))
    assert texts(read_whole("csv", tmp_path / "x.csv")) == [f"{word} {n}" for n in range(20)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_names_of_columns_are_of_the_charset_of_the_table_too(tmp_path: Path, delimiter: str) -> None:
    written = table([["Nr", "Übersicht"], ["1", "Das ist ein Satz mit Wörtern."]], delimiter=delimiter)
    (tmp_path / "x.csv").write_bytes(written.decode().encode("cp1252"))
    assert texts(read_whole("csv", tmp_path / "x.csv", text_column="Übersicht")) == ["Das ist ein Satz mit Wörtern."]


def test_a_missing_column_costs_the_file_one_reason_and_names_the_columns_that_exist(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,body\n1,a\n")
    (record,) = read_whole("csv", tmp_path / "x.csv")
    assert isinstance(record, Unread)
    assert (record.reason, record.detail) == ("missing_column", "no 'text'; its columns are 'id', 'body'")


def test_a_table_without_names_costs_the_file_one_reason(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'"open\n1,a\n')
    assert texts(read_whole("csv", tmp_path / "x.csv")) == ["!no_column_names"]


def test_blank_lines_are_passed_over_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\n\r\ntext,id\n" + b"\n" * 1000 + b"a,1\r\n\r\n \n,\nb,2\n\n")
    found = read_whole("csv", tmp_path / "x.csv")
    assert texts(found) == ["a", "!bad_csv", "", "b"]
    (tmp_path / "x.csv").write_bytes(b"\n\n")
    assert reasons(read_whole("csv", tmp_path / "x.csv")) == {"blank_line": 1}


def test_a_cut_gzip_file_gives_what_came_before_the_cut(tmp_path: Path) -> None:
    rows = [[f"row {number} {number**5}"] for number in range(5000)]
    data = gzip.compress(table([["text"], *rows]))
    (tmp_path / "x.csv.gz").write_bytes(data[: len(data) // 2])
    *good, last = read_whole("csv", tmp_path / "x.csv.gz")
    assert texts(good) == [row[0] for row in rows[: len(good) - 1]]
    assert len(good) > 1000
    assert isinstance(last, Unread)
    assert last.reason == "corrupt_gzip"


def test_no_row_is_glued_over_a_damaged_member(tmp_path: Path) -> None:
    parts = [
        table([["text", "id"], ["a", "1"], ["b", "2"]]),
        b'"c c c c c c c c","3"\r\n' * 40,
        b'"d","4"\r\n"e","5"\r\n',
    ]
    first, middle, last = map(gzip.compress, parts)
    damaged = bytearray(middle)
    damaged[len(middle) // 2] ^= 0xFF
    (tmp_path / "x.csv.gz").write_bytes(first + bytes(damaged) + last)
    found = read_whole("csv", tmp_path / "x.csv.gz")
    rows = [text for text in texts(found) if not text.startswith("!")]
    assert set(rows) <= {"a", "b", "c c c c c c c c", "d", "e"}
    assert rows[:2] == ["a", "b"]
    assert rows[-1] == "e"
    assert reasons(found)["corrupt_gzip"] == 1
