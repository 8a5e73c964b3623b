"""Source trees that tests of readers make: the same files as a folder or as an archive."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def fill(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_bytes(data))
    return folder


def archive(path: Path, files: Mapping[str, bytes | str], mode: Any = "w:gz") -> Path:
    """A tar archive with these files, in their order."""
    with tarfile.open(path, mode) as opened:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(_bytes(data))
            opened.addfile(member, io.BytesIO(_bytes(data)))
    return path


def _bytes(data: bytes | str) -> bytes:
    return data if isinstance(data, bytes) else data.encode()
