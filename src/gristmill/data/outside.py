"""Outside files: what the patterns of a recipe name, the names under which they count, and the hashes of their content.

A name is relative to the fixed part of its pattern: the folders before the first wildcard, or the parent of a plain path.
So it depends neither on where the recipe lies nor on what else the recipe reads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from gristmill.data.executor import LocalThreads
from gristmill.errors import DataError, GristmillError, RecipeError
from gristmill.graph.step import Given, OutsideFiles
from gristmill.recipe.load import CONVERSATIONS_FILE, IN_FOLDER, SCHEMA_FILE
from gristmill.store.durable import file_sha256, read_json, write_json
from gristmill.store.fingerprint import fingerprint
from gristmill.store.store import STORE
from gristmill.units import in_bytes

PROJECT_FILES = (IN_FOLDER, SCHEMA_FILE, CONVERSATIONS_FILE)
MAX_HEAD_BYTES = 64_000  # of a recipe, in which its first keys lie
ANY_DEPTH = "**"
NAMED = "(named)"  # no file has this name
SETTLED_SECONDS = 2.0  # a file changed just now may change again within the resolution of its time stamp
SAY_EVERY_SECONDS = 5.0


def absolute(recipe_dir: Path, path: str) -> Path:
    """A path as the recipe writes it: relative to the recipe's own folder."""
    return without_dots((recipe_dir / Path(path).expanduser()).absolute())


def without_dots(path: Path) -> Path:
    """The path without `..`, where that is the same place: no link lies before it."""
    if ".." not in path.parts:
        return path
    plain = Path(os.path.normpath(path))
    return plain if plain.resolve() == path.resolve() else path


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder, by name; see `look_through`."""
    return sorted(path for path, why in look_through(folder) if why is None)


def look_through(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Each file below a folder with None, and what is no file with the reason (`why_no_file`), or project_file where `init` wrote it.

    Hidden ones, those in hidden folders and runs of gristmill are no part of it; links to folders are not followed. Raises
    DataError for a folder that cannot be listed.
    """
    for root, folders, names in os.walk(folder, onerror=_cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".") and not is_made_here(Path(root, name))]
        for path in (Path(root, name) for name in names if not name.startswith(".")):
            yield path, why_no_file(path) or ("project_file" if is_project_file(path) else None)


def without_inner_links(paths: Iterable[Path]) -> list[Path]:
    """Without links to files that are among them: a text is read once, under the name of the file."""
    found = list(paths)
    leads_to = {path: path.resolve() for path in found if path.is_symlink()}
    files = {path.resolve() for path in found if path not in leads_to} if leads_to else set()
    return [path for path in found if leads_to.get(path) not in files]


def why_no_file(path: Path) -> str | None:
    """Why what lies at a path is no file that could be read: dangling_link, or special_file (pipe, socket, device); else None."""
    try:
        mode = path.stat().st_mode
    except OSError:  # whoever opens it says what is wrong with anything but a link
        return "dangling_link" if path.is_symlink() else None
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "special_file"


def files_beside(recipe_dir: Path, patterns: Iterable[str]) -> Iterator[tuple[Path, str | None]]:
    """What lies where patterns look, under whatever name, as `look_through` tells it: all of a folder that one names; where the
    last part of a pattern has wildcards, what the same pattern with "*" there names, once for all that differ there alone. Nothing
    beside a file that is named."""
    wider: dict[str, None] = {}
    for pattern in patterns:
        plain = absolute(recipe_dir, pattern)
        if plain.is_dir():
            yield from look_through(plain)
        elif not plain.exists() and has_magic(Path(pattern).name):
            wider[str(Path(pattern).parent / "*")] = None
    for pattern in wider:
        for path in _glob(recipe_dir, pattern)[1]:
            if not path.is_dir():
                yield path, why_no_file(path)


def is_made_here(folder: Path) -> bool:
    """Whether gristmill keeps its runs in a folder, or the folder is one of their links: what it made is never what it reads."""
    try:
        return (folder / STORE).is_dir() or (folder.is_symlink() and STORE in folder.resolve().parts)
    except PermissionError:  # whoever lists it says so
        return False


def is_project_file(path: Path) -> bool:
    """Whether a file is what `init` writes: a recipe of gristmill, or the schema or conversations beside one."""
    if path.name not in PROJECT_FILES:
        return False
    try:
        with path.with_name(IN_FOLDER).open("rb") as recipe:
            return b"\nschema_version:" in b"\n" + recipe.read(MAX_HEAD_BYTES)
    except OSError:
        return False


