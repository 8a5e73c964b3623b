"""A change of schema in the middle of a data set is told before anything is read, with file and rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.errors import DataError
from gristmill.extract import extract
from gristmill.extract.outputs import Extracted
from gristmill.extract.same_columns import check_same_columns
from gristmill.recipe.schema.formats import ReadParquet

HERE = Path(__file__).parent
READ = ReadParquet(format="parquet", paths=["*.parquet"], id_column="id")
FITS: list[dict[str, Any]] = [
    {"text": pa.array(["a"]).dictionary_encode(), "id": [1]},
    {"text": pa.array(["a"], pa.large_string()), "id": ["x"], "more": [1]},
    {"text": pa.array([None], pa.null()), "id": ["x"]},
    {"other": pa.array([], pa.string())},
]
DRIFTS: list[tuple[dict[str, Any], str]] = [
    ({"content": ["a", "b"], "id": [1, 2]}, "rows 0 to 1 lack 'text'; its columns are 'content', 'id'"),
    ({"text": ["a"]}, "rows 0 to 0 lack 'id'"),
    ({"text": [7], "id": [1]}, "rows 0 to 0 have int64 in 'text', where text is expected"),
    ({"text": [["a"]], "id": [1]}, "rows 0 to 0 have list<"),
]


def files(folder: Path, columns: dict[str, Any], *, place: int = 39, count: int = 41) -> dict[Path, str]:
    """So many files of one schema, but for one."""
    found = {folder / f"{number:04}.parquet": f"{number:04}.parquet" for number in range(count)}
    for number, path in enumerate(found):
        pq.write_table(pa.table(columns if number == place else {"text": ["a"], "id": ["x"]}), path)
    return found


@pytest.mark.parametrize(("columns", "words"), DRIFTS)
def test_a_file_with_other_columns_is_named_with_its_rows(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        check_same_columns("facts", READ, files(tmp_path, columns), max_failed=0.5)
    assert f"1 of 41 files do not have the columns of the others.\n  0039.parquet: {words}" in str(caught.value)
    check_same_columns("facts", READ, files(tmp_path, columns), max_failed=1.0)


@pytest.mark.parametrize("columns", FITS)
def test_files_that_can_be_read_as_the_recipe_says_are_not_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    check_same_columns("facts", READ, files(tmp_path, columns, count=2, place=1), max_failed=0.5)


def test_a_file_that_is_not_parquet_is_left_to_the_reader(tmp_path: Path) -> None:
    found = files(tmp_path, DRIFTS[0][0], count=3, place=-1)
    (tmp_path / "0001.parquet").write_bytes(b"no")
    check_same_columns("facts", READ, found, max_failed=0.5)


def test_extract_refuses_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    import run_extract

    (tmp_path / "data").mkdir()
    files(tmp_path / "data", DRIFTS[0][0], count=3, place=2)
    source = {"read": {"format": "parquet", "paths": ["data/*.parquet"]}}
    with pytest.raises(DataError, match=r"0002\.parquet: rows 0 to 1 lack 'text'"):
        extract.run(run_extract.context(tmp_path, tmp_path / "out", source))
    assert not [*(tmp_path / "out").glob("documents-*")]
    kept = tmp_path / "kept"
    extract.run(run_extract.context(tmp_path, kept, {**source, "max_failed": 1.0}))
    assert Extracted(kept).ledger.source("web").reasons("failed")["missing_column"].documents == 1
