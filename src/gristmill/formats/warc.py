"""Web archives (WARC, WET), plain or gzip: pages and texts out of the records that are documents.

    warc_archive.py     the bytes that a span owns, from boundary to boundary
    warc_records.py     the records in them, in spite of damage
    http_response.py    what a stored response holds
    here                what becomes of each record

A damaged stretch costs the records in it: it is one failure that says how many bytes it takes, and reading resumes behind it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

from gristmill.data.record import MAX_DOCUMENT_BYTES, Fate, RawDocument, Record, Skip, Unread
from gristmill.formats.content import is_gzip
from gristmill.formats.coverage import span_bytes
from gristmill.formats.format import Content, Format, Span, cut_evenly, size_of
from gristmill.formats.http_response import decoded, is_html, split_response, unchunked
from gristmill.formats.warc_archive import HEAD
from gristmill.formats.warc_records import DOCUMENT_TYPES, Block, Loss, next_head, records_of
from gristmill.recipe.schema.formats import ReadWarc

MAX_PLAIN_SPANS = 64  # each is found by a walk over the heads in front of it
OTHER_TYPES = ("warcinfo", "request", "metadata", "revisit", "continuation")


class Warc(Format[ReadWarc]):
    """A response, resource or conversion record is a document."""

    shard_bytes = (500_000, 8_000_000)
    seeks_spans = True

    def spans(self, path: Path, *, name: str, limit: int) -> list[Span]:
        """Spans are bytes of the file as it lies on the disk, at most MAX_PLAIN_SPANS of a plain one."""
        size = size_of(path)
        try:
            packed = is_gzip(path)
        except OSError:
            packed = True  # `read` says what is wrong
        return cut_evenly(
            path, name=name, units=size, limit=limit if packed else max(limit, -(-size // MAX_PLAIN_SPANS))
        )

    def read(self, span: Span, settings: ReadWarc) -> Iterator[Record]:
        """The records that the span owns."""
        return read_warc(span.path, name=span.name, start=span.start, end=span.end)

    def next_entry(self, span: Span, entry: int) -> int | None:
        """The next member that begins with a record; in a plain file the next head of one."""
        return next_head(span.path, start=entry + 1, end=span.end, max_bytes=MAX_DOCUMENT_BYTES)

    def content(self, span: Span, settings: ReadWarc) -> Content:
        """Bytes of content and of gaps between the first head of the span and the first behind its end."""
        return Content(num_bytes=span_bytes(span.path, start=span.start, end=span.end, head=HEAD))


FORMAT = Warc()


def read_warc(
    path: Path, *, name: str, start: int = 0, end: int | None = None, max_bytes: int = MAX_DOCUMENT_BYTES
) -> Iterator[Record]:
    """The HTML pages (and extracted texts of WET files) of a WARC file, plain or gzip, and what became of the others.

    Records of the types response, resource and conversion are documents; request, metadata and the like are skipped.
    `name` is the file in origins: "name#offset" of the member that the record begins, "name#offset+place" of one inside it.
    `start` and `end` are byte offsets in the file: spans of one file can be read apart and together give each record once.
    """
    for item in records_of(path, name=name, start=start, end=end, max_bytes=max_bytes):
        if isinstance(item, Skip):
            yield item
            continue
        kind = item.fields.get("warc-type", "").lower()
        is_record = isinstance(item, Block) or item.reason != "corrupt_member"
        if is_record and kind not in DOCUMENT_TYPES:
            yield Skip(reason=kind if kind in OTHER_TYPES else "unknown_warc_type", num_bytes=item.num_bytes)
        elif isinstance(item, Loss):
            yield _unread(item, item.reason, item.detail)
        else:
            yield _document(item, max_bytes)


def _unread(item: Block | Loss, reason: str, detail: str = "", *, kind: Fate = "failed") -> Unread:
    return Unread(
        id=_id(item),
        origin=item.place.origin,
        bytes_in=item.num_bytes,
        kind=kind,
        reason=reason,
        detail=detail,
        url=_url(item),
        entry=item.place.entry,
    )


def _id(item: Block | Loss) -> str:
    """Its WARC-Record-ID; its origin where it has none."""
    return item.fields.get("warc-record-id", "").strip("<>") or item.place.origin


def _url(item: Block | Loss) -> str | None:
    return item.fields.get("warc-target-uri")


def _document(block: Block, max_bytes: int) -> RawDocument | Unread:
    data, fields = block.data, block.fields
    if data is None:
        return _unread(block, "record_too_large", f"{block.content_length:,} bytes, the limit is {max_bytes:,}")
    agrees = _agrees(fields.get("warc-block-digest"), data)
    if agrees is False:
        return _unread(block, "wrong_digest", f"block is not {fields['warc-block-digest']:.80}")
    stored, content_type, encoding, status = data, fields.get("content-type", "").lower(), "", 200
    kind = fields["warc-type"].lower()
    headers: dict[str, str] = {}
    is_http = kind == "response" and content_type.startswith("application/http")
    if is_http:
        response = split_response(data)
        if response is None:
            return _unread(block, "bad_http_head", repr(data[:80]))
        status, headers, stored = response
    body = unchunked(stored) if "chunked" in headers.get("transfer-encoding", "") else stored
    digest = fields.get("warc-payload-digest")
    # The payload is a part of the block: where the digest of that holds, another one would tell how its writer counts only.
    if agrees is None and _agrees(digest, stored) is False and (body is stored or _agrees(digest, body) is False):
        return _unread(block, "wrong_digest", f"payload is not {digest:.80}")
    if is_http:
        content_type, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
    if status != 200:
        return _unread(block, "http_status", str(status), kind="dropped")
    unpacked = decoded(body, encoding, max_bytes)
    if isinstance(unpacked, str):
        return _unread(block, unpacked, f"content encoding {encoding!r:.80}")
    text, payload, charset = None, None, None
    if kind == "conversion":
        text = unpacked.decode("utf-8", "replace")
    else:
        told = fields.get("warc-identified-payload-type", "").lower() or content_type
        if not is_html(told, unpacked):
            return _unread(block, "not_html", f"{told:.80}", kind="dropped")
        payload, charset = unpacked, content_type.partition("charset=")[2].partition(";")[0] or None
    return RawDocument(
        id=_id(block),
        origin=block.place.origin,
        bytes_in=block.num_bytes,
        payload=payload,
        text=text,
        url=_url(block),
        charset=charset,
        entry=block.place.entry,
    )


def _agrees(digest: str | None, data: bytes) -> bool | None:
    """Whether `data` has the digest, in base 32 or hexadecimal; None where there is none of a known kind to compare with."""
    algorithm, _, told = (digest or "").strip().partition(":")
    if algorithm.lower() not in ("sha1", "sha256", "md5"):
        return None
    actual = hashlib.new(algorithm.lower(), data, usedforsecurity=False).digest()
    return told.lower() == actual.hex() or told.rstrip("=").upper() == base64.b32encode(actual).decode().rstrip("=")
