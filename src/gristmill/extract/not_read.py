"""What is not read: files that lie where sources look and that no source reads, by suffix, each with what to do about it.

A person's folder holds more than text in known formats. None of it may be missing in silence: `inspect` and `init` list it for a
folder or a recipe, the report for a run; `plan` and `run` say in a line how much there is.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath

from gristmill.data.outside import files_beside, find_outside, look_through, readable_name, without_inner_links
from gristmill.errors import DataError
from gristmill.extract.shards import find_files
from gristmill.formats.format import format_named, size_of
from gristmill.recipe.schema.formats import READERS, ReadCode, ReadFiles, packing_by_name, reader_of, without_packing
from gristmill.store.durable import read_json, write_json
from gristmill.units import counted, in_bytes
from gristmill.written import Written

NOT_READ = "not-read.json"
NO_SUFFIX = "without suffix"
NO_FILES = {
    "dangling_link": ("link that leads nowhere", "put back what it leads to, or remove it"),
    "special_file": ("pipe, socket or device", "nothing can be read from it; remove it"),
    "inner_link": ("link to a file that is read", "its text is read once, under the name of the file"),
    "empty_file": ("empty", "nothing can be read from it"),
    "project_file": ("written by init for a model", "not your text; name the file itself to read it"),
}
IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".svg", ".webp", ".bmp", ".ico", ".tif", ".tiff", ".heic")
SOUNDS = (".mp3", ".wav", ".ogg", ".flac", ".m4a", ".mp4", ".mkv", ".avi", ".mov", ".webm")
ADVICE = {
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "save each sheet as CSV"),
    **dict.fromkeys((".doc", ".rtf", ".odt", ".pages", ".wpd"), "save as DOCX, or as plain text"),
    **dict.fromkeys((".ppt", ".pptx", ".odp", ".key"), "save its text as plain text"),
    **dict.fromkeys((".mobi", ".azw", ".azw3", ".fb2"), "convert to EPUB or HTML"),
    **dict.fromkeys((".djvu", ".ps", ".eps"), "convert to PDF, with its text"),
    **dict.fromkeys((".7z", ".rar", ".xz", ".bz2", ".lz4", ".iso", ".gz", ".zst", ".dz"), "unpack it"),
    **dict.fromkeys((".bin", ".dat", ".exe", ".dll", ".so", ".o", ".a", ".pyc", ".class"), "not text, by its suffix"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".mdb"), "export its text as CSV or JSON Lines"),
    **dict.fromkeys((".pst", ".msg"), "export as mbox"),
    **dict.fromkeys(IMAGES, "an image: no text is read from it"),
    **dict.fromkeys(SOUNDS, "sound or film: put a transcript beside it"),
}
NAME_IT = "if it is plain text, name it under `paths` of a source with `format: text`"
NAME_PACKED = (
    "if what is packed in it is plain text, name it under `paths` of a source with `format: text`, which unpacks it"
)
SHOWN_KINDS = 4
SHOWN_NAMES = 3
MESSAGES = "messages"


@dataclass(frozen=True, kw_only=True)
class NotRead(Written):
    """Files of one suffix, or that are no text for one reason: how many, their bytes, what to do. kind: the suffix or the reason;
    names: the first of those that are no text."""

    kind: str
    files: int
    num_bytes: int
    advice: str
    names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The suffix; or the reason, and the first paths that it holds for."""
        more = ", …" if self.files > len(self.names) else ""
        return (
            f"{NO_FILES[self.kind][0]} ({', '.join(self.names)}{more})" if self.names else self.kind.replace("_", " ")
        )

    def __str__(self) -> str:
        if self.kind in NO_FILES:
            return f"{counted(self.files, 'path')}, {self.title}: {self.advice}"
        return f"{self.title}: {counted(self.files, 'file')}, {in_bytes(self.num_bytes)}: {self.advice}"


def not_read_in(target: Path) -> list[NotRead]:
    """What lies at a path, or below a folder, whose name fits no format."""
    found = list(look_through(target)) if target.is_dir() else [(target, None)]
    read = {path for files in files_by_reader(path for path, why in found if why is None).values() for path in files}
    return summed(_left(found, read), target)


def files_by_reader(paths: Iterable[Path]) -> dict[type[ReadFiles], list[Path]]:
    """The files that each format reads, in the order of formats, without links to files that it reads."""
    found: dict[type[ReadFiles], list[Path]] = {reader: [] for reader in READERS.values()}
    for path in paths:
        if (reader := reader_of(path.name)) is not None:
            found[reader].append(path)
    return {reader: without_inner_links(files) for reader, files in found.items() if files}


