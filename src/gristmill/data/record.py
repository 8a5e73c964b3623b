"""What a reader yields: for each record of a file a raw document, or why there is none; and what lay between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_DOCUMENT_BYTES = 20_000_000
Fate = Literal["failed", "dropped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RawDocument:
    """A record as it was read: either undecoded `payload` bytes or `text`.

    `origin` is "file#place" (byte offset, row or member name). `charset` is what the transport said about
    `payload`. `language` is set where the reader knows it, such as a programming language by file extension;
    `license` and `repository` where the record, or the tree that it lies in, states one. `is_all_text`: the payload is a page without navigation
    and frame, such as a chapter of a book, of which no part is left out; `is_passage`: one of several that a long text was cut
    into. `entry` is the start of a span whose first record this one is; None where
    the file cannot be entered at it. `bytes_in` are the bytes of the file's content that the record takes, its framing
    (headers, line end) included.
    """

    id: str
    origin: str
    bytes_in: int
    payload: bytes | None = None
    text: str | None = None
    url: str | None = None
    charset: str | None = None
    language: str | None = None
    license: str | None = None
    repository: str | None = None
    is_all_text: bool = False
    is_passage: bool = False
    entry: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unread:
    """A record that gives no document: "failed" when it is damaged, "dropped" when it is not what we look for.

    `entry` as in RawDocument.
    """

    id: str
    origin: str
    bytes_in: int
    kind: Fate
    reason: str
    detail: str = ""
    url: str | None = None
    entry: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """Bytes of the file's content that are no record, by `reason`: blank lines, records that are no documents, gaps."""

    reason: str
    num_bytes: int


Record = RawDocument | Unread | Skip


def failed(origin: str, reason: str, *, bytes_in: int, detail: str = "", id: str | None = None) -> Unread:
    """A damaged record; its id is its origin unless the record told its own."""
    return Unread(id=id or origin, origin=origin, bytes_in=bytes_in, kind="failed", reason=reason, detail=detail)


def clean_text(text: str) -> str:
    """The text without NUL, with lone surrogates as U+FFFD and with line ends as "\\n"; any other text comes back as it is."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        text = text.replace("\0", "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
