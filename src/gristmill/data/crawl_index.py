"""The index of a crawl of Common Crawl: which of its records a query finds, page by page, and where each lies.

The index answers the CDX queries of pywb (https://github.com/webrecorder/pywb): lines of JSON, in pages of blocks. Filters are
`=field:value` for equal and `field:value` for contains. An index may change, and a mirror may ignore a filter: each line is checked
against the query, and what was chosen is written down once.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from gristmill.data.download import Client, RefusedError
from gristmill.errors import DataError

MAX_ANSWER_BYTES = 256_000_000  # a page of the public index has 15,000 lines, some 10 MB
MAX_RECORD_BYTES = 64_000_000  # the crawler cuts pages at 1 MiB, since 2025 at 5 MiB
_ARCHIVE = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.warc\.gz")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a record lies: archive, offset and num_bytes of its gzip member. url and digest (SHA-1 in base 32): of the page."""

    archive: str
    offset: int
    num_bytes: int
    url: str
    timestamp: str
    digest: str

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.num_bytes


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to look for. None: any."""

    index: str
    crawl: str
    url: str
    mime: str | None
    language: str | None
    status: int

    def address(self, **page: str | int) -> str:
        """The address that answers it, of a page or of their number."""
        filters = [f"=status:{self.status}"]
        filters += [] if self.mime is None else [f"=mime-detected:{self.mime}"]
        filters += [] if self.language is None else [f"languages:{self.language}"]
        keys = [("url", self.url), ("output", "json"), *(("filter", one) for one in filters), *page.items()]
        return f"{self.index.rstrip('/')}/{self.crawl}-index?{urlencode(keys)}"

    def fits(self, line: Mapping[str, Any]) -> bool:
        """Whether a line is what was asked for."""
        return (
            line.get("status") == str(self.status)
            and self.mime in (None, line.get("mime-detected"))
            and (self.language is None or self.language in str(line.get("languages", "")).split(","))
        )

    def __str__(self) -> str:
        return repr(self.url)

    @property
    def asked(self) -> str:
        """The address of the first page."""
        return self.address(page=0)

    def num_pages(self, client: Client) -> int:
        """How many pages the answer has. Raises DataError where the index knows no such crawl or has no such page."""
        address = self.address(showNumPages="true")
        try:
            answer = client.read(address, max_bytes=MAX_ANSWER_BYTES)
            pages = json.loads(answer)["pages"]
            if not isinstance(pages, int):
                raise TypeError
        except RefusedError as error:
            if error.status == 404:
                raise DataError(
                    f"the index of {self.crawl} has no page like {self.url!r} ({address}).\n"
                    "  Look at the crawl's name, and at the pattern: *.example.org is a domain, example.org/docs/* a beginning."
                ) from error
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{address} answers {answer[:80]!r}; expected the number of pages.") from error
        return pages

    def page_of(self, client: Client, page: int) -> tuple[list[Place], dict[str, int]]:
        """The places of a page, and the lines of it that are none by reason: not_asked_for, bad_index_line."""
        try:
            answer = client.read(self.address(page=page), max_bytes=MAX_ANSWER_BYTES)
        except RefusedError as error:
            if error.status == 404:  # nothing on this page passes the filters
                return [], {}
            raise
        reasons = Counter[str]()
        return [*_places(answer, self, reasons)], dict(reasons)


def _places(answer: bytes, query: Query, reasons: Counter[str]) -> Iterator[Place]:
    for line in answer.splitlines():
        try:
            found = json.loads(line)
            place = place_of(found)
        except (ValueError, TypeError, RecursionError):
            place = None
        if place is None:
            reasons["bad_index_line"] += 1
        elif not query.fits(found):
            reasons["not_asked_for"] += 1
        else:
            yield place


def place_of(line: Mapping[str, Any]) -> Place | None:
    """The place that a line of an index tells; None where it tells none, or one that no record can have."""
    try:
        place = Place(
            archive=line["filename"],
            offset=int(line["offset"]),
            num_bytes=int(line["length"]),
            url=line["url"],
            timestamp=str(line.get("timestamp", "")),
            digest=str(line.get("digest", "")),
        )
        is_place = (
            isinstance(place.url, str)
            and _ARCHIVE.fullmatch(place.archive) is not None
            and ".." not in place.archive
            and place.offset >= 0
            and 0 < place.num_bytes <= MAX_RECORD_BYTES
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return place if is_place else None
