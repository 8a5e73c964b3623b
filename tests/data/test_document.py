"""Documents come back from Parquet as they went in, and files are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.document import DOCUMENT_SCHEMA, Document, read_batches, read_documents, shard_path, write_documents
from gristmill.data.write import ShardWriter, write_table
from gristmill.errors import DataError
from gristmill.store.durable import atomic_path

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DOCUMENTS = st.lists(
    st.builds(
        Document,
        id=TEXT,
        source=TEXT,
        text=TEXT,
        license=TEXT,
        origin=TEXT,
        bytes_in=st.integers(0, 2**60),
        url=st.none() | TEXT,
        language=st.none() | TEXT,
        language_score=st.none() | st.floats(0, 1, width=32),
    ),
    max_size=8,
)


@given(DOCUMENTS)
@settings(deadline=None, max_examples=25)
def test_documents_survive_parquet_and_the_same_ones_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, documents: list[Document]
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    first, second = shard_path(folder, 0), shard_path(folder, 1)
    assert write_documents(first, documents) == len(documents)
    write_documents(second, documents)
    assert list(read_documents(first)) == documents
    assert first.read_bytes() == second.read_bytes()


def test_extra_columns_are_left_unread(tmp_path: Path) -> None:
    row = Document(id="a", source="s", text="t", license="MIT", origin="f#0", bytes_in=1)
    table = pa.Table.from_pylist([row.row()], schema=DOCUMENT_SCHEMA).append_column("cluster", pa.array([7]))
    write_table(tmp_path / "x.parquet", table)
    assert list(read_documents(tmp_path / "x.parquet")) == [row]


def test_a_missing_column_is_named_with_those_that_exist(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", pa.table({"body": ["t"]}))
    with pytest.raises(DataError, match=r"x.parquet has no column 'id'.*its columns are 'body'"):
        list(read_documents(tmp_path / "x.parquet"))


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("hello " * 30)
    with pytest.raises(DataError) as told:
        list(read_documents(path))
    what = "Parquet magic bytes not found in footer. Remake or re-download the file."
    assert str(told.value) == f"{path} cannot be read as Parquet: {what}"


def test_an_error_while_writing_leaves_neither_the_file_nor_a_torn_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "x.parquet", DOCUMENT_SCHEMA):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "y") as temporary:
        temporary.write_text(f"half {1 // 0}")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_is_read_a_row_group_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "documents-00000.parquet"
    texts = pa.array([os.urandom(20_000).hex() for _ in range(200)])
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_batches(path, columns=["text"], batch_rows=7)]
    assert len(held) == 40  # a batch never spans two groups
    assert max(held) < path.stat().st_size / 4
