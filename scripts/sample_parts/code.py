"""The code tree: Python's standard library, C of Lua and hiredis, SQL of PostgreSQL, in one reproducible tar.gz."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
from dataclasses import dataclass

from sample_parts.packages import Origin, files_in

_LARGEST = 40_000


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Files below `prefix` of a package whose path matches, put under `folder`; of those `count` by hash (0: all)."""

    package: str
    prefix: str
    folder: str
    path: str
    least: int
    most: int = _LARGEST
    count: int = 0


_PYTHON_PATH = (
    r"(?!idlelib/|lib2to3/|encodings/|pydoc_data/|site-packages/|test/|config-|_sysconfigdata)[a-z0-9_/]+\.py"
)
_PYTHON = "usr/lib/python3.11/"
TREES: tuple[Tree, ...] = (
    Tree(
        package="libpython3.11-stdlib",
        prefix=_PYTHON,
        folder="python",
        path=_PYTHON_PATH,
        least=2_500,
        most=22_000,
        count=40,
    ),
    Tree(
        package="libpython3.11-minimal",
        prefix=_PYTHON,
        folder="python",
        path=_PYTHON_PATH,
        least=2_500,
        most=22_000,
        count=16,
    ),
    Tree(
        package="lupa",
        prefix="lupa-2.8/third-party/lua54/",
        folder="c/lua",
        path=r"(?!ltests|lopnames|ljumptab|all)l[a-z0-9]+\.[ch]",
        least=1_000,
        most=16_000,
    ),
    Tree(
        package="hiredis",
        prefix="hiredis-3.5.0/vendor/hiredis/",
        folder="c/hiredis",
        path=r"(?!ffc)[a-z_]+\.[ch]",
        least=1_000,
        most=24_000,
    ),
    Tree(
        package="postgresql-15",
        prefix="usr/share/postgresql/15/",
        folder="sql",
        path=r".*\.sql",
        least=1_000,
        count=62,
    ),
)


def files(origins: dict[str, Origin]) -> dict[str, bytes]:
    """Path in the tree -> content, in sorted order; UTF-8 text without NUL bytes only."""
    out: dict[str, bytes] = {}
    for tree in TREES:
        fitting = {
            path: raw
            for path, raw in files_in(origins[tree.package], tree.prefix).items()
            if re.fullmatch(tree.path, path) and tree.least <= len(raw) <= tree.most and _is_text(raw)
        }
        ranked = sorted(fitting, key=lambda path: hashlib.sha256(path.encode()).hexdigest())
        for path in ranked[: tree.count or None]:
            out[f"{tree.folder}/{path.removeprefix('extension/')}"] = fitting[path]
    return dict(sorted(out.items()))


def archive(tree: dict[str, bytes]) -> bytes:
    """A gzip tar with fixed times, owners and order."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, raw in tree.items():
            info = tarfile.TarInfo("code/" + path)
            info.size, info.mtime, info.mode = len(raw), 1_768_469_400, 0o644
            tar.addfile(info, io.BytesIO(raw))
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def _is_text(raw: bytes) -> bool:
    try:
        return b"\0" not in raw and bool(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return False
