"""Tar archives read as a stream, member by member, in bounded memory and in spite of damage. Nothing is unpacked to disk.

    512-byte header, data, zeros up to a multiple of 512      a member; what is not data is its framing
    header of type x, X, g, L or K, data, zeros               says more of the member after it: a long name, a size
    blocks of zeros                                           the end; an archive appended to it is read too

Damage, a header whose checksum is wrong or a gap of the content, ends at the next header that is sound: at any byte by its
magic, which headers have since 1988, or at a multiple of 512 where there is no gap. Names are strings and are used as such only.

Headers are parsed by Python's tarfile, which cannot read archives itself here: it holds pax headers of any size in memory,
unpacks sparse files to any size, and stops at the first damaged block.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from gristmill.data.record import Skip
from gristmill.formats.content import ContentFile
from gristmill.formats.members import Gap

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENDED_BYTES = 1 << 20  # of a header that says more of a member; PATH_MAX is 4,096
PIECE_BYTES = 1 << 18
ZEROS = bytes(PIECE_BYTES)
MAGIC = b"ustar"
MAGIC_AT = 257
CHECKSUM = slice(148, 156)
SPARSE_IS_EXTENDED = 482  # in the header of a sparse file; a block of the map follows
SPARSE_MAP_IS_EXTENDED = 504  # in such a block
PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENDED_TYPES = (*PAX_TYPES, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
LINK_TYPES = (tarfile.LNKTYPE, tarfile.SYMTYPE)


@dataclass(frozen=True, kw_only=True, slots=True)
class TarFile:
    """A file of an archive. `size` is what its header says, `num_bytes` of it are there: fewer where the archive is cut or
    damaged. `data`: all of them; None if nobody asked for them. Headers and padding are Skips of their own."""

    name: str
    size: int
    num_bytes: int
    data: bytes | None
    is_sparse: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Bytes from `position` of the content on that belong to no sound member, bytes on disk of gaps included."""

    position: int
    num_bytes: int
    detail: str


def read_tar(file: ContentFile, *, wanted: Callable[[str, int], bool]) -> Iterator[TarFile | Damage | Skip]:
    """The files of an archive, and all else as Skips and Damage. wanted(name, size): whether the data of a file is read."""
    source = _Stretches(file)
    more = _More()
    while True:
        start = source.position
        block = source.read(BLOCK)
        header = _header(block)
        if not block.strip(b"\0") and block:
            yield Skip(reason="tar_padding", num_bytes=len(block) + _pass_zeros(source))
        elif header is not None and header.type in EXTENDED_TYPES:
            more = yield from _extended(source, header, more)
            continue
        elif header is not None and header.isreg():
            yield from _file(source, block, header, more, wanted)
        elif header is not None:
            yield from _other(source, header)
        elif len(block) == BLOCK:
            source.push_back(block)  # the next header may begin inside
            yield from _resync(source, start, 0, "no sound header", is_aligned=True)
        elif (gap := source.next_gap()) is not None:
            yield from _resync(source, start, len(block) + gap.num_bytes, f"gzip: {gap.fault}", is_aligned=False)
        else:
            if block or not (start or file.gaps):
                detail = "the archive is cut off" if block else "the file is empty"
                yield Damage(position=start, num_bytes=len(block), detail=detail)
            return
        more = _More()


# ── content without gaps ─────────────────────────────────────────────────────────────────────────────────────────────


class _Stretches:
    """The content of a file in reads that never cross a gap."""

    def __init__(self, file: ContentFile) -> None:
        self.position = 0
        self._file = file
        self._ahead = b""
        self._gaps_met = 0

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer at a gap or at the end only, and none until the gap was taken by `next_gap`."""
        data = self._ahead
        if len(data) < size:
            data += self._file.read(size - len(data))
        if self._gaps_met < len(self._file.gaps):
            size = min(size, self._file.gaps[self._gaps_met].position - self.position)
        data, self._ahead = data[:size], data[size:]
        self.position += len(data)
        return data

    def push_back(self, data: bytes) -> None:
        """What was read last is read again; it did not cross a gap."""
        self._ahead = data + self._ahead
        self.position -= len(data)

    def next_gap(self) -> Gap | None:
        """The gap that ended the last read; None at the end of the content."""
        if self._gaps_met == len(self._file.gaps):
            return None
        self._gaps_met += 1
        return self._file.gaps[self._gaps_met - 1]

    def skip(self, size: int) -> int:
        """Passes over `size` bytes; returns how many there were before a gap or the end."""
        left = size
        while left and (piece := self.read(min(left, PIECE_BYTES))):
            left -= len(piece)
        return size - left


def _pass_zeros(source: _Stretches) -> int:
    """Passes over blocks of zeros; returns their bytes."""
    passed = 0
    while piece := source.read(PIECE_BYTES):
        if piece != ZEROS[: len(piece)]:
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            zeros -= zeros % BLOCK
            source.push_back(piece[zeros:])
            return passed + zeros
        passed += len(piece)
    return passed


def _resync(source: _Stretches, start: int, lost: int, detail: str, *, is_aligned: bool) -> Iterator[Damage]:
    """Moves to the next sound header, or to the end, and counts what lies before it, `lost` bytes included."""
    window = b""
    while True:
        piece = source.read(PIECE_BYTES)
        if piece:
            window += piece
            found = _find_header(window, is_aligned=is_aligned)
            if found is not None:
                source.push_back(window[found:])
                yield Damage(position=start, num_bytes=lost + found, detail=detail)
                return
            passed = max(0, len(window) // BLOCK - 1) * BLOCK  # what is left holds any header that is cut off here
            lost, window = lost + passed, window[passed:]
            continue
        lost += len(window)
        window, gap = b"", source.next_gap()
        if gap is None:
            yield Damage(position=start, num_bytes=lost, detail=detail)
            return
        lost, is_aligned = lost + gap.num_bytes, False


def _find_header(window: bytes, *, is_aligned: bool) -> int | None:
    """Where in the window the first sound header begins: at any byte by its magic, else at a multiple of BLOCK."""
    found = len(window)
    at = window.find(MAGIC, MAGIC_AT)
    while 0 <= at <= len(window) - BLOCK + MAGIC_AT:
        if _header(window[at - MAGIC_AT : at - MAGIC_AT + BLOCK]) is not None:
            found = at - MAGIC_AT
            break
        at = window.find(MAGIC, at + 1)
    aligned = range(0, min(found, len(window) - BLOCK + 1), BLOCK) if is_aligned else ()
    found = next((start for start in aligned if _header(window[start : start + BLOCK]) is not None), found)
    return found if found < len(window) else None


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, slots=True)
class _More:
    """What headers of their own say of the next member."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False


