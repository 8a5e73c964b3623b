"""Source trees: folders, archives, single files."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from gristmill.data.charset import decode
from gristmill.data.record import Fate, RawDocument, Record, Unread, failed
from gristmill.formats.format import Format, Span
from gristmill.recipe.schema.formats import LANGUAGES, ReadCode

MAX_CODE_FILE_BYTES = 1_000_000
SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() :-]{0,200}[\w+)])", re.ASCII)
SPDX_LINES = 20


class Code(Format[ReadCode]):
    """A file of a tree is a document; its language is told by its extension."""

    def read(self, span: Span, settings: ReadCode) -> Iterator[Record]:
        """The files of the tree."""
        return read_code(span.path, name=span.name, extensions=settings.extensions)


FORMAT = Code()


def read_code(
    path: Path, *, name: str, extensions: Sequence[str] | None = None, max_bytes: int = MAX_CODE_FILE_BYTES
) -> Iterator[RawDocument | Unread]:
    """The source files of a folder or a .tar.gz archive, by name, or one source file; `language` follows from the extension,
    `license` is the SPDX expression of the first SPDX_LINES lines.

    Files with another extension than `extensions` (absent: all of LANGUAGES) are dropped as other_extension,
    binary ones as binary_file; too large ones are failed as file_too_large. Links are not followed.
    Nothing is unpacked to the disk.
    """
    wanted = frozenset(LANGUAGES) if extensions is None else frozenset(extension.lower() for extension in extensions)
    is_source = path.is_file() and path.suffix.lower() in LANGUAGES
    if is_source:
        files = _one_file(path, max_bytes)
    else:
        files = _tree_files(path, max_bytes) if path.is_dir() else _archive_files(path, max_bytes)
    for inner, size, data in files:
        origin = f"{name}#0" if is_source else f"{name}#{inner}"
        if isinstance(data, str):
            yield failed(origin, data, bytes_in=size)
            continue
        extension = PurePosixPath(inner).suffix.lower()
        kind: Fate
        if extension not in wanted:
            reason, kind = "other_extension", "dropped"
        elif size > max_bytes:
            reason, kind = "file_too_large", "failed"
        elif b"\0" in data:
            reason, kind = "binary_file", "dropped"
        else:
            text, _ = decode(data)
            language = LANGUAGES.get(extension)
            yield RawDocument(
                id=origin, origin=origin, bytes_in=size, text=text, language=language, license=_own_license(text)
            )
            continue
        yield Unread(id=origin, origin=origin, bytes_in=size, kind=kind, reason=reason, detail=extension)


def _own_license(text: str) -> str | None:
    """The expression after "SPDX-License-Identifier:" in the head of a source file."""
    found = SPDX.search("\n".join(text.split("\n", SPDX_LINES)[:SPDX_LINES]))
    return None if found is None else found[1]


def _one_file(path: Path, max_bytes: int) -> Iterator[tuple[str, int, bytes | str]]:
    """(name, size, content cut after the limit) of a file that is neither folder nor archive."""
    with path.open("rb") as opened:
        yield path.name, path.stat().st_size, opened.read(max_bytes + 1)


def _tree_files(folder: Path, max_bytes: int) -> Iterator[tuple[str, int, bytes | str]]:
    """(name, size, content cut after the limit) of the files below a folder; hidden ones are no part of the tree."""
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        if file.is_symlink() or not file.is_file() or any(part.startswith(".") for part in inner.parts):
            continue
        with file.open("rb") as opened:
            yield inner.as_posix(), file.stat().st_size, opened.read(max_bytes + 1)


def _archive_files(path: Path, max_bytes: int) -> Iterator[tuple[str, int, bytes | str]]:
    """The same of a tar archive, in its order; a text instead of content is the reason why reading stopped."""
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if member.isfile():
                    opened = archive.extractfile(member)
                    yield member.name, member.size, b"" if opened is None else opened.read(max_bytes + 1)
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        yield "", 0, "corrupt_archive"
