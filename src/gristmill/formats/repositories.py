"""Which repository a file of a source tree is of: the topmost folder above it that holds a file itself.

    clones/                     of clones/ada/mill/src/a.py          ada/mill
    mill-1.2.tar.gz             of mill-1.2/src/a.py                 mill-1.2
    mill-1.2.tar.gz             of src/a.py, beside a setup.py       mill-1.2, the archive's own name

Clones and the trees in archives have a README or the like where they begin, the folders that hold clones have none. Hidden files, such
as .git, are no part of a tree, and tell nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from pathlib import Path

from gristmill.data import deadline
from gristmill.data.outside import is_project_file
from gristmill.formats.content import open_content
from gristmill.formats.license_files import folder_of
from gristmill.formats.tar import TarFile, read_tar
from gristmill.recipe.schema.formats import ReadArchive

MAX_REPOSITORIES = 10_000  # of an archive
NPM_FOLDER = "package"  # what the folder of every npm package is called


class Repositories:
    """What the folders of a tree say. holds_file: whether the folder with this path in the tree, "" for the tree's own, holds a file itself.
    own_name: of a repository that begins where the tree does, or in a folder of `nameless`."""

    def __init__(self, holds_file: Callable[[str], bool], *, own_name: str, nameless: frozenset[str] = frozenset()):
        self._holds_file = holds_file
        self._own_name, self._nameless = own_name, nameless

    def of(self, path: str) -> str | None:
        """The repository of a file; None where the tree cannot be looked through."""
        parts = folder_of(path).split("/")
        folders = ["", *("/".join(parts[:depth]) for depth in range(1, len(parts) + 1) if parts[0])]
        found = next((folder for folder in folders if self._holds_file(folder)), None)
        return self._own_name if found == "" or found in self._nameless else found


def repositories_of_folder(tree: Path, *, name: str) -> Repositories:
    """Of a folder, looked into when it is asked for. Links are not followed."""
    return Repositories(cache(partial(_holds_file, tree)), own_name=name)


def repositories_of_archive(archive: Path, *, name: str) -> Repositories:
    """Of a tar archive, read once through: what tells may lie behind the files that it is about. None of any above MAX_REPOSITORIES."""
    found: set[str] = set()
    own_name = name.removesuffix(ReadArchive.suffix_in(name) or "")
    with closing(open_content(archive)) as content:
        for item in read_tar(content, wanted=lambda name, size: False):
            deadline.extend()
            if not isinstance(item, TarFile) or item.name.rpartition("/")[2].startswith("."):
                continue
            if Repositories(found.__contains__, own_name=own_name).of(item.name) is None:
                found.add(folder_of(item.name))
            if len(found) > MAX_REPOSITORIES:
                return Repositories(lambda folder: False, own_name=own_name)
    return Repositories(found.__contains__, own_name=own_name, nameless=frozenset({NPM_FOLDER}))


def _holds_file(tree: Path, folder: str) -> bool:
    try:
        with os.scandir(tree / folder) as entries:
            return any(
                entry.is_file(follow_symlinks=False)
                and not entry.name.startswith(".")
                and not is_project_file(Path(entry.path))
                for entry in entries
            )
    except OSError:
        return False
