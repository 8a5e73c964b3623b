"""Web archives: one gzip member a record, read within bounds, resuming after a damaged member.

fastwarc stops at the first damaged byte. Here the rest of the file is not lost: the damaged stretch is one failed
record, and reading resumes at the next gzip member that parses. A record is held back until what follows it has
parsed, because only then is it known that its own member was whole and its Content-Length right.
"""

from __future__ import annotations

import base64
import hashlib
import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecord

from gristmill.data.record import MAX_DOCUMENT_BYTES, Fate, RawDocument, Record, Unread, failed
from gristmill.formats.format import Format, Span, cut_evenly, size_of
from gristmill.recipe.schema.formats import ReadWarc

GZIP_MAGIC = b"\x1f\x8b\x08"
PLAIN_MAGIC = b"\r\n\r\nWARC/1."
DOCUMENT_TYPES = ("response", "resource", "conversion")
HTML_TYPES = ("text/html", "application/xhtml+xml")
MAX_HTTP_HEAD_BYTES = 64_000
MAX_MEMBER_BYTES = 1 << 30


class Warc(Format[ReadWarc]):
    """A response, resource or conversion record is a document."""

    shard_bytes = (500_000, 8_000_000)

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """Spans are bytes of the file as it lies on the disk."""
        return cut_evenly(path, name=name, units=size_of(path), limit=limit)

    def read(self, span: Span, settings: ReadWarc) -> Iterator[Record]:
        """The records that begin in the span."""
        return read_warc(span.path, name=span.name, start=span.start, end=span.end)


