"""Hostile Parquet files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hostile.hostile import Hostile, prose, scaled

LARGE = 12_000_000


def write(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A Parquet file."""
    pq.write_table(pa.table(columns), folder / "x.parquet", **options)
    return folder / "x.parquet"


def sound(folder: Path, number: int, **options: Any) -> Path:
    """A Parquet file of sound rows."""
    texts = [prose(seed) for seed in range(number)]
    return write(folder, {"text": texts, "id": [f"p{seed}" for seed in range(number)]}, **options)


def parquet_large_dictionary(folder: Path, scale: float) -> Hostile:
    """256 rows of 12 MB, written once."""
    value = pa.array(["z" * scaled(LARGE, scale)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), value)
    path = write(folder, {"text": column}, compression="zstd", store_schema=False)
    return Hostile(kind="parquet", path=path, documents=256)


def parquet_large_rows(folder: Path, scale: float) -> Hostile:
    """256 rows of 12 MB, written each."""
    column = pa.array(["z" * scaled(LARGE, scale)] * 256, pa.large_string())
    path = write(folder, {"text": column}, compression="zstd", use_dictionary=False, write_batch_size=16)
    return Hostile(kind="parquet", path=path, documents=256)


def parquet_large_first_rows(folder: Path, scale: float) -> Hostile:
    """64 rows of 12 MB, and so many small ones behind them in the group that the mean says nothing."""
    number = scaled(200_000, scale)
    column = pa.array([*["z" * scaled(LARGE, scale)] * 64, *["a"] * number], pa.large_string())
    path = write(folder, {"text": column}, compression="zstd", use_dictionary=False, write_batch_size=16)
    return Hostile(kind="parquet", path=path, documents=64 + number)


def parquet_nulls(folder: Path, scale: float) -> Hostile:
    """Ten million rows of nothing in a few bytes."""
    number = scaled(10_000_000, scale)
    path = write(folder, {"text": pa.nulls(number, pa.string())})
    return Hostile(kind="parquet", path=path, documents=0, reasons={"field_is_not_text": number})


def parquet_many_groups(folder: Path, scale: float) -> Hostile:
    """Ten thousand row groups of one row."""
    number = scaled(10_000, scale)
    return Hostile(kind="parquet", path=sound(folder, number, row_group_size=1), documents=number)


def parquet_no_footer(folder: Path, scale: float) -> Hostile:
    """A footer of zeros."""
    path = sound(folder, 50)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[: -8 - length] + bytes(length) + data[-8:])
    return Hostile(kind="parquet", path=path, documents=0, reasons={"corrupt_file": 1})


def parquet_footer_of_any_size(folder: Path, scale: float) -> Hostile:
    """A footer that says it is 4 GB long."""
    path = sound(folder, 50)
    path.write_bytes(path.read_bytes()[:-8] + b"\xff\xff\xff\xffPAR1")
    return Hostile(kind="parquet", path=path, documents=0, reasons={"corrupt_file": 1})


def parquet_cut_off(folder: Path, scale: float) -> Hostile:
    """The first half of a file."""
    path = sound(folder, 50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return Hostile(kind="parquet", path=path, documents=0, reasons={"corrupt_file": 1})


def parquet_empty(folder: Path, scale: float) -> Hostile:
    """No bytes."""
    (folder / "x.parquet").touch()
    return Hostile(kind="parquet", path=folder / "x.parquet", documents=0, reasons={"corrupt_file": 1})


def parquet_without_the_column(folder: Path, scale: float) -> Hostile:
    """Another column."""
    path = write(folder, {"content": ["a"] * 10}, row_group_size=1)
    return Hostile(kind="parquet", path=path, documents=0, reasons={"missing_column": 1})


def parquet_lists(folder: Path, scale: float) -> Hostile:
    """Lists of texts where a text is expected."""
    path = write(folder, {"text": pa.array([["a", "b"], ["c"], None])})
    return Hostile(kind="parquet", path=path, documents=0, reasons={"field_is_not_text": 3})


def parquet_byte_strings(folder: Path, scale: float) -> Hostile:
    """Bytes where a text is expected."""
    path = write(folder, {"text": pa.array([b"abc", b"\xff"], pa.binary())})
    return Hostile(kind="parquet", path=path, documents=0, reasons={"field_is_not_text": 2})


def parquet_not_utf8(folder: Path, scale: float) -> Hostile:
    """A string that is none between two that are."""
    buffers = [None, pa.py_buffer(struct.pack("<4i", 0, 3, 6, 9)), pa.py_buffer(b"abc\xff\xfe\xfdxyz")]
    path = write(folder, {"text": pa.Array.from_buffers(pa.string(), 3, buffers)})
    return Hostile(kind="parquet", path=path, documents=2, reasons={"bad_utf8": 1})


def parquet_ids_without_value(folder: Path, scale: float) -> Hostile:
    """Ids that are missing, no number, or a date that Python cannot tell."""
    far = pa.array([1 << 50, 0, None], pa.int64()).cast(pa.timestamp("s"))
    path = write(folder, {"text": ["a", "b", "c"], "id": far})
    return Hostile(kind="parquet", path=path, documents=1, reasons={"missing_field": 2}, keys={"id_column": "id"})


def parquet_damaged_page(folder: Path, scale: float) -> Hostile:
    """A page in the middle of zeros: the rows of its group from there on are lost."""
    path = sound(
        folder, 3000, row_group_size=1000, write_page_checksum=True, use_dictionary=False, data_page_size=20_000
    )
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(bytes(data))
    return Hostile(kind="parquet", path=path, documents=2000, reasons={"corrupt_row_group": 1000})


SETS = [
    parquet_large_dictionary, parquet_large_rows, parquet_large_first_rows, parquet_nulls, parquet_many_groups, parquet_no_footer,
    parquet_footer_of_any_size, parquet_cut_off, parquet_empty, parquet_without_the_column, parquet_lists, parquet_byte_strings,
    parquet_not_utf8, parquet_ids_without_value, parquet_damaged_page,
]  # fmt: skip