def _cannot_list(error: OSError) -> None:
    raise DataError(
        f"the folder {error.filename} cannot be listed: {error.strerror}.\n  Change its permissions, or name the folders beside it."
    ) from error


def readable_name(path: Path | str) -> str:
    """A name as text; bytes that are no UTF-8 as \\xNN."""
    return os.fsencode(Path(path).as_posix()).decode("utf-8", "backslashreplace")


def find_outside(recipe_dir: Path, patterns: Sequence[str], *, where: str) -> OutsideFiles:
    """What the patterns name. Raises RecipeError for a pattern without a match, folders without a single file, and two files
    of one name."""
    files: dict[Path, str] = {}
    named: dict[str, tuple[Path, str]] = {}
    paths: dict[Path, str] = {}
    for pattern in patterns:
        start, matches = _matches(recipe_dir, pattern, where=where)
        for path in matches:
            paths.setdefault(path, readable_name(path.relative_to(start)))
        for file in (file for path in matches for file in (visible_files(path) if path.is_dir() else [path])):
            name = files.setdefault(file, readable_name(file.relative_to(start)))
            other, its_pattern = named.setdefault(name, (file, pattern))
            if other != file:
                raise RecipeError(
                    f"{where}: {its_pattern!r} and {pattern!r} both name a file {name!r}: {other} and {file}.\n"
                    "  Names make document ids. Name the folders instead of the files, or use one pattern for both, such as "
                    f"{str(Path('*') / Path(name).name)!r} below the folder that they share."
                )
    if patterns and not files:
        raise RecipeError(
            f"{where}: {list(patterns)} names folders without a single file below {absolute(recipe_dir, '.')}."
        )
    return OutsideFiles(
        paths=dict(sorted(paths.items(), key=lambda entry: (entry[1], entry[0]))),
        files=dict(sorted(files.items(), key=lambda entry: (entry[1], entry[0]))),
    )


def find_step_files(given: Given, recipe_dir: Path, step: str) -> dict[str, OutsideFiles]:
    """The outside files of a step, by label."""
    return {
        label: find_outside(recipe_dir, patterns, where=f"{step}, {label}") for label, patterns in given.files.items()
    }


def _matches(recipe_dir: Path, pattern: str, *, where: str) -> tuple[Path, list[Path]]:
    """(the fixed part of a pattern, what it names)."""
    plain = absolute(recipe_dir, pattern)
    if plain.is_file() or plain.is_dir():  # before wildcards: a name may look like a pattern
        return plain.parent, [plain]
    start, matches = _glob(recipe_dir, pattern)
    found = [path for path in matches if path.is_file() or path.is_dir()]
    if not found:
        others = "".join(f"\n  {path} is there: {why_no_file(path)}." for path in matches[:1])
        raise RecipeError(
            f"{where}: {pattern!r} matches no file.\n  Looked for {plain}; paths are relative to the recipe's folder.{others}"
        )
    return start, found


def _glob(recipe_dir: Path, pattern: str) -> tuple[Path, list[Path]]:
    """(the fixed part of a pattern, all that it names outside of gristmill's runs and of projects below that part, once: not again
    through a link that leads back)."""
    named, fixed = Path(pattern).expanduser(), Path()
    for part in named.parent.parts:
        if has_magic(part):
            break
        fixed /= part
    start = absolute(recipe_dir, str(fixed))
    is_passed_over = cache(lambda folder: is_made_here(folder) or _leads_back(folder))
    matches = _expanded(start, named.parts[len(fixed.parts) :], is_passed_over)

    @cache
    def is_inside_one(folder: Path) -> bool:
        """Whether a folder, or one above it but below `start`, is passed over: what lies above the pattern is not its concern."""
        if folder == start or not folder.is_relative_to(start):
            return False
        return is_passed_over(folder) or is_inside_one(folder.parent)

    return start, [
        path
        for path in dict.fromkeys(matches)
        if not is_inside_one(path.parent) and not (path.parent != start and is_project_file(path))
    ]


