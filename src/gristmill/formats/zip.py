"""ZIP archives by their directory: the members, their places in the file, and what they unpack to.

    [ local header, data, perhaps a descriptor ] ...   [ directory ] [ end ]
      a slot: from one header to the next               tail

Slots and tail tile the file, so accounting for each slot and the tail accounts for every byte. Slots are sorted by place; folders
have no slot of their own, their few bytes belong to the one before. Names are only strings: nothing is unpacked to a path.

Python's zipfile is not used: one name that is not UTF-8 makes the whole archive unreadable, and a directory of any size is held in memory.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from gristmill.data import deadline

END = struct.Struct("<4s4H2LH")
END64_LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
MAX_COMMENT_BYTES = 65_535
ZIP64_FIELD = 1
IN_ZIP64 = 0xFFFFFFFF
IS_ENCRYPTED, IS_UTF8 = 1 << 0, 1 << 11
STORED, DEFLATED = 0, 8
MAX_DIRECTORY_BYTES = 64_000_000  # about a million members
MAX_RATIO = 200  # deflate's maximum is 1,032; documentation has about 4, logs about 50
FREE_RATIO_BYTES = 1_000_000  # members up to this size may have any ratio
SLACK_BYTES = 16_384  # a header's extra field, a descriptor, an alignment to pages
PIECE_BYTES = 1 << 20
EXTEND_EVERY = 10_000


class Refused(Exception):
    """An archive or a member that cannot be read, by reason."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class ZipMember:
    """A file in an archive. start, end: its slot. size: unpacked, as the directory says; no more bytes are delivered."""

    name: str
    start: int
    end: int
    header_at: int
    packed_size: int
    size: int
    checksum: int
    method: int
    is_encrypted: bool
    is_link: bool
    unlisted: bool

    @property
    def num_bytes(self) -> int:
        """Bytes on disk of the slot."""
        return self.end - self.start

    @property
    def framing(self) -> tuple[str, int]:
        """(reason for the bytes of the slot that are not packed data, their number)."""
        return "not_in_zip_directory" if self.unlisted else "zip_framing", max(0, self.num_bytes - self.packed_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class ZipListing:
    """The members by place, and the bytes on disk after the last slot."""

    members: list[ZipMember]
    tail: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """An entry of the directory."""

    name: str
    header_at: int
    packed_size: int
    size: int
    checksum: int
    method: int
    flags: int
    is_link: bool


def list_zip(file: IO[bytes]) -> ZipListing:
    """The members of an archive. Raises Refused for what is no archive, or one whose directory is damaged or too large."""
    size = file.seek(0, io.SEEK_END)
    begin, length, moved = _find_directory(file, size)
    if length > MAX_DIRECTORY_BYTES:
        raise Refused("too_many_members", f"a directory of {length:,} bytes, the limit is {MAX_DIRECTORY_BYTES:,}")
    entries = sorted(_entries(file, begin, length, moved), key=lambda entry: entry.header_at)
    members: list[ZipMember] = []
    start = framing = 0
    for number, entry in enumerate(entries):
        end = entries[number + 1].header_at if number + 1 < len(entries) else begin
        framing += LOCAL.size + len(entry.name.encode("utf-8", "replace"))
        if entry.name.endswith("/") and not entry.size:
            continue
        if not 0 <= entry.header_at <= end <= begin:
            raise Refused("corrupt_archive", f"the member {entry.name!r:.80} lies outside of the archive")
        members.append(
            ZipMember(
                name=entry.name,
                start=start,
                end=end,
                header_at=entry.header_at,
                packed_size=entry.packed_size,
                size=entry.size,
                checksum=entry.checksum,
                method=entry.method,
                is_encrypted=bool(entry.flags & IS_ENCRYPTED),
                is_link=entry.is_link,
                unlisted=end - start > entry.packed_size + framing + SLACK_BYTES,
            )
        )
        start, framing = end, 0
    return ZipListing(members=members, tail=size - start)


def unpacked(file: IO[bytes], member: ZipMember, *, max_bytes: int) -> Iterator[bytes]:
    """What a member unpacks to, in pieces. Raises Refused, at the latest behind the last piece: what came before is void then.

    Reasons: encrypted, link, unsupported_compression, overlapping_members, file_too_large, unpacked_too_large, corrupt_member.
    """
    if member.is_encrypted:
        raise Refused("encrypted", "it needs a password")
    if member.is_link:
        raise Refused("link")
    if member.method not in (STORED, DEFLATED):
        raise Refused("unsupported_compression", f"method {member.method}; stored and deflated are read")
    if member.header_at + LOCAL.size + member.packed_size > member.end:
        raise Refused("overlapping_members", f"its data reach beyond byte {member.end:,}, where the next one begins")
    if member.size > max_bytes:
        raise Refused("file_too_large", f"{member.size:,} bytes, the limit is {max_bytes:,}")
    if member.size > FREE_RATIO_BYTES + MAX_RATIO * member.packed_size:
        raise Refused("unpacked_too_large", f"{member.size:,} bytes in {member.packed_size:,}")
    return _unpacked(file, member)


def unpacked_whole(file: IO[bytes], member: ZipMember, *, max_bytes: int) -> bytes:
    """What a member unpacks to. Raises Refused."""
    return b"".join(unpacked(file, member, max_bytes=max_bytes))


def _unpacked(file: IO[bytes], member: ZipMember) -> Iterator[bytes]:
    file.seek(member.header_at)
    *_, name_length, extra_length = _fields(file, LOCAL, b"PK\3\4") or (member.end, 0)
    at = member.header_at + LOCAL.size + name_length + extra_length
    if at + member.packed_size > member.end:
        raise Refused("corrupt_member", f"no sound header at byte {member.header_at:,}")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
    left, size, checksum = member.packed_size, 0, 0
    data = b""
    while left or data:
        if not data:
            file.seek(at)  # whoever takes the pieces may move the file
            data = file.read(min(left, PIECE_BYTES))
            at, left = at + len(data), left - len(data)
            if not data:
                break
        try:
            piece = data if unpacker is None else unpacker.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise Refused("corrupt_member", str(error)) from error
        data = b"" if unpacker is None or unpacker.eof else unpacker.unconsumed_tail
        size, checksum = size + len(piece), zlib.crc32(piece, checksum)
        if size > member.size:
            break
        deadline.extend()
        yield piece
    if unpacker is not None and size < member.size:
        piece = unpacker.flush()
        size, checksum = size + len(piece), zlib.crc32(piece, checksum)
        yield piece
    if size != member.size or checksum != member.checksum:
        raise Refused("corrupt_member", f"{size:,} of {member.size:,} bytes, or their checksum is wrong")


def _find_directory(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """(where the directory begins, its length, by how much all places in it are to be moved)."""
    last = max(0, size - END.size - MAX_COMMENT_BYTES)
    file.seek(last)
    found = (data := file.read()).rfind(b"PK\5\6", 0, max(0, len(data) - END.size + 4))
    if found < 0:
        raise Refused("corrupt_archive", "no end of a directory")
    stop = last + found
    *_, length, offset, _ = END.unpack_from(data, found)
    file.seek(max(0, stop - END64_LOCATOR.size))
    if locator := _fields(file, END64_LOCATOR, b"PK\6\7"):
        for place in (stop - END64_LOCATOR.size - END64.size, locator[1]):
            file.seek(min(max(0, place), size))
            if end64 := _fields(file, END64, b"PK\6\6"):
                *_, length, offset = end64
                stop = place
                break
    begin = stop - length
    if not 0 <= begin <= stop:
        raise Refused("corrupt_archive", f"its directory has {length:,} bytes, there are {stop:,}")
    return begin, length, begin - offset


def _entries(file: IO[bytes], begin: int, length: int, moved: int) -> Iterator[_Entry]:
    at, end, number = begin, begin + length, 0
    file.seek(begin)
    while at < end:
        number += 1
        if number % EXTEND_EVERY == 0:
            deadline.extend()
        fields = _fields(file, ENTRY, b"PK\1\2")
        if fields is None:
            raise Refused("corrupt_archive", f"the directory is damaged behind {number - 1:,} members")
        made_by, _, flags, method, _, _, checksum, packed_size, size = fields[:9]
        name_length, extra_length, comment_length, _, _, attributes, header_at = fields[9:]
        name, extra = file.read(name_length), file.read(extra_length)
        file.seek(comment_length, io.SEEK_CUR)
        at += ENTRY.size + name_length + extra_length + comment_length
        if at > end:
            raise Refused("corrupt_archive", "the directory is longer than it says")
        size, packed_size, header_at = _with_zip64(extra, size, packed_size, header_at)
        yield _Entry(
            name=_name(name, is_utf8=bool(flags & IS_UTF8)),
            header_at=header_at + moved,
            packed_size=packed_size,
            size=size,
            checksum=checksum,
            method=method,
            flags=flags,
            is_link=made_by >> 8 == 3 and stat.S_ISLNK(attributes >> 16),
        )


def _fields(file: IO[bytes], layout: struct.Struct, signature: bytes) -> tuple[int, ...] | None:
    """The fields behind a signature; None where that is not the next thing in the file."""
    data = file.read(layout.size)
    return layout.unpack(data)[1:] if len(data) == layout.size and data.startswith(signature) else None


def _with_zip64(extra: bytes, *values: int) -> tuple[int, ...]:
    """The values, those that do not fit into 32 bits from the extra field."""
    at, wide = 0, iter(())
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == ZIP64_FIELD:
            field = extra[at + 4 : at + 4 + length]
            wide = (value for (value,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8]))
            break
        at += 4 + length
    return tuple(next(wide, value) if value == IN_ZIP64 else value for value in values)


def _name(name: bytes, *, is_utf8: bool) -> str:
    """As text: UTF-8 where it says so or is it, else the code page of old archives; what is neither as \\xNN."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("utf-8", "backslashreplace") if is_utf8 else name.decode("cp437")
