"""Archives of files of any format: ZIP, and tar, plain or packed. A member is read by its suffix, like a file in a folder.

    members of a ZIP from its directory (zip.py), of a tar in their order (tar.py)
        → one member in a temporary file without a name → the reader of its format → its records

Nothing is unpacked to a path: the names of members are only ids. A temporary file has no name, so it disappears however the process
ends. Archives inside archives, hidden files and files of no known format are counted and not opened. Reading can start at any member,
by its number.

The content of an archive is the content of the members that are read, as their formats measure it; everything else counts with the
bytes that it takes in the archive: on disk in a ZIP, of the unpacked stream in a tar.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gristmill.data.record import Fate, Record, Skip, Unread
from gristmill.formats.code import source_record
from gristmill.formats.content import open_content, packing_of
from gristmill.formats.coverage import unpacked_bytes
from gristmill.formats.format import Content, Format, Span, cut_evenly, format_named, size_of, unreadable
from gristmill.formats.tar import MAGIC, MAGIC_AT, Damage, TarFile, read_tar
from gristmill.formats.zip import Refused, ZipListing, list_zip, unpacked
from gristmill.recipe.schema.formats import READERS, ReadArchive, ReadFiles, reader_of

MAX_MEMBER_BYTES = 256_000_000
ZIP_HEAD = b"PK"
TABLE = "csv"  # tells the column of its text from the file, where nothing names it
SOURCE = "code"  # a file of a source tree is read from memory: its language is told by its name


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive. num_bytes: of its data in the archive; framing: further bytes of the archive that are counted with it.

    fault: why it is not read. Without one, `pieces` yields what it unpacks to, or raises Refused.
    """

    name: str
    num_bytes: int
    framing: tuple[Skip, ...] = ()
    pieces: Callable[[], Iterable[bytes]] = tuple
    fault: tuple[Fate, str, str] | None = None


class Archive(Format[ReadArchive]):
    """A member gives the records of its format."""

    shard_bytes = (2_000_000, 32_000_000)

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """Spans of a ZIP are members; a tar is one span."""
        try:
            with path.open("rb") as file:
                listing = _listing(file, path)
        except (OSError, Refused):
            listing = None  # `read` says what is wrong
        if listing is None:
            return super().spans(path, name=name, limit=limit)
        return cut_evenly(path, name=name, units=max(1, len(listing.members)), limit=limit)

    def read(self, span: Span, settings: ReadArchive) -> Iterator[Record]:
        """The records of the members of the span."""
        try:
            span.path.open("rb").close()
        except OSError as error:
            yield unreadable(span.path, span.name, error)
            return
        yield from _read(span, settings)

    def next_entry(self, span: Span, entry: int) -> int | None:
        """The next member."""
        behind = replace(span, start=entry + 1)
        with _members(behind) as items:
            return next((entry + 1 for item in items if isinstance(item, Member)), None)

    def content(self, span: Span, settings: ReadArchive) -> Content:
        """The bytes of a whole archive, with the content of the members that are read in place of their data; a part, member by member."""
        try:
            span.path.open("rb").close()
        except OSError:
            return Content(num_bytes=size_of(span.path))
        own = more = 0
        with _members(span) as items:
            for item in items:
                own += item.num_bytes
                if isinstance(item, Member):
                    own += sum(skip.num_bytes for skip in item.framing)
                    more += _content(item, span, settings) - item.num_bytes
        if span.start == 0 and span.end is None:
            own = _whole(span.path)
        return Content(num_bytes=own + more)


FORMAT = Archive()


def _read(span: Span, settings: ReadArchive) -> Iterator[Record]:
    with _members(span) as items:
        number = span.start
        for item in items:
            if isinstance(item, Skip):
                yield item
                continue
            begun, before = False, Counter[str]()
            for record in _records(item, span, settings):
                if isinstance(record, Skip):
                    if begun:
                        yield record
                    else:
                        before[record.reason] += record.num_bytes
                    continue
                yield replace(record, entry=None if begun else number)
                begun = True
            if not begun:
                origin = f"{span.name}#{item.name}"
                lost = Unread(id=origin, origin=origin, bytes_in=0, kind="dropped", reason="no_records", entry=number)
                yield lost
            yield from (Skip(reason=reason, num_bytes=size) for reason, size in before.items())
            yield from item.framing
            number += 1


# ── one member ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _records(member: Member, span: Span, settings: ReadArchive) -> Iterator[Record]:
    """The records of a member; one if it is not read."""
    origin, reader = f"{span.name}#{member.name}", _reader(member.name)
    fault = member.fault or _not_read(member.name, reader)
    if fault is None and reader is not None:
        try:
            with _spooled(member) as file:
                inner, read = _inner(file, origin, reader, settings)
                if inner is None:
                    yield source_record(file.read(), name=member.name, origin=origin)
                else:
                    yield from format_named(read.format).read(inner, read)
        except Refused as error:
            fault = "failed", error.reason, str(error)
    if fault is not None:
        kind, reason, detail = fault
        yield Unread(id=origin, origin=origin, bytes_in=member.num_bytes, kind=kind, reason=reason, detail=detail)


def _content(member: Member, span: Span, settings: ReadArchive) -> int:
    """Bytes of content of a member that is read; its bytes in the archive if it is not."""
    reader = _reader(member.name)
    if reader is None or member.fault or _not_read(member.name, reader):
        return member.num_bytes
    try:
        with _spooled(member) as file:
            inner, read = _inner(file, span.name, reader, settings)
            if inner is None:
                return file.seek(0, 2)
            return format_named(read.format).content(inner, read).num_bytes
    except Refused:
        return member.num_bytes


