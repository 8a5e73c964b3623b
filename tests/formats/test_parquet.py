"""Parquet: rows are those that pyarrow wrote, bytes those of the text column; damage costs the rows behind it."""

from __future__ import annotations

import datetime
import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounting import num_bytes, read_whole, settings, texts
from gristmill.data.record import RawDocument, Unread
from gristmill.errors import DataError
from gristmill.formats.format import Span
from gristmill.formats.parquet import FORMAT, read_parquet
from gristmill.formats.row_groups import RowGroups


def cut(path: Path, *bounds: int, alone: bool = False) -> list[Span]:
    return [Span(path=path, name="x", start=a, end=b, size=1, alone=alone) for a, b in itertools.pairwise(bounds)]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    rows=st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)), max_size=40),
    group_rows=st.integers(1, 9),
    dictionary=st.booleans(),
    page_bytes=st.sampled_from([1, 1 << 20]),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
    at=st.lists(st.integers(0, 40), max_size=3),
    alone=st.booleans(),
)
@hypothesis_settings(deadline=None, max_examples=120)
def test_rows_and_bytes_are_those_of_the_table_for_any_spans(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[str | None],
    group_rows: int,
    dictionary: bool,
    page_bytes: int,
    kind: pa.DataType,
    at: list[int],
    alone: bool,
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    table = pa.table({"text": pa.array(rows, pa.string()).cast(kind)})
    pq.write_table(table, path, row_group_size=group_rows, use_dictionary=dictionary, data_page_size=page_bytes)
    groups = pq.ParquetFile(path).num_row_groups
    found = read_whole("parquet", path, spans=cut(path, 0, *sorted(min(c, groups) for c in at), groups, alone=alone))
    assert texts(found) == ["!field_is_not_text" if row is None else row for row in rows]
    assert num_bytes(found) == (pc.sum(pc.binary_length(pa.array(rows, pa.string()))).as_py() or 0)
    assert [item.origin for item in found if not hasattr(item, "num_bytes")] == [f"x#{row}" for row in range(len(rows))]
    entries = [item.entry for item in found if isinstance(item, RawDocument | Unread)]
    assert entries == [row // group_rows if row % group_rows == 0 else None for row in range(len(rows))]


@given(seed=st.integers(0, 1 << 32), dictionary=st.booleans(), checksums=st.booleans())
@hypothesis_settings(deadline=None, max_examples=60)
def test_bytes_add_up_whatever_is_flipped_behind_the_magic_and_before_the_footer(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dictionary: bool, checksums: bool
) -> None:
    path, noise = tmp_path_factory.mktemp("any") / "x.parquet", random.Random(seed)
    rows = [noise.randbytes(noise.randrange(300)).hex() for _ in range(60)]
    options: dict[str, Any] = {"row_group_size": 20, "use_dictionary": dictionary, "write_page_checksum": checksums}
    pq.write_table(pa.table({"text": rows}), path, data_page_size=2000, write_batch_size=4, **options)
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(noise.randrange(1, 4)):
        data[noise.randrange(4, footer)] ^= 1 << noise.randrange(8)
    path.write_bytes(bytes(data))
    found = read_whole("parquet", path)
    assert len(found) == len(rows)
    if checksums:
        assert all(text in (row, "!corrupt_row_group") for text, row in zip(texts(found), rows, strict=True))


# ── columns and values ───────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_nulls_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"body": ["a", None, "c"], "key": [1, 2, None]}), path, row_group_size=1)
    assert texts(read_whole("parquet", path, text_column="body")) == ["a", "!field_is_not_text", "c"]
    with_keys = list(read_parquet(path, name="x", text_column="body", id_column="key"))
    assert [item.id for item in with_keys] == ["1", "x#1", "x#2"]
    assert [item.reason for item in with_keys if isinstance(item, Unread)] == ["field_is_not_text", "missing_field"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([["a", "b"], ["c"]]), 0),
        (pa.array([b"abc", b"\xff"], pa.binary()), 4),
        (pa.array([b"abcd", b"\xff123"], pa.binary(4)), 8),
        (pa.array([1.5, None]), 0),
        (pa.array([253402300800 + 10**9] * 2, pa.int64()).cast(pa.timestamp("s")), 0),
        (pa.array([{"a": "x"}, {"a": "y"}]), 0),
    ],
)
def test_what_is_no_text_is_counted_row_by_row(tmp_path: Path, values: pa.Array, expected: int) -> None:
    pq.write_table(pa.table({"text": values}), tmp_path / "x.parquet")
    found = read_whole("parquet", tmp_path / "x.parquet")
    assert texts(found) == ["!field_is_not_text"] * 2
    assert num_bytes(found) == expected


