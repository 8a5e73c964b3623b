"""Source trees: folders, tar archives, single files.

    folder      the files of its listing [start, end), made once where spans are cut; a file can be entered by its number
    archive     its members in their order (tar.py)
    file        itself

A record is a file, its bytes are those of the file; what is around the files of an archive is skipped, and counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gristmill.data.charset import decode
from gristmill.data.outside import is_made_here
from gristmill.data.record import RawDocument, Record, Skip, Unread, failed
from gristmill.formats.code_language import language_told
from gristmill.formats.content import open_content
from gristmill.formats.format import LEAST_FILE_BYTES, Content, Format, Span, size_of, unreadable
from gristmill.formats.license_files import Licenses, licenses_of_archive, licenses_of_folder
from gristmill.formats.repositories import Repositories, repositories_of_archive, repositories_of_folder
from gristmill.formats.tar import Damage, TarFile, read_tar
from gristmill.recipe.schema.formats import LANGUAGES, TOLD_BY_CONTENT, ReadCode

MAX_CODE_FILE_BYTES = 1_000_000
TREE_SPANS = 8
SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() :-]{0,200}[\w+)])", re.ASCII)
SPDX_LINES = 20


class Code(Format[ReadCode]):
    """A file of a tree is a document; its language is told by its extension."""

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """Spans of a folder are files of its listing; archives and files are one span."""
        if not path.is_dir():
            return super().spans(path, name=name, limit=limit)
        listing = list_tree(path)
        total = sum(max(size, LEAST_FILE_BYTES) for _, size in listing)
        limit = min(max(limit, total // TREE_SPANS), self.shard_bytes[1])
        return cut_tree(path, listing, name=name, limit=limit)

    def read(self, span: Span, settings: ReadCode) -> Iterator[Record]:
        """The files of the tree."""
        extensions = settings.extensions
        if extensions is None and settings.language_by == "content":
            extensions = [*LANGUAGES, *TOLD_BY_CONTENT]
        records = read_code(span, extensions=extensions)
        if settings.language_by == "content":
            records = map(_with_language, records)
        if settings.license_files:
            records = _with_licenses(span, records)
        return _with_repositories(span, records) if settings.repositories else records

    def next_entry(self, span: Span, entry: int) -> int | None:
        """The next file of a folder."""
        return entry + 1 if span.end is not None and entry + 1 < span.end else None

    def content(self, span: Span, settings: ReadCode) -> Content:
        """Files by their sizes; an archive by what it unpacks to."""
        if span.path.is_dir():
            sizes = [size_of(span.path / inner) for _, inner in numbered_members(span)]
            return Content(num_bytes=sum(sizes), num_records=len(sizes))
        return (
            Content(num_bytes=size_of(span.path), num_records=1)
            if _is_source(span.path)
            else super().content(span, settings)
        )


FORMAT = Code()


def list_tree(folder: Path) -> list[tuple[str, int]]:
    """(path in the folder, size) of each file below it, in the order of their parts. Hidden files and folders, links, runs of
    gristmill, and what is neither file nor folder are no part of a tree. A folder that cannot be listed is in the listing, to be told as unreadable."""
    found: list[tuple[str, int]] = []
    folders = [""]
    while folders:
        inner = folders.pop()
        try:
            with os.scandir(folder / inner) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            found.append((inner, 0))
            continue
        for entry in visible:
            path = f"{inner}/{entry.name}" if inner else entry.name
            if entry.is_dir(follow_symlinks=False):
                if not is_made_here(Path(entry.path)):
                    folders.append(path)
            elif entry.is_file(follow_symlinks=False):
                found.append((path, size_of(Path(entry.path))))
    return sorted(found, key=lambda file: file[0].replace("/", "\0"))  # no name has a NUL: a/b before a-b


def cut_tree(folder: Path, listing: Sequence[tuple[str, int]], *, name: str, limit: int) -> list[Span]:
    """A listing in spans of about `limit` bytes, as `list_tree` gives it; one span where there are no files."""
    spans: list[Span] = []
    start = size = 0
    for number, (_, file_size) in enumerate(listing):
        if size and size + max(file_size, LEAST_FILE_BYTES) > limit:
            spans.append(_tree_span(folder, listing[start:number], name=name, start=start, size=size))
            start, size = number, 0
        size += max(file_size, LEAST_FILE_BYTES)
    return [*spans, _tree_span(folder, listing[start:], name=name, start=start, size=size)]


def _tree_span(folder: Path, files: Sequence[tuple[str, int]], *, name: str, start: int, size: int) -> Span:
    members = tuple(inner for inner, _ in files)
    return Span(path=folder, name=name, start=start, end=start + len(members), size=size, members=members)


def numbered_members(span: Span) -> list[tuple[int, str]]:
    """The files of a span of a folder by their number in its listing."""
    assert span.end is not None, f"a span of the folder {span.path} says where it ends"
    first = span.end - len(span.members)
    return [*enumerate(span.members, start=first)][span.start - first :]


def read_code(
    span: Span, *, extensions: Sequence[str] | None = None, max_bytes: int = MAX_CODE_FILE_BYTES
) -> Iterator[Record]:
    """The source files of a folder, of a tar archive, plain or gzip, or one source file; `language` follows from the
    extension, `license` is the SPDX expression of the first SPDX_LINES lines.

    Files with another extension than `extensions` (absent: all of LANGUAGES) are dropped as other_extension, binary ones as
    binary_file, sparse ones of archives as sparse_file; too large ones are failed as file_too_large, files that cannot be
    read as unreadable_file, damaged stretches of an archive as corrupt_archive. Links are not followed.
    """
    wanted = frozenset(LANGUAGES) if extensions is None else frozenset(extension.lower() for extension in extensions)
    if span.path.is_dir():
        for number, inner in numbered_members(span):
            yield replace(_read_file(span.path / inner, f"{span.name}#{inner}", wanted, max_bytes), entry=number)
    elif _is_source(span.path):
        yield _read_file(span.path, f"{span.name}#0", wanted, max_bytes)
    else:
        yield from _read_archive(span, wanted, max_bytes)


def _with_language(record: Record) -> Record:
    if not isinstance(record, RawDocument) or record.text is None:
        return record
    path, _, inner = record.origin.rpartition("#")
    return replace(record, language=language_told(_extension(path if inner == "0" else inner), record.text))


def _with_licenses(span: Span, records: Iterator[Record]) -> Iterator[Record]:
    """The records; a document that states no licence has that of the tree. A file alone has no tree."""
    if _is_source(span.path) and not span.path.is_dir():
        yield from records
        return
    try:
        licenses = licenses_of_folder(span.path) if span.path.is_dir() else licenses_of_archive(span.path)
    except OSError:
        licenses = Licenses(lambda folder: None)  # `read_code` says what is wrong
    for record in records:
        if isinstance(record, RawDocument) and record.license is None:
            record = replace(record, license=licenses.of(record.origin.removeprefix(f"{span.name}#")))
        yield record


def _with_repositories(span: Span, records: Iterator[Record]) -> Iterator[Record]:
    """The records; a document has the name of its repository. A single file has none."""
    if _is_source(span.path) and not span.path.is_dir():
        yield from records
        return
    look_through = repositories_of_folder if span.path.is_dir() else repositories_of_archive
    try:
        repositories = look_through(span.path, name=span.name)
    except OSError:
        repositories = Repositories(lambda folder: False, own_name=span.name)  # `read_code` says what is wrong
    for record in records:
        if isinstance(record, RawDocument):
            record = replace(record, repository=repositories.of(record.origin.removeprefix(f"{span.name}#")))
        yield record


def _read_file(path: Path, origin: str, wanted: frozenset[str], max_bytes: int) -> RawDocument | Unread:
    try:
        with path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            data = opened.read(min(size, max_bytes)) if _extension(path.name) in wanted and size <= max_bytes else b""
    except OSError as error:
        return replace(unreadable(path, origin, error), id=origin, origin=origin)
    return _record(path.name, origin, size, data, wanted, max_bytes)


def _read_archive(span: Span, wanted: frozenset[str], max_bytes: int) -> Iterator[Record]:
    def is_wanted(name: str, size: int) -> bool:
        return _extension(name) in wanted and size <= max_bytes

    try:
        file = open_content(span.path)
    except OSError as error:
        yield unreadable(span.path, span.name, error)
        return
    with closing(file):
        for item in read_tar(file, wanted=is_wanted):
            match item:
                case Skip():
                    yield item
                case Damage():
                    origin = f"{span.name}#{item.position}"
                    yield failed(origin, "corrupt_archive", bytes_in=item.num_bytes, detail=item.detail)
                case TarFile():
                    yield _member(item, f"{span.name}#{item.name}", wanted, max_bytes)


def _member(file: TarFile, origin: str, wanted: frozenset[str], max_bytes: int) -> RawDocument | Unread:
    if file.is_sparse:
        return Unread(id=origin, origin=origin, bytes_in=file.num_bytes, kind="dropped", reason="sparse_file")
    if file.num_bytes < file.size:
        detail = f"{file.num_bytes:,} of {file.size:,} bytes are there"
        return failed(origin, "corrupt_archive", bytes_in=file.num_bytes, detail=detail)
    return _record(file.name, origin, file.size, file.data or b"", wanted, max_bytes)


def _record(
    file_name: str, origin: str, size: int, data: bytes, wanted: frozenset[str], max_bytes: int
) -> RawDocument | Unread:
    """The record of a file of `size` bytes; `data` is read by whoever calls if the file is wanted and not too large."""
    extension = _extension(file_name)
    if extension not in wanted:
        reason = "other_extension"
    elif size > max_bytes:
        return failed(origin, "file_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes")
    elif b"\0" in data:
        reason = "binary_file"
    else:
        text, _ = decode(data)
        language, license = LANGUAGES.get(extension), _own_license(text)
        return RawDocument(id=origin, origin=origin, bytes_in=size, text=text, language=language, license=license)
    return Unread(id=origin, origin=origin, bytes_in=size, kind="dropped", reason=reason, detail=extension)


def source_record(data: bytes, *, name: str, origin: str) -> RawDocument | Unread:
    """The record of one source file, of any known extension, whose bytes are at hand."""
    return _record(name, origin, len(data), data, frozenset(LANGUAGES), MAX_CODE_FILE_BYTES)


def _is_source(path: Path) -> bool:
    """True for a single source file, by its name; else it is an archive."""
    return path.suffix.lower() in LANGUAGES.keys() | TOLD_BY_CONTENT.keys()


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _own_license(text: str) -> str | None:
    """The expression after "SPDX-License-Identifier:" in the head of a source file."""
    found = SPDX.search("\n".join(text.split("\n", SPDX_LINES)[:SPDX_LINES]))
    return None if found is None else found[1]