def _expanded(folder: Path, parts: Sequence[str], is_passed_over: Callable[[Path], bool]) -> Iterator[Path]:
    """What a pattern names below a folder. glob's own "**" follows links that lead back, and with two of them never ends."""
    if ANY_DEPTH not in parts:
        yield from (folder / name for name in glob(str(Path(*parts)), root_dir=folder))
        return
    place = parts.index(ANY_DEPTH)
    before, after = parts[:place], parts[place + 1 :]
    for top in [folder / name for name in glob(str(Path(*before)), root_dir=folder)] if before else [folder]:
        for inner in _folders_below(top, is_passed_over):
            yield from _expanded(inner, after or ["*"], is_passed_over)


def _folders_below(top: Path, is_passed_over: Callable[[Path], bool]) -> Iterator[Path]:
    """The folder and those inside it, but hidden ones."""
    if not top.is_dir():
        return
    yield top
    inner: list[str] = []
    with contextlib.suppress(OSError), os.scandir(top) as entries:  # may not be listed
        inner = sorted(one.name for one in entries if not one.name.startswith(".") and _is_folder(one))
    for name in inner:
        if not is_passed_over(top / name):
            yield from _folders_below(top / name, is_passed_over)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Known without another look for all but links."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one that it lies in: "**" would follow it round and round."""
    return folder.is_symlink() and any(above.resolve().is_relative_to(folder.resolve()) for above in folder.parents)


class NotHashedYet(Exception):
    """More would have to be read than the caller allows; the text says how much."""


class FileHashes:
    """SHA-256 of outside files, read by several threads; a file with the size, times and inode it had is not read again."""

    def __init__(
        self,
        known_in: Path,
        *,
        threads: int,
        say: Callable[[str], None],
        should_stop: Callable[[], bool] = lambda: False,
        max_bytes: int | None = None,
    ) -> None:
        """known_in: the file that remembers. max_bytes: raise NotHashedYet rather than read more than this, in all."""
        self._cache = known_in
        self._bytes_left = max_bytes
        self._threads, self._say, self._should_stop = threads, say, should_stop
        self._known: dict[str, list[Any]] = {}
        self._unreadable: dict[Path, str] = {}
        with contextlib.suppress(GristmillError):  # absent or damaged: it is only a cache
            known = read_json(known_in)
            if isinstance(known, dict) and all(isinstance(entry, list) and len(entry) == 5 for entry in known.values()):
                self._known = known

    def of(self, found: OutsideFiles) -> dict[str, str]:
        """Name → SHA-256, for all files; and under NAMED, where folders are named, a hash of what the patterns name: files of a
        folder are read by their suffix, files that are named in any case."""
        stamps = {path: _stamp(path) for path in found.files}
        self._read(
            [path for path, stamp in stamps.items() if self._known.get(readable_name(path), [])[:-1] != stamp], stamps
        )
        hashes = {
            name: self._unreadable.get(path) or str(self._known[readable_name(path)][-1])
            for path, name in found.files.items()
        }
        if any(path.is_dir() for path in found.paths):
            hashes[NAMED] = fingerprint(list(found.paths.values()))
        return hashes

    def _read(self, paths: Sequence[Path], stamps: Mapping[Path, list[int]]) -> None:
        if not paths:
            return
        total, done, said = sum(stamps[path][0] for path in paths), 0, time.monotonic()
        if self._bytes_left is not None:
            if total > self._bytes_left:
                raise NotHashedYet(f"{in_bytes(total)} of outside files are not hashed yet")
            self._bytes_left -= total
        executor = LocalThreads(threads=self._threads, should_stop=self._should_stop)
        for path, outcome in executor.map(file_sha256, paths):
            if isinstance(outcome, OSError):  # whoever reads it says so, and counts it
                self._unreadable[path] = f"unreadable: {errno.errorcode.get(outcome.errno or 0, '')}"
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                self._known[readable_name(path)] = [*stamps[path], outcome]
                self._unreadable.pop(path, None)
            done += stamps[path][0]
            if time.monotonic() - said > SAY_EVERY_SECONDS:
                self._say(f"hashing outside files: {in_bytes(done)} of {in_bytes(total)}")
                said = time.monotonic()
        self._keep()

    def _keep(self) -> None:
        """Keeps what was learnt beside the runs, if they are there; not of files that may be changing right now."""
        newest = (time.time() - SETTLED_SECONDS) * 1e9
        if self._cache.parent.is_dir():
            with contextlib.suppress(OSError, GristmillError):  # another's folder, or a full disk
                write_json(self._cache, {path: entry for path, entry in self._known.items() if entry[1] < newest})


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
