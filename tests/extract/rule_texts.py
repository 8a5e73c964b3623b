"""Real texts to judge, cut from the sample by plain means that no reader or extractor of the product can change.

Pages are their HTML without its tags, whole and in thirds; chapters and source files as they are; dictionary entries in tens.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "samples" / "quickstart"


def rule_texts() -> Iterator[tuple[str, str]]:
    """(id, text), at least 2,000 of them."""
    yield from _pages()
    yield from _chapters()
    yield from _files()
    yield from _entries()


def _pages() -> Iterator[tuple[str, str]]:
    for number, record in enumerate(record for record in _records() if b"WARC-Type: response" in record[:60]):
        markup = record.partition(b"\r\n\r\n")[2].partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
        markup = re.sub(r"(?s)<(script|style)\b.*?</\1>|<!--.*?-->", "", markup)
        lines = [line.strip() for line in html.unescape(re.sub(r"<[^>]*>", "", markup)).split("\n")]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        third = len(text) // 3 + 1
        parts = [text, *(text[start : start + third] for start in range(0, len(text), third))]
        yield from ((f"page-{number}.{part}", cut) for part, cut in enumerate(parts) if cut.strip())


def _records() -> Iterator[bytes]:
    rest = (SAMPLE / "web" / "manuals.warc.gz").read_bytes()
    while rest:
        member = zlib.decompressobj(wbits=31)
        try:
            yield member.decompress(rest)
            rest = member.unused_data
        except zlib.error:  # one record of the sample is damaged on purpose
            rest = rest[rest.find(b"\x1f\x8b\x08", 1) :]


def _chapters() -> Iterator[tuple[str, str]]:
    [path] = (SAMPLE / "novel").glob("*.txt.gz")
    chapters = re.split(r"(?m)^Chapter \d+$", _unpacked(f"novel/{path.name}").decode())
    yield from ((f"chapter-{number}", text) for number, text in enumerate(chapters) if text.strip())


def _files() -> Iterator[tuple[str, str]]:
    with tarfile.open(SAMPLE / "code" / "code.tar.gz") as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            if member.isfile() and (file := archive.extractfile(member)):
                text = file.read().decode("utf-8", "replace")
                if text.strip():
                    yield f"file-{member.name}", text


def _entries() -> Iterator[tuple[str, str]]:
    entries = [json.loads(line)["text"] for line in _unpacked("glosses/wordnet.jsonl.gz").decode().splitlines()]
    for start in range(0, len(entries), 20):
        yield f"entries-{start}", "\n".join(entries[start : start + 10])


def _unpacked(name: str) -> bytes:
    return gzip.decompress((SAMPLE / name).read_bytes())
