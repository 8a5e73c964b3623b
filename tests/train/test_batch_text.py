"""The documents that a step reads are found by number and by id, over files and row groups of any sizes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.train.batch_text import Files


def written(folder: Path, sizes: list[int], group: int) -> Files:
    """Files of so many documents, `group` to a row group; every third document has the id of the one before it."""
    paths, first = [], 0
    for number, size in enumerate(sizes):
        numbers = range(first, first + size)
        table = pa.table(
            {
                "id": pa.array([name(one) for one in numbers], pa.string()),
                "origin": pa.array([f"file {one}" for one in numbers], pa.string()),
                "url": pa.array([None] * size, pa.string()),
            }
        )
        paths.append(folder / f"train-{number:05d}.parquet")
        pq.write_table(table, paths[-1], row_group_size=group)
        first += size
    return Files(paths)


def name(number: int) -> str:
    return f"id {number - (number % 3 == 2)}"


@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), max_size=3), group=st.integers(1, 4), draw=st.data())
def test_documents_are_found_by_number_and_by_id(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], group: int, draw: st.DataObject
) -> None:
    files, total = written(tmp_path_factory.mktemp("files"), sizes, group), sum(sizes)
    assert len(files) == total
    wanted = draw.draw(st.lists(st.integers(0, total - 1), max_size=6)) if total else []
    assert files.rows(wanted) == {
        number: {"id": name(number), "origin": f"file {number}", "url": None} for number in wanted
    }
    for number in range(total):
        assert files.numbers_of(name(number)) == [one for one in range(total) if name(one) == name(number)]
    assert files.numbers_of("none") == []
