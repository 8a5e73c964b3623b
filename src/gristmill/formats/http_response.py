"""A stored HTTP response: its head, and its body without the transfer and content encodings it was sent in."""

from __future__ import annotations

import zlib

import pyarrow as pa

MAX_HEAD_BYTES = 64_000
GZIP_MAGIC = b"\x1f\x8b"
BEFORE_MARKUP = b"\xef\xbb\xbf \t\r\n"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
FEED_BYTES = 16_384  # what zlib leaves unused of them is copied for each member
HTML_TYPES = ("text/html", "application/xhtml+xml")


def split_response(data: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """(status or 0, headers in lower case, body as it is stored); None where `data` does not begin with an HTTP head."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found or not head.startswith(b"HTTP/") or len(head) > MAX_HEAD_BYTES:
        return None
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0].split(" ", 2)[1:2]
    pairs = (line.partition(":") for line in lines[1:])
    headers = {key.strip().lower(): value.strip().lower() for key, _, value in pairs}
    return int(status[0]) if status and status[0].isascii() and status[0].isdigit() else 0, headers, body


def unchunked(body: bytes) -> bytes:
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


def decoded(body: bytes, encoding: str, max_bytes: int) -> bytes | str:
    """The body without its HTTP content encoding, or the reason why not.

    Writers of archives often unpack it and keep the header (CC-NEWS did until May 2019), so a body that is not packed as told is taken as
    it is: one without the magic of gzip or zstd; of brotli, which has none, one that begins with markup and cannot be unpacked.
    """
    if encoding in ("", "identity"):
        return body
    if encoding == "br":
        unpacked = _streamed(body, "brotli", max_bytes)
        is_markup = body.lstrip(BEFORE_MARKUP).startswith(b"<")
        return body if unpacked == "bad_content_encoding" and is_markup else unpacked
    if encoding == "zstd":
        return _streamed(body, "zstd", max_bytes) if body.startswith(ZSTD_MAGIC) else body
    if encoding in ("gzip", "x-gzip") and not body.startswith(GZIP_MAGIC):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return "unknown_content_encoding"
    for window_bits in (47, -15):  # gzip or zlib by their heads; then raw deflate
        try:
            return _inflated(body, window_bits, max_bytes)
        except zlib.error:
            continue
    return "bad_content_encoding"


def _streamed(body: bytes, codec: str, max_bytes: int) -> bytes | str:
    """What a body unpacks to, by Arrow's codec of this name, or the reason why not."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
            unpacked = stream.read(max_bytes + 1)
    except OSError:
        return "bad_content_encoding"
    return unpacked if len(unpacked) <= max_bytes else "unpacked_too_large"


def _inflated(body: bytes, window_bits: int, max_bytes: int) -> bytes | str:
    """What a body unpacks to, all gzip members of it; bytes behind the last one are no part of it. Raises zlib.error."""
    parts, size, place = [], 0, 0
    unpacker = zlib.decompressobj(window_bits)
    while True:
        data = memoryview(body)[place : place + FEED_BYTES]
        part = unpacker.decompress(data, max_bytes + 1 - size)
        parts.append(part)
        size += len(part)
        place += len(data) - len(unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail)
        if size > max_bytes:
            return "unpacked_too_large"
        if unpacker.eof:
            if not body.startswith(GZIP_MAGIC, place):
                return b"".join(parts)
            unpacker = zlib.decompressobj(window_bits)
        elif not data and not part:
            return "bad_content_encoding"


def is_html(content_type: str, body: bytes) -> bool:
    """True where the content type says so; where none is told, where the body begins so."""
    if content_type:
        return content_type.partition(";")[0].strip() in HTML_TYPES
    start = body[:1024].lower()
    return b"<html" in start or b"<!doctype html" in start