FORMAT = Warc()


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One WARC record: its headers of interest and its block, cut at the limit plus one byte."""

    position: int
    kind: str
    id: str
    url: str | None
    content_type: str
    payload_type: str
    block_digest: str | None
    payload_digest: str | None
    content_length: int
    data: bytes


def read_warc(
    path: Path, *, name: str, start: int = 0, end: int | None = None, max_bytes: int = MAX_DOCUMENT_BYTES
) -> Iterator[RawDocument | Unread]:
    """The HTML pages (and extracted texts of WET files) of a WARC file, plain or gzip, and what became of the others.

    Records of the types response, resource and conversion are documents; request, metadata and the like are not.
    `name` is the file in origins. `start` and `end` are byte offsets in the file: records that begin in
    [start, end) are read, so that spans of one file can be read apart and together give each record once.
    """
    for item in _blocks(path, name, start, path.stat().st_size if end is None else end, max_bytes):
        if isinstance(item, Unread):
            yield item
        elif item.kind in DOCUMENT_TYPES:
            yield _document(item, name, max_bytes)


# ── records, in spite of damage ──────────────────────────────────────────────────────────────────────────────────────


def _blocks(path: Path, name: str, start: int, end: int, max_bytes: int) -> Iterator[Block | Unread]:
    if path.stat().st_size == 0 or start >= end:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        compressed = data[:2] == GZIP_MAGIC[:2] or (path.suffix == ".gz" and data[:5] != b"WARC/")
        position = start if start == 0 else _next_record(data, start, compressed)
        pending: Block | Unread | None = None
        pending_end: int | None = None
        gap = start if start == 0 else None
        while position < len(data) and (position < end or pending is not None or gap is not None):
            last = None
            for block in _attempt(path, name, position, max_bytes):
                begins = block.position if isinstance(block, Block) else _offset_of(block)
                if last is None and pending is not None:
                    wrong = pending_end == begins and isinstance(pending, Block)
                    yield _as_failed(pending, name, "wrong_content_length") if wrong else pending
                elif last is not None and pending is not None:
                    yield pending
                pending = None
                if last is None and gap is not None and begins > gap:
                    yield failed(f"{name}#{gap}", "corrupt_member", bytes_in=begins - gap)
                gap = None
                if begins >= end:
                    return
                pending, last = block, begins
            # The attempt ended: at the end of the file, or at something that does not parse.
            if last is None:
                position = _next_record(data, position + 1, compressed)
                continue
            if not compressed:
                yield from _released(pending)
                pending, gap, position = None, None, _next_record(data, last + 1, compressed)
                continue
            pending_end = _member_end(data, last)
            if pending_end is None:
                if pending is not None:
                    yield _as_failed(pending, name, "corrupt_member")
                pending, gap, position = None, None, _next_record(data, last + 1, compressed)
            else:
                gap, position = pending_end, _next_record(data, pending_end, compressed)
        if pending is not None:
            yield pending
        if gap is not None and gap < len(data):
            yield failed(f"{name}#{gap}", "corrupt_member", bytes_in=len(data) - gap)


def _attempt(path: Path, name: str, position: int, max_bytes: int) -> Iterator[Block | Unread]:
    """Records from `position` until the end or the first error; a member that breaks while it is read is the last."""
    with path.open("rb") as file:
        file.seek(position)
        record = None
        try:
            for record in ArchiveIterator(file, parse_http=False):
                yield _block(record, record.reader.read(max_bytes + 1))
                record = None
        except (OSError, ValueError, UnicodeError) as error:
            if record is not None and record.stream_pos is not None:
                yield failed(
                    f"{name}#{record.stream_pos}",
                    "corrupt_member",
                    bytes_in=max(0, record.content_length),
                    detail=str(error),
                    id=(record.headers.get("WARC-Record-ID") or "").strip("<>"),
                )


def _released(pending: Block | Unread | None) -> Iterator[Block | Unread]:
    if pending is not None:
        yield pending


def _block(record: WarcRecord, data: bytes) -> Block:
    headers = record.headers
    return Block(
        position=record.stream_pos,
        kind=(headers.get("WARC-Type") or "").lower(),
        id=(headers.get("WARC-Record-ID") or "").strip("<>"),
        url=headers.get("WARC-Target-URI"),
        content_type=(headers.get("Content-Type") or "").lower(),
        payload_type=(headers.get("WARC-Identified-Payload-Type") or "").lower(),
        block_digest=headers.get("WARC-Block-Digest"),
        payload_digest=headers.get("WARC-Payload-Digest"),
        content_length=record.content_length,
        data=data,
    )


def _as_failed(block: Block | Unread, name: str, reason: str) -> Block | Unread:
    """The held record as a failure; records that are no documents stay what they are."""
    if isinstance(block, Unread) or block.kind not in DOCUMENT_TYPES:
        return block
    return failed(f"{name}#{block.position}", reason, bytes_in=len(block.data), id=block.id)


def _offset_of(unread: Unread) -> int:
    return int(unread.origin.rpartition("#")[2])


def _next_record(data: mmap.mmap, position: int, compressed: bool) -> int:
    """Offset of the next place at or after `position` that may begin a record; the file's length when there is none."""
    if compressed:
        found = data.find(GZIP_MAGIC, position)
        return len(data) if found < 0 else found
    found = data.find(PLAIN_MAGIC, max(0, position - len(b"\r\n\r\n")))
    return len(data) if found < 0 else found + len(b"\r\n\r\n")


def _member_end(data: mmap.mmap, position: int) -> int | None:
    """Where the gzip member at `position` ends; None when it is damaged, cut off or absurdly large."""
    unpacker, offset, unpacked = zlib.decompressobj(31), position, 0
    while offset < len(data):
        chunk = data[offset : offset + 65536]
        offset += len(chunk)
        try:
            while chunk and not unpacker.eof:
                unpacked += len(unpacker.decompress(chunk, 1 << 20))
                chunk = unpacker.unconsumed_tail
        except zlib.error:
            return None
        if unpacker.eof:
            return offset - len(unpacker.unused_data)
        if unpacked > MAX_MEMBER_BYTES:
            return None
    return None


# ── from a record to a page ──────────────────────────────────────────────────────────────────────────────────────────