def _header(block: bytes) -> tarfile.TarInfo | None:
    """The header in a block; None if it is not sound."""
    if len(block) < BLOCK or not block[CHECKSUM].strip(b" \0").isdigit():  # most of what is none, cheaply
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return header if header.size >= 0 else None


def _padding(size: int) -> int:
    return -size % BLOCK


def _extended(source: _Stretches, header: tarfile.TarInfo, more: _More) -> Generator[Damage | Skip, None, _More]:
    """What a header says of the next member, added to what others said; one above the limit is passed over as damage."""
    start, padded = source.position - BLOCK, header.size + _padding(header.size)
    if header.size > MAX_EXTENDED_BYTES:
        there = source.skip(padded)
        detail = f"a header of {header.size:,} bytes, the limit is {MAX_EXTENDED_BYTES:,}"
        yield Damage(position=start, num_bytes=BLOCK + there, detail=detail)
        return more
    data = source.read(padded)
    if len(data) < header.size:
        yield Damage(position=start, num_bytes=BLOCK + len(data), detail="a header is cut off")
        return more
    yield Skip(reason="tar_header", num_bytes=BLOCK + len(data))
    data = data[: header.size]
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return replace(more, name=data.partition(b"\0")[0].decode("utf-8", "surrogateescape"))
    return _pax(data, more) if header.type in PAX_TYPES else more


def _pax(data: bytes, more: _More) -> _More:
    """The records "length key=value\\n" of a pax header, up to the first one that is none."""
    at = 0
    while at < len(data):
        length, found, _ = data[at : at + 20].partition(b" ")
        end = at + int(length) if found and length.isdigit() else at
        key, found, value = data[at + len(length) + 1 : end - 1].partition(b"=")
        if end <= at or data[end - 1 : end] != b"\n" or not found:
            break
        if key in (b"path", b"GNU.sparse.name"):
            more = replace(more, name=value.decode("utf-8", "surrogateescape").rstrip("/"))
        elif key == b"size" and value.isdigit():
            more = replace(more, size=int(value))
        more = replace(more, is_sparse=more.is_sparse or key.startswith(b"GNU.sparse."))
        at = end
    return more


# ── members ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _file(
    source: _Stretches, block: bytes, header: tarfile.TarInfo, more: _More, wanted: Callable[[str, int], bool]
) -> Iterator[TarFile | Skip]:
    """A file, its data only if it is wanted, and its framing."""
    is_sparse, framing = more.is_sparse, BLOCK
    if header.type == tarfile.GNUTYPE_SPARSE:
        is_sparse, framing = True, BLOCK + _pass_sparse_map(source, is_extended=block[SPARSE_IS_EXTENDED] != 0)
    name = header.name if more.name is None else more.name
    size = header.size if more.size is None else more.size
    if not is_sparse and wanted(name, size):
        data: bytes | None = source.read(size)
        there = len(data or b"")
    else:
        data, there = None, source.skip(size)
    framing += source.skip(_padding(size)) if there == size else 0
    yield TarFile(name=name, size=size, num_bytes=there, data=data, is_sparse=is_sparse)
    yield Skip(reason="tar_header", num_bytes=framing)


def _pass_sparse_map(source: _Stretches, *, is_extended: bool) -> int:
    """Passes over the blocks that hold the rest of a sparse file's map; returns their bytes."""
    num_bytes = 0
    while is_extended and (block := source.read(BLOCK)):
        num_bytes += len(block)
        is_extended = block[SPARSE_MAP_IS_EXTENDED : SPARSE_MAP_IS_EXTENDED + 1] not in (b"", b"\0")
    return num_bytes


def _other(source: _Stretches, header: tarfile.TarInfo) -> Iterator[Skip]:
    """A folder, link, device, or a member of a type that nobody knows; only the last may have data."""
    there = 0 if header.type in tarfile.SUPPORTED_TYPES else source.skip(header.size + _padding(header.size))
    kind = "tar_folder" if header.isdir() else "tar_link" if header.type in LINK_TYPES else "tar_special_file"
    yield Skip(reason=kind, num_bytes=BLOCK + there)
