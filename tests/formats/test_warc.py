"""A damaged web archive loses the damaged record, counts it, and keeps all others."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.data.record import RawDocument, Record, Skip, Unread
from gristmill.formats.coverage import unpacked_bytes
from gristmill.formats.warc import read_warc

PAGE = b"<html><body>" + b"A page about nothing in particular. " * 40 + b"%d</body></html>"
NUM_PAGES = 6
# python -c 'import brotli; print(brotli.compress(b"<html>told by another writer</html>").hex())', brotli 1.2.1
BROTLI = bytes.fromhex("1b2200f8c529471a58202de3a0e47b17b2c826b268163049e525537ef51b4345e94400")


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def http(body: bytes, headers: str = "", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n{headers}\r\n".encode() + body


def record(
    number: int, block: bytes, *, kind: str = "response", more: str = "", length: int | None = None, packed: bool = True
) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: http://a.example/{number}\r\nContent-Type: application/http; msgtype=response\r\n{more}"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    data = head.encode() + block + b"\r\n\r\n"
    return gzip.compress(data, mtime=0) if packed else data


def digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode()


def pages(*, packed: bool = True) -> list[bytes]:
    blocks = [http(PAGE % number) for number in range(NUM_PAGES)]
    return [
        record(number, block, more=f"WARC-Block-Digest: {digest(block)}\r\n", packed=packed)
        for number, block in enumerate(blocks)
    ]


def size_of_all(items: list[Record]) -> int:
    return sum(item.num_bytes if isinstance(item, Skip) else item.bytes_in for item in items)


def read(path: Path, data: bytes, **options: int) -> tuple[list[str], Counter[str]]:
    """Ids of the documents, and counts of what is not one."""
    path.write_bytes(data)
    items = list(read_warc(path, name="x", **options))
    assert size_of_all(items) == unpacked_bytes(path)
    ids = [item.id.removeprefix("urn:uuid:") for item in items if isinstance(item, RawDocument)]
    return ids, Counter(item.reason for item in items if isinstance(item, Unread))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.warc.gz"


def test_pages_of_a_whole_file_in_order_with_url_charset_and_bytes(path: Path) -> None:
    members = [record(9, b"software: test", kind="warcinfo"), *pages(), record(8, b"GET / HTTP/1.1", kind="request")]
    path.write_bytes(b"".join(members))
    warcinfo, *items, request = read_warc(path, name="x")
    assert warcinfo == Skip(reason="warcinfo", num_bytes=len(gzip.decompress(members[0])))
    assert request == Skip(reason="request", num_bytes=len(gzip.decompress(members[-1])))
    assert [item.id for item in items if isinstance(item, RawDocument)] == [
        f"urn:uuid:{number}" for number in range(NUM_PAGES)
    ]
    first = items[0]
    assert isinstance(first, RawDocument)
    assert (first.url, first.charset, first.origin) == ("http://a.example/0", "utf-8", f"x#{len(members[0])}")
    assert first.payload == PAGE % 0
    assert first.bytes_in == len(gzip.decompress(members[1]))
    assert first.entry == len(members[0])


def zeroed(member: bytes) -> bytes:
    return member[:40] + bytes(40) + member[80:]


def wrong_crc(member: bytes) -> bytes:
    return member[:-8] + bytes(4) + member[-4:]


def half(member: bytes) -> bytes:
    return member[: len(member) // 2]


def headless(member: bytes) -> bytes:
    return member[12:]


@pytest.mark.parametrize("damage", [zeroed, wrong_crc, half, headless])
@pytest.mark.parametrize("where", [0, 2, NUM_PAGES - 1])
def test_a_damaged_member_is_one_failure_and_the_rest_is_kept(
    path: Path, damage: Callable[[bytes], bytes], where: int
) -> None:
    members = pages()
    members[where] = damage(members[where])
    ids, reasons = read(path, b"".join(members))
    assert ids == [str(number) for number in range(NUM_PAGES) if number != where]
    assert reasons == {"corrupt_member": 1}


def test_a_file_cut_anywhere_in_its_last_member_says_so(path: Path) -> None:
    data = b"".join(pages())
    start = len(data) - len(pages()[-1])
    for cut in range(start + 1, len(data), 23):
        ids, reasons = read(path, data[:cut])
        assert (ids, reasons) == (["0", "1", "2", "3", "4"], {"corrupt_member": 1}), f"cut at {cut}"


@pytest.mark.parametrize("garbage", [b"garbage", bytes(500), b"\x1f\x8b\x08 no member", b"\x1f\x8b\x08" * 50])
def test_garbage_between_members_is_one_failure_and_no_page_is_lost(path: Path, garbage: bytes) -> None:
    members = pages()
    ids, reasons = read(path, b"".join(members[:3]) + garbage + b"".join(members[3:]))
    assert ids == [str(number) for number in range(NUM_PAGES)]
    assert reasons == {"corrupt_member": 1}


def test_a_wrong_digest_is_counted_and_the_rest_is_kept(path: Path) -> None:
    members = pages()
    members[2] = record(2, http(b"<html>another</html>"), more=f"WARC-Block-Digest: {digest(b'this')}\r\n")
    members[4] = record(4, http(b"<html>another</html>"), more=f"WARC-Payload-Digest: {digest(b'that')}\r\n")
    assert read(path, b"".join(members)) == (["0", "1", "3", "5"], {"wrong_digest": 2})


@pytest.mark.parametrize("difference", [-60, 40, 3000])
def test_a_wrong_content_length_loses_that_record_alone(path: Path, difference: int) -> None:
    members = pages()
    block = http(PAGE % 2)
    members[2] = record(2, block, more=f"WARC-Block-Digest: {digest(block)}\r\n", length=len(block) + difference)
    ids, reasons = read(path, b"".join(members))
    assert [id for id in ids if id != "2"] == ["0", "1", "3", "4", "5"]
    assert "2" not in ids
    assert sum(reasons.values()) == 1


def test_a_record_above_the_limit_is_read_no_further(path: Path) -> None:
    members = pages()
    members[3] = record(3, http(bytes(5_000_000)))
    assert read(path, b"".join(members), max_bytes=100_000) == (["0", "1", "2", "4", "5"], {"record_too_large": 1})


def test_a_bomb_in_the_content_encoding_is_refused_and_an_honest_one_is_unpacked(path: Path) -> None:
    bombs = [
        http(gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip\r\n"),
        http(zstd(bytes(50_000_000)), "Content-Encoding: zstd\r\n"),
        http(bytes(pa.compress(bytes(50_000_000), codec="brotli", asbytes=True)), "Content-Encoding: br\r\n"),
    ]
    honest = [
        http(gzip.compress(PAGE % 7), "Content-Encoding: gzip\r\n"),
        http(zlib.compress(PAGE % 7), "Content-Encoding: deflate\r\n"),
        http(PAGE % 7, "Content-Encoding: gzip\r\n"),
        http(b"5\r\n<html\r\n2;x=y\r\n>x\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"),
        http(b"<html>x", "Transfer-Encoding: chunked\r\n"),
        http(gzip.compress(b"<html>one ") + gzip.compress(b"two</html>") + b"rest", "Content-Encoding: gzip\r\n"),
        http(BROTLI, "Content-Encoding: br\r\n"),
        http(zstd(PAGE % 7), "Content-Encoding: zstd\r\n"),
        http(zstd(b"<html>one ") + zstd(b"two</html>"), "Content-Encoding: zstd\r\n"),
        http(b"\n" + PAGE % 7, "Content-Encoding: br\r\n"),
        http(PAGE % 7, "Content-Encoding: zstd\r\n"),
    ]
    bad = [
        http(b"\x1f\x8bxx", "Content-Encoding: gzip\r\n"),
        http(gzip.compress(PAGE) + gzip.compress(PAGE)[:-9], "Content-Encoding: gzip\r\n"),
        http(BROTLI[:-1], "Content-Encoding: br\r\n"),
        http(b"xx", "Content-Encoding: br\r\n"),
        http(zstd(PAGE)[:-1], "Content-Encoding: zstd\r\n"),
    ]
    blocks = [*bombs, *honest, http(b"xx", "Content-Encoding: compress\r\n"), *bad]
    members = [record(number, block) for number, block in enumerate(blocks)]
    path.write_bytes(b"".join(members))
    items = list(read_warc(path, name="x", max_bytes=1_000_000))
    assert [item.payload for item in items if isinstance(item, RawDocument)] == [
        PAGE % 7, PAGE % 7, PAGE % 7, b"<html>x", b"<html>x", b"<html>one two</html>",
        b"<html>told by another writer</html>", PAGE % 7, b"<html>one two</html>", b"\n" + PAGE % 7, PAGE % 7,
    ]  # fmt: skip
    reasons = [item.reason for item in items if isinstance(item, Unread)]
    assert reasons == ["unpacked_too_large"] * 3 + ["unknown_content_encoding"] + ["bad_content_encoding"] * 5


def test_what_is_not_an_html_page_is_dropped_by_reason(path: Path) -> None:
    image = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\nxx"
    untold = b"HTTP/1.1 200 OK\r\n\r\n<!DOCTYPE html><html>x</html>"
    blocks = [image, http(b"gone", status="404 Not Found"), b"no head", untold]
    ids, reasons = read(path, b"".join(record(number, block) for number, block in enumerate(blocks)))
    assert ids == ["3"]
    assert reasons == {"not_html": 1, "http_status": 1, "bad_http_head": 1}


def test_wet_records_are_texts(path: Path) -> None:
    path.write_bytes(record(1, "Grüße".encode(), kind="conversion"))
    (item,) = read_warc(path, name="x")
    assert isinstance(item, RawDocument)
    assert item.text == "Grüße"


def test_a_plain_file_reads_on_after_damage(path: Path) -> None:
    members = pages(packed=False)
    members[2] = members[2].replace(b"WARC/1.0", b"WORC/9.0")
    ids, reasons = read(path, b"".join(members))
    assert ids == ["0", "1", "3", "4", "5"]
    assert sum(reasons.values()) <= 1


def test_no_archive_at_all_is_one_failure_and_an_empty_file_none(path: Path) -> None:
    assert read(path, b"hello, this is no archive") == ([], {"corrupt_member": 1})
    assert read(path, b"") == ([], {})
