"""Hostile pages in web archives: how their bodies are packed, what they say of their charset, and shapes that parsers take minutes for."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pyarrow as pa

from hostile.archives import members, record
from hostile.hostile import Hostile, scaled

WORDS = "The miller of Großmühle, Łódź and 東京 walked down to the river, where the great wheel had stood still since autumn."


def page(head: str = "", before: str = "") -> bytes:
    """A page with WORDS in UTF-8."""
    return f"{before}<html><head>{head}</head><body><article><p>{WORDS}</p><p>{WORDS} {WORDS}</p></article></body></html>".encode()


def response(body: bytes, *headers: str, kind: str = "text/html") -> bytes:
    """A response of HTTP."""
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Type: {kind}", *headers, "", ""]).encode() + body


def written(folder: Path, blocks: list[bytes], documents: int, **reasons: int) -> Hostile:
    """An archive of these responses between sound ones."""
    packed = [gzip.compress(record(100 + number, block), 1) for number, block in enumerate(blocks)]
    (folder / "x.warc.gz").write_bytes(members(range(2)) + b"".join(packed) + members(range(2, 4)))
    return Hostile(kind="warc", path=folder / "x.warc.gz", documents=4 + documents, reasons=reasons)


def warc_content_encodings(folder: Path, scale: float) -> Hostile:
    """Bombs in each content encoding, bodies that are not packed as they say, and ways to say so that nobody reads."""
    size = scaled(500e6, scale, least=25_000_000)
    sound, empty = page(), gzip.compress(b"")
    raw = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bombs = [
        response(gzip.compress(bytes(size), 1), "Content-Encoding: gzip"),
        response(zlib.compress(bytes(size), 1), "Content-Encoding: deflate"),
        response(raw.compress(bytes(size)) + raw.flush(), "Content-Encoding: deflate"),
        response(gzip.compress(bytes(size // 2), 1) * 3, "Content-Encoding: x-gzip"),
        response(brotli(bytes(size)), "Content-Encoding: br"),
        response(zstd(bytes(size)), "Content-Encoding: zstd"),
        response(zstd(bytes(size // 2)) * 3, "Content-Encoding: zstd"),
    ]
    bad = [
        response(gzip.compress(sound)[:-20], "Content-Encoding: gzip"),
        response(b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * scaled(10e6, scale), "Content-Encoding: gzip"),
        response(sound, "Content-Encoding: deflate"),
        response(b"", "Content-Encoding: deflate"),
        response(brotli(sound)[:-5], "Content-Encoding: br"),
        response(b"\x28\xb5\x2f\xfd" + bytes(scaled(10e6, scale)), "Content-Encoding: zstd"),
        response(zstd(sound) + bytes(9), "Content-Encoding: zstd"),
    ]
    told = ["gzip, gzip", "br, gzip", "compress", "aes128gcm", "gzip;q=1", "x" * 50_000]
    twice = gzip.compress(gzip.compress(bytes(size), 1))
    unknown = [response(twice, f"Content-Encoding: {one}") for one in told]
    read = [
        response(empty * scaled(500_000, scale) + gzip.compress(sound), "Content-Encoding: gzip"),
        response(gzip.compress(sound) + bytes(scaled(5e6, scale)), "Content-Encoding: gzip"),
        response(sound, "Content-Encoding: gzip"),  # unpacked by whoever stored it
        response(sound, "Content-Encoding: br"),
        response(zstd(b"") * scaled(500_000, scale) + zstd(sound), "Content-Encoding: zstd"),
        response(chunked(gzip.compress(sound), 1), "Content-Encoding: gzip", "Transfer-Encoding: chunked"),
        response(chunked(sound + b" " * scaled(2e6, scale), 1), "Transfer-Encoding: chunked"),
        response(b"f" * 90 + b"\r\n" + sound, "Transfer-Encoding: chunked"),
    ]
    reasons = {
        "unpacked_too_large": len(bombs),
        "bad_content_encoding": len(bad),
        "unknown_content_encoding": len(told),
    }
    return written(folder, bombs + bad + unknown + read, len(read), **reasons)


def brotli(data: bytes) -> bytes:
    """As it is sent by the name br."""
    return bytes(pa.compress(data, codec="brotli", asbytes=True))


def zstd(data: bytes) -> bytes:
    """One frame."""
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks of this size."""
    return b"".join(b"%x\r\n%b\r\n" % (size, body[at : at + size]) for at in range(0, len(body), size)) + b"0\r\n\r\n"


def warc_poisoned_charsets(folder: Path, scale: float) -> Hostile:
    """Pages in UTF-8 that say something else: charsets that are none, that nobody reads, that they cannot be in, in places that do not count."""
    labels = [
        "utf-7",
        "UTF-16",
        "utf-16le",
        "utf-32",
        "unicode_escape",
        "base64",
        "idna",
        "punycode",
        "rot13",
        "hex",
        "mbcs",
        "utf-8-",
    ]
    labels += [
        "iso-8859-1",
        "us-ascii",
        "windows-1252",
        "x-user-defined",
        "replacement",
        "",
        '"',
        "\0",
        "..",
        "utf\u20118",
        "x" * 5000,
    ]
    pages = [response(page(), kind=f"text/html; charset={label}") for label in labels]
    pages += [response(page(f'<meta charset="{label}">')) for label in labels]
    pages += [response(page(before=f"<?xml version='1.0' encoding='{label}'?>")) for label in labels if label.isalnum()]
    places = [
        "<!-- <meta charset=koi8-r> -->",
        "<!--[if IE]><meta charset=windows-1251><![endif]-->",
        "<!-- <meta charset=koi8-r> -->" * 60 + "<meta charset=utf-8>",
        "<meta charset=utf-8><meta charset=koi8-r>",
        '<meta charset="utf-7"><meta http-equiv=content-type content="text/html; charset=koi8-r">',
        " " * 5000 + "<meta charset=koi8-r>",
        "<meta " + "a " * 200 + "charset=koi8-r>",
        "<!-- " + "x" * 4000 + "<meta charset=koi8-r> -->",
    ]
    pages += [response(page(place)) for place in places]
    pages += [response(page(f"<meta charset=utf-8>{place}" * 1000)) for place in places[:2]]
    pages.append(response(page(), kind="text/html; charset=utf-8; charset=koi8-r"))
    return written(folder, pages, len(pages))


SETS = [warc_content_encodings, warc_poisoned_charsets]


# Pages that take a parser many seconds: read in a guarded child only. Found by a search over 110 shapes of 0.3 and 1.5 MB.


SLOW_PAGES = {
    # Lexbor goes through all options of a select for each one more: 300 kB take 10 s.
    "resiliparse": "<select>" + "<option>x" * 40_000 + "</select>",
    # lxml and what trafilatura does in Python take time that grows with the page, 7 s for a megabyte of these.
    "trafilatura": "<dl>" + "<dt>x<dd>y" * 100_000 + "</dl>",
}


def slow_page(folder: Path, body: str) -> Path:
    """An archive with a page between sound ones."""
    return written(folder, [response(body.encode())], 1).path
