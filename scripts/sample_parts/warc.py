"""Writing a WARC/1.1 file of gzip members, one for each record, with the same bytes on every run (ISO 28500:2017)."""

from __future__ import annotations

import base64
import hashlib
import uuid
import zlib

WARC_DATE = "2026-01-15T09:30:00Z"
HTTP_DATE = "Thu, 15 Jan 2026 09:30:00 GMT"


def record_id(url: str) -> str:
    """The record's name, made from its URL: urn:uuid with a version 5 UUID."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}"


def sha1_base32(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode("ascii")


def gzip_member(data: bytes) -> bytes:
    """One whole gzip member; its header holds no time and no name."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _record(headers: list[tuple[str, str]], block: bytes) -> bytes:
    lines = [*headers, ("Content-Length", str(len(block)))]
    head = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
    return head.encode("utf-8") + block + b"\r\n\r\n"


def warcinfo(filename: str) -> bytes:
    block = (
        b"software: gristmill scripts/make_sample.py\r\n"
        b"format: WARC File Format 1.1\r\n"
        b"conformsTo: https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/\r\n"
        b"description: pages of free documentation packages under the addresses they are published at\r\n"
    )
    headers = [
        ("WARC-Type", "warcinfo"),
        ("WARC-Record-ID", f"<{record_id(filename)}>"),
        ("WARC-Date", WARC_DATE),
        ("WARC-Filename", filename),
        ("Content-Type", "application/warc-fields"),
        ("WARC-Block-Digest", sha1_base32(block)),
    ]
    return gzip_member(_record(headers, block))


def response(url: str, html: bytes) -> bytes:
    """A response record for an HTML page, as one gzip member."""
    http = (
        "HTTP/1.1 200 OK\r\n"
        f"Date: {HTTP_DATE}\r\n"
        "Content-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(html)}\r\n\r\n"
    ).encode("ascii")
    block = http + html
    headers = [
        ("WARC-Type", "response"),
        ("WARC-Record-ID", f"<{record_id(url)}>"),
        ("WARC-Date", WARC_DATE),
        ("WARC-Target-URI", url),
        ("Content-Type", "application/http; msgtype=response"),
        ("WARC-Block-Digest", sha1_base32(block)),
        ("WARC-Payload-Digest", sha1_base32(html)),
        ("WARC-Identified-Payload-Type", "text/html"),
    ]
    return gzip_member(_record(headers, block))


def damage(member: bytes) -> bytes:
    """The member with 64 bytes in the middle of its deflate stream overwritten, so that it cannot be unpacked.

    Raises ValueError if the result can be unpacked after all.
    """
    at = len(member) // 2
    spoilt = member[:at] + b"\xff" * 64 + member[at + 64 :]
    try:
        zlib.decompressobj(31).decompress(spoilt)
    except zlib.error:
        return spoilt
    raise ValueError("the damaged member can still be unpacked; choose another page for it")


def payload(member: bytes) -> bytes:
    """The HTTP body of a response record's gzip member."""
    return zlib.decompress(member, 31).split(b"\r\n\r\n", 2)[2].removesuffix(b"\r\n\r\n")