def _reader(name: str) -> type[ReadFiles] | None:
    return reader_of(PurePosixPath(name).name)


def _not_read(name: str, reader: type[ReadFiles] | None) -> tuple[Fate, str, str] | None:
    if any(part.startswith(".") and part not in (".", "..") for part in PurePosixPath(name).parts):
        return "dropped", "hidden_file", ""
    if reader is None:
        return "dropped", "other_suffix", PurePosixPath(name).suffix[:20]
    return ("dropped", "nested_archive", "") if reader is ReadArchive else None


def _inner(file: IO[bytes], name: str, reader: type[ReadFiles], settings: ReadArchive) -> tuple[Span | None, ReadFiles]:
    """The span of a member in its temporary file, None for a source file; and its settings."""
    kind = next(kind for kind, known in READERS.items() if known is reader)
    keys: dict[str, Any] = {"format": kind, "paths": [name], "passage_chars": settings.passage_chars}
    if reader.text_key is not None and (settings.text_column is not None or kind == TABLE):
        keys[reader.text_key] = settings.text_column
    path = Path(f"/dev/fd/{file.fileno()}")
    span = None if kind == SOURCE else Span(path=path, name=name, size=size_of(path))
    return span, reader.model_validate(keys)


@contextmanager
def _spooled(member: Member) -> Iterator[IO[bytes]]:
    """A member in a temporary file without a name. Raises Refused."""
    with tempfile.TemporaryFile(prefix="gristmill-") as file:
        for piece in member.pieces():
            file.write(piece)
        file.flush()
        file.seek(0)
        yield file


# ── members of both kinds of archives ────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _members(span: Span) -> Iterator[Iterator[Member | Skip]]:
    """The members of a span, and the bytes after the last one."""
    with span.path.open("rb") as file:
        try:
            listing = _listing(file, span.path)
        except Refused as error:
            fault: tuple[Fate, str, str] = "failed", error.reason, str(error)
            whole = Member(name="0", num_bytes=size_of(span.path), fault=fault)
            yield iter([whole] if span.start == 0 else [])
            return
        if listing is not None:
            yield _zip_members(file, listing, span.start, span.end)
            return
    with closing(open_content(span.path)) as content:
        items = _tar_members(content, span.start)
        yield items if span.end is None else _until(items, span.end - span.start)


def _listing(file: IO[bytes], path: Path) -> ZipListing | None:
    """The directory of a ZIP archive; None for a tar. Raises Refused for a ZIP with a damaged directory."""
    first = file.read(MAGIC_AT + len(MAGIC))
    if packing_of(path) is not None or first[MAGIC_AT:] == MAGIC:
        return None
    try:
        return list_zip(file)
    except Refused:
        if first.startswith(ZIP_HEAD):
            raise
        return None


def _zip_members(file: IO[bytes], listing: ZipListing, start: int, end: int | None) -> Iterator[Member | Skip]:
    names = Counter(member.name for member in listing.members)
    for number, member in islice(enumerate(listing.members), start, end):
        reason, framing = member.framing
        yield Member(
            name=member.name if names[member.name] == 1 else f"{number}/{member.name}",
            num_bytes=member.num_bytes - framing,
            framing=(Skip(reason=reason, num_bytes=framing),),
            pieces=partial(unpacked, file, member, max_bytes=MAX_MEMBER_BYTES),
        )
    if end is None or end >= len(listing.members):
        yield Skip(reason="zip_framing", num_bytes=listing.tail)


def _tar_members(content: Any, start: int) -> Iterator[Member | Skip]:
    """The members from number `start` on. Bytes before a member are counted with it."""
    number = 0
    pending: list[Skip] = []

    def is_wanted(name: str, size: int) -> bool:
        is_read = _not_read(name, _reader(name)) is None
        return is_read and number >= start and size <= MAX_MEMBER_BYTES

    for item in read_tar(content, wanted=is_wanted):
        if isinstance(item, Skip):
            pending.append(item)
            continue
        if number >= start:
            yield _tar_member(item, tuple(pending), number)
        number += 1
        pending = []
    if number >= start:
        yield from pending


def _tar_member(item: TarFile | Damage, framing: tuple[Skip, ...], number: int) -> Member:
    if isinstance(item, Damage):
        damage: tuple[Fate, str, str] = "failed", "corrupt_archive", item.detail
        return Member(name=str(number), num_bytes=item.num_bytes, framing=framing, fault=damage)
    fault: tuple[Fate, str, str] | None = None
    if item.is_sparse:
        fault = "dropped", "sparse_file", ""
    elif item.num_bytes < item.size:
        fault = "failed", "corrupt_archive", f"{item.num_bytes:,} of {item.size:,} bytes are there"
    elif item.size > MAX_MEMBER_BYTES:
        fault = "failed", "file_too_large", f"{item.size:,} bytes, the limit is {MAX_MEMBER_BYTES:,}"
    data = item.data or b""
    return Member(name=item.name, num_bytes=item.num_bytes, framing=framing, pieces=lambda: [data], fault=fault)


def _until(items: Iterator[Member | Skip], count: int) -> Iterator[Member | Skip]:
    """The first `count` members, and the bytes after the last one if there are no more."""
    for item in items:
        if isinstance(item, Member):
            if count == 0:
                return
            count -= 1
        yield item


def _whole(path: Path) -> int:
    """Bytes of an archive, measured without looking at its members."""
    return unpacked_bytes(path) if packing_of(path) is not None else size_of(path)