def test_a_row_that_is_not_utf8_costs_itself(tmp_path: Path) -> None:
    offsets, data = (
        pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 3, 6, 9))),
        pa.py_buffer(b"abc\xff\xfe\xfdxyz"),
    )
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, data])
    for dictionary in (False, True):
        pq.write_table(pa.table({"text": column}), tmp_path / "x.parquet", use_dictionary=dictionary)
        found = read_whole("parquet", tmp_path / "x.parquet")
        assert texts(found) == ["abc", "!bad_utf8", "xyz"]
        assert num_bytes(found) == 9


def test_ids_that_python_has_no_value_for_are_missing(tmp_path: Path) -> None:
    far = pa.array([253402300800 + 10**9, 0], pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["a", "b"], "id": far}), tmp_path / "x.parquet")
    first, second = read_whole("parquet", tmp_path / "x.parquet", id_column="id")
    assert isinstance(first, Unread)
    assert first.reason == "missing_field"
    assert isinstance(second, RawDocument)
    assert second.id == str(datetime.datetime(1970, 1, 1))


def test_a_row_above_the_limit_is_counted_with_its_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "é" * 50, "b"]}), tmp_path / "x.parquet")
    found = list(read_parquet(tmp_path / "x.parquet", name="x", max_bytes=99))
    assert texts(found) == ["a", "!row_too_large", "b"]
    assert num_bytes(found) == 102


# ── files that are lost ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_column_costs_the_file_one_reason_and_names_the_columns_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"body": ["a", "b"], "key": [1, 2]}), path, row_group_size=1)
    (record,) = read_whole("parquet", path, spans=cut(path, 0, 1, 2))
    assert isinstance(record, Unread)
    assert (record.reason, record.bytes_in) == ("missing_column", path.stat().st_size)
    assert record.detail == "no 'text'; its columns are 'body', 'key'"


def test_the_repository_of_a_row_is_that_of_its_column(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "repo_name": ["ada/mill", None, ""], "stars": [1, 2, 3]}), path)
    found = [
        record
        for record in read_parquet(path, name="t", repository_column="repo_name")
        if isinstance(record, RawDocument)
    ]
    assert [record.repository for record in found] == ["ada/mill", None, None]
    [missing] = read_parquet(path, name="t", repository_column="repo")
    assert isinstance(missing, Unread)
    assert (missing.reason, "'repo'" in missing.detail) == ("missing_column", True)
    numbers = [
        record for record in read_parquet(path, name="t", repository_column="stars") if isinstance(record, RawDocument)
    ]
    assert [record.repository for record in numbers] == [None, None, None]


@pytest.mark.parametrize("data", [b"", b"PAR1 but no more", b"x" * 5000])
def test_what_is_not_parquet_costs_one_reason(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    (record,) = read_whole("parquet", tmp_path / "x.parquet", limit=100)
    assert isinstance(record, Unread)
    assert (record.id, record.reason, record.bytes_in) == ("x#0", "corrupt_file", len(data))


def test_a_column_whose_name_is_no_utf8_costs_the_file_one_reason(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "QQQQ": [1]}), tmp_path / "x.parquet", store_schema=False)
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data.replace(b"QQQQ", b"Q\x8b\xff\xfe"))
    assert texts(read_whole("parquet", tmp_path / "x.parquet", limit=10)) == ["!corrupt_file"]


def test_a_lack_of_memory_while_a_file_is_opened_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: Any, **__: Any) -> None:
        raise pa.ArrowMemoryError("malloc of size 3072000000 failed")

    monkeypatch.setattr(pq, "ParquetFile", hungry)
    with pytest.raises(MemoryError):
        list(read_parquet(tmp_path / "x.parquet", name="x"))


def test_a_file_cut_off_anywhere_costs_one_reason(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["some text"] * 50}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "x.parquet").write_bytes(whole[:length])
        assert texts(read_whole("parquet", tmp_path / "x.parquet")) == ["!corrupt_file"]


