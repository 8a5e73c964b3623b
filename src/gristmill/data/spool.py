"""The spool of a guarded job: a file of results, appended as they are made, so that a process that ends loses none of them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class SpoolError(Exception):
    """The spool cannot be written, which is no fault of the record; the cause is the OSError."""


class Spool:
    """Results appended to a file, each in one write: a child that ends leaves whole results, and a torn one behind them."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._file = os.open(path, os.O_WRONLY)
        os.ftruncate(self._file, num_bytes)
        os.lseek(self._file, num_bytes, os.SEEK_SET)

    def append(self, result: Any) -> None:
        data = pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
        view = memoryview(len(data).to_bytes(8, "little") + data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise SpoolError(str(error)) from error
        self.num_bytes += 8 + len(data)

    def close(self) -> None:
        os.close(self._file)


def read_spool(path: Path) -> Iterator[Any]:
    """The results in a spool, in order."""
    with path.open("rb") as file:
        while head := file.read(8):
            yield pickle.loads(file.read(int.from_bytes(head, "little")))
