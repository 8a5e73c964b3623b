"""Arrays on disk: flat binary files and files in numbered parts, each absent or complete, read in part or mapped.

The search for duplicates sorts and groups by writing every shard's rows in parts (one per range of hashes, or per window of
ranks) and reading one part of all shards at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gristmill.store.durable import atomic_path, out_of_space_is_a_resource_error

Array = NDArray[Any]
CLAIM_BYTES = 16_000_000


def write_flat(path: Path, arrays: Iterable[Array]) -> None:
    """The arrays one after another, atomically. `file.write` tells of a full disk as such, ndarray.tofile does not."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for array in arrays:
            file.write(_raw(array))


def read_flat(path: Path, dtype: DTypeLike, *, first: int = 0, count: int = -1) -> Array:
    """Entries of a flat file, copied into memory."""
    return np.fromfile(path, dtype=dtype, offset=first * np.dtype(dtype).itemsize, count=count)


def mapped(path: Path, dtype: DTypeLike) -> Array:
    """A flat file as a read-only array whose pages the system loads and drops."""
    if not path.stat().st_size:  # which cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def scratch(path: Path, count: int, dtype: DTypeLike, *, max_bytes: int) -> Array:
    """A writable array of zeros: in memory when it takes at most `max_bytes`, else a file that is mapped.

    The file is written first: a mapped page without space on disk would end the process by a signal.
    """
    num_bytes = count * np.dtype(dtype).itemsize
    if num_bytes <= max_bytes:
        return np.zeros(count, dtype=dtype)
    with out_of_space_is_a_resource_error(path), path.open("wb") as file:
        _claim(file, num_bytes)
    return np.memmap(path, dtype=dtype, mode="r+", shape=(count,))


def new_array(path: Path, dtype: DTypeLike, count: int) -> np.memmap[Any, np.dtype[Any]]:
    """A new .npy file of zeros, mapped; its space on disk is claimed as that of `scratch`."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=(count,))
    with out_of_space_is_a_resource_error(path), path.open("r+b") as file:
        file.seek(path.stat().st_size - array.nbytes)
        _claim(file, array.nbytes)
    return array


def _claim(file: IO[bytes], num_bytes: int) -> None:
    for first in range(0, num_bytes, CLAIM_BYTES):
        file.write(bytes(min(CLAIM_BYTES, num_bytes - first)))


def write_parts(path: Path, parts: Iterable[Array], *, count: int) -> None:
    """`count` arrays as numbered parts, atomically: a header with their number and where each begins, in bytes, then the parts."""
    ends = [0]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(8 * (count + 2)))
        for part in parts:
            file.write(_raw(part))
            ends.append(ends[-1] + part.nbytes)
        assert len(ends) == count + 1, f"{len(ends) - 1} parts of {count} for {path}"
        file.seek(0)
        file.write(_raw(np.array([count, *ends], dtype=np.int64)))


def read_part(path: Path, number: int, dtype: DTypeLike) -> Array:
    """One part, copied into memory."""
    with path.open("rb") as file:
        num_parts = int(np.frombuffer(file.read(8), dtype=np.int64)[0])
        file.seek(8 * (1 + number))
        first, end = np.frombuffer(file.read(16), dtype=np.int64).tolist()
        file.seek(8 * (num_parts + 2) + first)
        return np.frombuffer(file.read(end - first), dtype=dtype)


def read_part_of_all(paths: Iterable[Path], number: int, dtype: DTypeLike) -> Array:
    """The same part of several files, one after another."""
    return np.concatenate([np.empty(0, dtype=dtype), *(read_part(path, number, dtype) for path in paths)])


def _raw(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
