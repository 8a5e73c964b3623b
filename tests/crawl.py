"""A crawl like those of Common Crawl, small and with all its parts: archives of requests, responses and metadata, each record a gzip
member of its own, and an index that answers as pywb does."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from web import Answer, Web

CRAWL = "CC-MAIN-2024-10"
TABLE = pa.schema(  # of https://github.com/commoncrawl/cc-index-table, the columns that are read
    {
        **dict.fromkeys(
            ["url_host_tld", "content_mime_detected", "content_languages", "warc_filename", "url"], pa.string()
        ),
        "fetch_status": pa.int16(),
        "warc_record_offset": pa.int32(),
        "warc_record_length": pa.int32(),
        "fetch_time": pa.timestamp("ms", "UTC"),
        "content_digest": pa.string(),
    }
)
PAGE = "<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>"


def page_html(number: int) -> bytes:
    """A page with some hundred words of its own."""
    text = " ".join(f"The {number * 37 + place}th grain of wheat was milled and weighed." for place in range(12))
    return PAGE.format(title=f"Grain {number}", text=text).encode()


def _record(kind: str, url: str, block: bytes) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-03-01T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype={kind}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)


def make_crawl(web: Web, *, num_pages: int, archives: int = 2, lines_per_page: int = 4) -> list[dict[str, Any]]:
    """Puts a crawl of example.org onto the server; returns the lines of its index, in the order of URLs."""
    bodies: dict[str, bytearray] = {}
    lines: list[dict[str, Any]] = []
    for number in range(num_pages):
        archive = f"crawl-data/{CRAWL}/segments/1/warc/CC-MAIN-0000{number % archives}.warc.gz"
        body = bodies.setdefault(archive, bytearray(_record("warcinfo", "", b"software: ours\r\n")))
        url = f"https://example.org/{number:03}"
        body += _record("request", url, b"GET / HTTP/1.1\r\n\r\n")
        html = page_html(number)
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(html) + html
        member = _record("response", url, answer)
        place = {"filename": archive, "offset": str(len(body)), "length": str(len(member))}
        about = {"status": "200", "mime": "text/html", "mime-detected": "text/html", "languages": "eng"}
        lines.append(
            {"urlkey": f"org,example)/{number:03}", "timestamp": "20240301000000", "url": url, **about, **place}
        )
        body += member + _record("metadata", url, b"fetchTimeMs: 1\r\n")
    web.files = {f"/{archive}": bytes(body) for archive, body in bodies.items()}
    serve_index(web, lines, lines_per_page=lines_per_page)
    return lines


def write_table(folder: Path, lines: list[dict[str, Any]], *, files: int = 2, rows_per_group: int = 2) -> str:
    """The columnar index of these lines, in files below `folder`; its address."""
    part = folder / f"crawl={CRAWL}" / "subset=warc"
    part.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "url_host_tld": line.get("tld", "org"),
            "fetch_status": int(line["status"]),
            "content_mime_detected": line["mime-detected"],
            "content_languages": line["languages"],
            "warc_filename": line["filename"],
            "warc_record_offset": int(line["offset"]),
            "warc_record_length": int(line["length"]),
            "url": line["url"],
            "fetch_time": datetime.strptime(line["timestamp"], "%Y%m%d%H%M%S").replace(tzinfo=UTC),
            "content_digest": None,
        }
        for line in lines
    ]
    size = -(-len(rows) // files)
    for number in range(files):
        some = pa.Table.from_pylist(rows[number * size : (number + 1) * size], schema=TABLE)
        pq.write_table(some, part / f"part-{number:05}.gz.parquet", row_group_size=rows_per_group, compression="gzip")
    return folder.as_uri()


def serve_index(web: Web, lines: list[dict[str, Any]], *, lines_per_page: int = 4) -> None:
    """Answers queries as pywb does: their number of pages, and pages of lines of which those are left out that a filter refuses."""

    def answer(query: dict[str, list[str]]) -> Answer:
        if not lines:
            return 404, b'{"message": "No Captures found"}'
        if "showNumPages" in query:
            return json.dumps({"pages": -(-len(lines) // lines_per_page), "pageSize": 5}).encode()
        first = int(query["page"][0]) * lines_per_page
        found = [line for line in lines[first : first + lines_per_page] if _passes(line, query.get("filter", []))]
        body = "".join(json.dumps(line) + "\n" for line in found).encode()
        return body if found else (404, b'{"message": "No Captures found"}')

    web.pages = {f"/{CRAWL}-index": answer}


def _passes(line: dict[str, Any], filters: list[str]) -> bool:
    for one in filters:
        name, _, value = one.removeprefix("=").partition(":")
        found = line.get(name, "")
        if not (found == value if one.startswith("=") else value in found):
            return False
    return True