# ── damage within ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_damaged_page_costs_the_rows_of_its_group_from_there_on(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = [random.Random(number).randbytes(500).hex() for number in range(60)]
    options: dict[str, Any] = {"row_group_size": 20, "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(
        pa.table({"text": rows}), path, compression="zstd", data_page_size=3000, write_batch_size=3, **options
    )
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 3000] = bytes(3000)  # more than the head of a page, which repeats some values
    path.write_bytes(bytes(data))
    found = read_whole("parquet", path)
    lost = texts(found).index("!corrupt_row_group")
    assert 20 < lost < 35, "rows before the damage are read"
    assert texts(found) == [*rows[:lost], *["!corrupt_row_group"] * (40 - lost), *rows[40:]]
    assert num_bytes(found) == sum(map(len, [*rows[:lost], *rows[40:]]))


def test_a_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "x.parquet")
    whole = RowGroups._batches

    def hungry(self: RowGroups, group: int, at_once: int) -> Any:
        if at_once > 1:
            raise pa.ArrowMemoryError("malloc of size 3072000000 failed")
        return whole(self, group, at_once)

    monkeypatch.setattr(RowGroups, "_batches", hungry)
    span = Span(path=tmp_path / "x.parquet", name="x", size=1)
    with pytest.raises(MemoryError):
        list(FORMAT.read(span, settings("parquet")))
    alone = Span(path=span.path, name="x", size=1, alone=True)
    assert texts(FORMAT.read(alone, settings("parquet"))) == ["a", "b", "c"]


def test_the_next_entry_is_the_next_row_group_of_the_span(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), path, row_group_size=1)
    whole, part = Span(path=path, name="x", size=1), Span(path=path, name="x", size=1, end=2)
    assert [FORMAT.next_entry(whole, entry) for entry in range(3)] == [1, 2, None]
    assert [FORMAT.next_entry(part, entry) for entry in range(2)] == [1, None]


def test_the_first_rows_are_shown_with_all_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a.b": ["x", "x", "y"], "n": [1, None, 3]}), path)
    assert FORMAT.peek(path, num_rows=2) == [{"a.b": "x", "n": 1}, {"a.b": "x", "n": None}]
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert FORMAT.peek(path, num_rows=2) == []
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        FORMAT.peek(path, num_rows=2)


READ_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from gristmill.formats.format import Span
from gristmill.formats.parquet import FORMAT
from gristmill.recipe.schema.formats import ReadParquet
read = ReadParquet(format="parquet", paths=["x"])
span = Span(path=Path(sys.argv[1]), name="x", size=1)
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[2]), -1))
print(sum(record.bytes_in for record in FORMAT.read(span, read)), FORMAT.content(span, read).num_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("dictionary", [True, False])
def test_large_values_are_read_in_bounded_memory(tmp_path: Path, dictionary: bool) -> None:
    value, rows = "z" * 1_500_000, 256
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))
    table = pa.table({"text": column if dictionary else column.cast(pa.large_string())})
    options: dict[str, Any] = {"store_schema": False, "use_dictionary": dictionary, "write_batch_size": 16}
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd", **options)
    command = [sys.executable, "-c", READ_UNDER_A_LIMIT, str(tmp_path / "x.parquet"), str(200_000_000)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(len(value) * rows)] * 2, done.stderr


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(["é", None]),
        pa.array(["é", "x"], pa.large_string()),
        pa.array(["é", "x"], pa.string_view()),
        pa.array([b"ab", b""], pa.binary_view()),
        pa.array(["é", "é", None]).dictionary_encode(),
        pa.array(["é"], pa.large_string()).dictionary_encode(),
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])),
        pa.ExtensionArray.from_storage(pa.json_(pa.large_string()), pa.array(['{"a": 1}'], pa.large_string())),
        pa.ExtensionArray.from_storage(pa.json_(pa.string_view()), pa.array(['{"a": 1}'], pa.string_view())),
        pa.array([b"abcd"], pa.binary(4)),
        pa.array([["a"]]),
        pa.nulls(3),
    ],
    ids=lambda texts: str(texts.type),
)
def test_strings_of_every_arrow_type_are_read_and_accounted_for(tmp_path: Path, texts: pa.Array) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": texts}), path)
    assert len(read_whole("parquet", path)) == len(texts)