def _document(block: Block, name: str, max_bytes: int) -> RawDocument | Unread:
    origin = f"{name}#{block.position}"
    id, size = block.id or origin, len(block.data)

    def unread(reason: str, detail: str = "", *, kind: Fate = "failed") -> Unread:
        return Unread(id=id, origin=origin, bytes_in=size, kind=kind, reason=reason, detail=detail, url=block.url)

    if size > max_bytes:
        return unread("record_too_large", f"{block.content_length:,} bytes, the limit is {max_bytes:,}")
    if size != block.content_length:
        return unread("truncated_record", f"{size:,} of {block.content_length:,} bytes")
    if not _digest_holds(block.block_digest, block.data):
        return unread("wrong_digest", f"block is not {block.block_digest}")
    body, content_type, encoding, status = block.data, block.content_type, "", 200
    if block.kind == "response" and block.content_type.startswith("application/http"):
        head, found, body = block.data.partition(b"\r\n\r\n")
        if not found or not head.startswith(b"HTTP/") or len(head) > MAX_HTTP_HEAD_BYTES:
            return unread("bad_http_head", repr(head[:80]))
        status, headers = _http_head(head)
        stored = body
        if "chunked" in headers.get("transfer-encoding", ""):
            body = _unchunked(body)
        if not any(_digest_holds(block.payload_digest, candidate) for candidate in (stored, body)):
            return unread("wrong_digest", f"payload is not {block.payload_digest}")
        content_type, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
    if status != 200:
        return unread("http_status", str(status), kind="dropped")
    unpacked = _decoded(body, encoding, max_bytes)
    if isinstance(unpacked, str):
        return unread(unpacked, f"content encoding {encoding!r}")
    if block.kind == "conversion":
        text = unpacked.decode("utf-8", "replace")
        return RawDocument(id=id, origin=origin, bytes_in=size, text=text, url=block.url)
    if not _is_html(block.payload_type, content_type, unpacked):
        return unread("not_html", block.payload_type or content_type, kind="dropped")
    charset = content_type.partition("charset=")[2].partition(";")[0] or None
    return RawDocument(id=id, origin=origin, bytes_in=size, payload=unpacked, url=block.url, charset=charset)


def _http_head(head: bytes) -> tuple[int, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0].split(" ", 2)[1:2]
    pairs = (line.partition(":") for line in lines[1:])
    headers = {key.strip().lower(): value.strip().lower() for key, _, value in pairs}
    return int(status[0]) if status and status[0].isascii() and status[0].isdigit() else 0, headers


def _unchunked(body: bytes) -> bytes:
    """The body without HTTP chunk frames; as it is when it has none (archives often keep only the header)."""
    parts: list[bytes] = []
    position = 0
    while True:
        line_end = body.find(b"\r\n", position, position + 100)
        size_text = body[position:line_end].partition(b";")[0].strip()
        if line_end < 0 or not size_text or size_text.strip(b"0123456789abcdefABCDEF"):
            return body
        size = int(size_text, 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + size])
        position = line_end + 2 + size + 2
        if position > len(body):
            return body


def _decoded(body: bytes, encoding: str, max_bytes: int) -> bytes | str:
    """The body without its HTTP content encoding, or the reason why not."""
    if encoding in ("", "identity"):
        return body
    if encoding in ("gzip", "x-gzip") and not body.startswith(GZIP_MAGIC[:2]):
        return body  # already unpacked by whoever wrote the archive
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return "unknown_content_encoding"
    for window_bits in (47, -15):  # gzip or zlib by their heads; then raw deflate
        unpacker = zlib.decompressobj(window_bits)
        try:
            data = unpacker.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(data) > max_bytes:
            return "unpacked_too_large"
        return data if unpacker.eof else "bad_content_encoding"
    return "bad_content_encoding"


def _digest_holds(digest: str | None, data: bytes) -> bool:
    """True unless the header names a digest of a known kind that `data` does not have."""
    if digest is None:
        return True
    algorithm, _, expected = digest.strip().partition(":")
    if algorithm.lower() not in ("sha1", "sha256", "md5"):
        return True
    actual = hashlib.new(algorithm.lower(), data, usedforsecurity=False)
    base32 = base64.b32encode(actual.digest()).decode().rstrip("=")
    return expected.rstrip("=").upper() == base32 or expected.lower() == actual.hexdigest()


def _is_html(payload_type: str, content_type: str, body: bytes) -> bool:
    told = payload_type or content_type
    if told:
        return told.partition(";")[0].strip() in HTML_TYPES
    start = body[:1024].lower()
    return b"<html" in start or b"<!doctype html" in start
