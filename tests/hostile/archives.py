"""Hostile web archives."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from hostile.hostile import Hostile, prose, scaled
from hostile.lines import repeated, write_packed


def page(seed: int) -> bytes:
    """A page with its HTTP head."""
    body = f"<html><body><p>{prose(seed, 200)}</p></body></html>".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body


def record(
    seed: int, block: bytes | None = None, *, length: object = None, kind: str = "response", more: str = ""
) -> bytes:
    """A record with its framing."""
    block = page(seed) if block is None else block
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{seed:012d}>\r\n"
        f"WARC-Target-URI: http://example.org/{seed}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"Content-Type: {'application/http; msgtype=response' if kind == 'response' else 'text/plain'}\r\n{more}"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def members(numbers: range) -> bytes:
    """Sound records, a gzip member each."""
    return b"".join(gzip.compress(record(number)) for number in numbers)


def warc_one_member(folder: Path, scale: float) -> Hostile:
    """All records in one gzip member, as `gzip crawl.warc` leaves them."""
    number = scaled(6000, scale)
    (folder / "x.warc.gz").write_bytes(gzip.compress(b"".join(map(record, range(number)))))
    return Hostile(kind="warc", path=folder / "x.warc.gz", documents=number)


def warc_members_that_cut_records(folder: Path, scale: float) -> Hostile:
    """Members that end where they end."""
    number = scaled(6000, scale)
    data = b"".join(map(record, range(number)))
    cut = [gzip.compress(data[at : at + 5000]) for at in range(0, len(data), 5000)]
    (folder / "x.warc.gz").write_bytes(b"".join(cut))
    return Hostile(kind="warc", path=folder / "x.warc.gz", documents=number)


def warc_plain(folder: Path, scale: float) -> Hostile:
    """Records as they are, requests between them."""
    number = scaled(6000, scale)
    both = (record(one) + record(one, b"GET / HTTP/1.1\r\n\r\n", kind="request") for one in range(number))
    (folder / "x.warc").write_bytes(b"".join(both))
    return Hostile(kind="warc", path=folder / "x.warc", documents=number)


def warc_damaged_member(folder: Path, scale: float) -> Hostile:
    """A member in the middle whose data are noise, and a last one that is cut off."""
    number = scaled(1000, scale, least=5)
    packed = [gzip.compress(record(one)) for one in range(number)]
    packed[number // 2] = packed[number // 2][:12] + b"\xff" * 40 + packed[number // 2][52:]
    packed[-1] = packed[-1][:-100]
    (folder / "x.warc.gz").write_bytes(b"".join(packed))
    return Hostile(kind="warc", path=folder / "x.warc.gz", documents=number - 2)


def warc_wrong_lengths(folder: Path, scale: float) -> Hostile:
    """Lengths that are too small, too large, negative, no numbers."""
    odd = [record(50 + number, length=length) for number, length in enumerate((10, 10**7, 10**18, -5, "abc"))]
    data = members(range(3)) + b"".join(map(gzip.compress, odd)) + members(range(3, 6))
    (folder / "x.warc.gz").write_bytes(data)
    return Hostile(kind="warc", path=folder / "x.warc.gz")


def warc_wrong_lengths_plain(folder: Path, scale: float) -> Hostile:
    """The same without gzip, where nothing but the length tells where a record ends."""
    warc_wrong_lengths(folder, scale)
    (folder / "x.warc").write_bytes(gzip.decompress((folder / "x.warc.gz").read_bytes()))
    return Hostile(kind="warc", path=folder / "x.warc")


def warc_magic_tail(folder: Path, scale: float) -> Hostile:
    """Millions of beginnings of members, none of which is one."""
    (folder / "x.warc.gz").write_bytes(members(range(3)) + b"\x1f\x8b\x08" * scaled(700_000, scale))
    return Hostile(kind="warc", path=folder / "x.warc.gz", documents=3)


def warc_large_record(folder: Path, scale: float) -> Hostile:
    """A record of 6 GB, and a sound one behind it."""
    size = scaled(6 << 30, scale, least=30_000_000)

    def pieces() -> Iterator[bytes]:
        yield record(1, b"", length=size)[:-4]
        yield from repeated(b"a", size)
        yield b"\r\n\r\n"

    with (folder / "x.warc.gz").open("wb") as file:
        file.write(members(range(1)))
        write_packed(file, pieces())
        file.write(members(range(2, 3)))
    return Hostile(kind="warc", path=folder / "x.warc.gz", documents=2, reasons={"record_too_large": 1})


def warc_body_bomb(folder: Path, scale: float) -> Hostile:
    """A body of half a gigabyte, packed twice."""
    body = zlib.compress(b"a" * scaled(500e6, scale, least=30_000_000))
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: deflate\r\n\r\n" + body
    (folder / "x.warc.gz").write_bytes(members(range(3)) + gzip.compress(record(9, http)))
    return Hostile(kind="warc", path=folder / "x.warc.gz", documents=3, reasons={"unpacked_too_large": 1})


def warc_empty(folder: Path, scale: float) -> Hostile:
    """No bytes."""
    (folder / "x.warc.gz").touch()
    return Hostile(kind="warc", path=folder / "x.warc.gz", documents=0)


SETS = [
    warc_one_member, warc_members_that_cut_records, warc_plain, warc_damaged_member, warc_wrong_lengths, warc_wrong_lengths_plain,
    warc_magic_tail, warc_large_record, warc_body_bomb, warc_empty,
]  # fmt: skip