def not_read_beside(recipe_dir: Path, reads: Sequence[ReadFiles], *, has_chat: bool) -> list[NotRead]:
    """What lies where sources look (`data.outside.files_beside`) and none of them reads. has_chat: the recipe reads conversations,
    and files that hold them are taken for these. Raises RecipeError where a path of a source names nothing."""
    read: set[Path] = set()
    beside = dict(files_beside(recipe_dir, [pattern for one in reads for pattern in one.paths]))
    trees: set[Path] = set()  # each accounts for all of it
    for one in reads:
        outside = find_outside(recipe_dir, one.paths, where="read.paths")
        read.update(outside.files if isinstance(one, ReadCode) else find_files(outside, one))
        trees.update(outside.paths if isinstance(one, ReadCode) else ())
    found = [(path, why) for path, why in beside.items() if why is not None or trees.isdisjoint((path, *path.parents))]
    left = _left(found, read)
    return summed(
        ((path, why) for path, why in left if not (has_chat and why is None and holds_conversations(path))), recipe_dir
    )


def _left(found: Collection[tuple[Path, str | None]], read: Collection[Path]) -> Iterator[tuple[Path, str | None]]:
    """What is not among the files that are read, each with the reason where it is no text of its own; what is there under its own path, too,
    is told once."""
    real = cache(Path.resolve)

    def origin(path: Path) -> Path:
        """The file itself, where the path or a folder above it is a link."""
        return path.resolve() if path.is_symlink() else real(path.parent) / path.name

    files: set[Path] | None = None
    told = set(found)
    for path, why in found:
        if path in read:
            continue
        if why is None and origin(path) != path:
            files = set(map(origin, read)) if files is None else files
            why = "inner_link" if origin(path) in files else None
            if why is None and (origin(path), None) in told:
                continue
        yield path, why


def holds_conversations(path: Path) -> bool:
    """Whether the first row of a file with columns has `messages`."""
    reader = reader_of(path.name)
    if reader is None or reader.text_key is None:
        return False
    with contextlib.suppress(OSError, DataError, ValueError):
        name = next(name for name, known in READERS.items() if known is reader)
        return any(isinstance(row.get(MESSAGES), list) for row in format_named(name).peek(path, num_rows=1))
    return False


def in_a_line(found: Sequence[NotRead], inspected: Path) -> list[str]:
    """How much is not read, and the command that lists it; no line where all is."""
    if not found:
        return []
    kinds = ", ".join(f"{one.kind.replace('_', ' ')} {one.files:,}" for one in found[:SHOWN_KINDS])
    more = ", …" if len(found) > SHOWN_KINDS else ""
    total = f"{counted(sum(one.files for one in found), 'file')}, {in_bytes(sum(one.num_bytes for one in found))}"
    return [
        f"not read: {total} ({kinds}{more}); {shlex.join(['gristmill', 'inspect', str(inspected)])} lists them with what to do"
    ]


def keep_not_read(run_folder: Path, found: Sequence[NotRead]) -> None:
    """Leaves what is not read in a run's folder: it is of the run, since another recipe may read it."""
    write_json(run_folder / NOT_READ, [one.to_json() for one in found])


def kept_not_read(run_folder: Path) -> list[NotRead]:
    """What `keep_not_read` left; nothing where it left nothing."""
    path = run_folder / NOT_READ
    return [NotRead.from_json(row, where=path) for row in read_json(path)] if path.exists() else []


def summed(paths: Iterable[tuple[Path, str | None]], folder: Path) -> list[NotRead]:
    """By suffix or reason, the most bytes first. folder: that names are relative to."""
    files, sizes, names = Counter[str](), defaultdict[str, int](int), defaultdict[str, list[str]](list)
    for path, why in paths:
        num_bytes = size_of(path)
        kind = why or (suffix_of(path.name) if num_bytes else "empty_file")
        files[kind] += 1
        sizes[kind] += num_bytes
        if kind in NO_FILES:
            names[kind].append(readable_name(os.path.relpath(path, folder)))
    rows = [
        NotRead(
            kind=kind,
            files=count,
            num_bytes=sizes[kind],
            advice=_advice(kind),
            names=tuple(sorted(names[kind])[:SHOWN_NAMES]),
        )
        for kind, count in files.items()
    ]
    return sorted(rows, key=lambda row: (-row.num_bytes, row.kind))


def suffix_of(name: str) -> str:
    """The suffix of a file's name in lower case, with the one before it where it says how the file is packed."""
    inner = without_packing(name.lower())
    return (PurePath(inner).suffix + name.lower()[len(inner) :]) or NO_SUFFIX


def _advice(kind: str) -> str:
    if kind in NO_FILES:
        return NO_FILES[kind][1]
    known = next((name for name, reader in READERS.items() if reader.suffix_in(kind) is not None), None)
    other = NAME_IT if packing_by_name(kind) is None else NAME_PACKED
    if known is None:
        return ADVICE.get(kind, other)
    return f"no source reads it; if `gristmill inspect` finds text in it, name it in a source with `format: {known}`"
