"""Mail: archives in mbox form, and single messages, plain or packed.

A record is a message; in an archive it begins with a line "From …" that ends in a time and a year, at the start of the file or after a
blank line (RFC 4155). Its text is the subject and its text/plain parts, or else its text/html part, which goes through main-text
extraction. Attachments are skipped and counted with their bytes.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from contextlib import closing
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path

from gristmill.data.charset import decode
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Skip, Unread, failed
from gristmill.formats.content import ContentFile
from gristmill.formats.format import Format, Span, unreadable
from gristmill.formats.lines import Line, Lines, lost_at_gaps
from gristmill.formats.members import Gap
from gristmill.formats.open_text import in_bytes_of_file, open_text
from gristmill.recipe.schema.formats import ReadMbox

FROM_LINE = re.compile(rb"From .{0,500}\d\d:\d\d.{0,50}\d{4}\s*$", re.DOTALL)
QUOTED_FROM = re.compile(r"^>(>*From )", re.MULTILINE)
MAX_PARTS = 1000
MAX_DEPTH = 100
MAX_LINE_BYTES = 1 << 20


class Mbox(Format[ReadMbox]):
    """A message is a record. A file is entered at its beginning only."""

    def read(self, span: Span, settings: ReadMbox) -> Iterator[Record]:
        """The messages of the file."""
        return in_bytes_of_file(read_mbox(span.path, name=span.name), span.path)


FORMAT = Mbox()


def read_mbox(path: Path, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[Record]:
    """The messages of a file; what comes before the first "From " line is one message.

    Fails, one message each: message_too_large, bad_message; corrupt_gzip or corrupt_zstd once for each damaged part and the messages
    that it touches. A message without text is dropped as no_text_part. Ids are "name#offset", the byte at which the message begins.
    """
    try:
        file = open_text(path)
    except OSError as error:
        yield unreadable(path, name, error)
        return
    with closing(file):
        for start, data, num_bytes, gaps in _messages(file, max_bytes):
            origin = f"{name}#{start}"
            if gaps:
                yield lost_at_gaps(name, gaps, beside=num_bytes)
            elif data is None:
                detail = f"the limit is {max_bytes:,} bytes"
                yield failed(origin, "message_too_large", bytes_in=num_bytes, detail=detail)
            elif data.strip():
                yield from _records(data, origin)
            else:
                yield Skip(reason="blank_line", num_bytes=num_bytes)


def _messages(file: ContentFile, max_bytes: int) -> Iterator[tuple[int, bytes | None, int, list[Gap]]]:
    """(offset, the message or None where it is too large, its bytes, the gaps that touch it), all bytes of the content."""
    lines = Lines(file, max_bytes=MAX_LINE_BYTES)
    start, size = 0, 0
    kept: list[bytes] | None = []
    gaps: list[Gap] = []
    was_blank = True
    while (line := lines.read()) is not None:
        if was_blank and size and _begins(line):
            yield start, None if kept is None else b"".join(kept), size, gaps
            start, size, kept, gaps = line.start, 0, [], []
        size += line.num_bytes
        gaps += line.gaps
        if line.is_too_large or size > max_bytes:
            kept = None
        if kept is not None:
            kept.append(line.data)
        was_blank = line.data in (b"\n", b"\r\n")
    gaps += lines.rest()
    if size or gaps:
        yield start, None if kept is None else b"".join(kept), size, gaps


def _begins(line: Line) -> bool:
    return line.data.startswith(b"From ") and FROM_LINE.match(line.data) is not None


def _records(data: bytes, origin: str) -> Iterator[Record]:
    """The record of a message, and its attachments as skipped bytes."""
    head, _, rest = data.partition(b"\n") if data.startswith(b"From ") else (b"", b"", data)
    try:
        _refuse_many_parts(rest)
        message = email.message_from_bytes(rest, policy=email.policy.compat32)
        plain, page, attached = _parts(message)
        subject = _header(message, "Subject")
    except (MessageError, ValueError, LookupError, RecursionError, AttributeError, TypeError) as error:
        yield failed(origin, "bad_message", bytes_in=len(data), detail=f"{type(error).__name__}: {error}"[:300])
        return
    attached = min(attached, len(data) - len(head))
    if attached:
        yield Skip(reason="attachment", num_bytes=attached)
    size = len(data) - attached
    if plain:
        text = "\n\n".join([*([subject] if subject else []), *plain])
        yield RawDocument(id=origin, origin=origin, bytes_in=size, text=text)
    elif page is not None:
        payload, charset = page
        yield RawDocument(id=origin, origin=origin, bytes_in=size, payload=payload, charset=charset)
    else:
        yield Unread(
            id=origin, origin=origin, bytes_in=size, kind="dropped", reason="no_text_part", detail=subject[:300]
        )


def _refuse_many_parts(data: bytes) -> None:
    """Raises ValueError for a message that would take long to parse."""
    if data.count(b"\nContent-Type:") > MAX_PARTS or data.count(b"boundary=") > MAX_DEPTH:
        raise ValueError(f"more than {MAX_PARTS:,} parts, or parts of parts more than {MAX_DEPTH} times")


def _parts(message: Message) -> tuple[list[str], tuple[bytes, str | None] | None, int]:
    """(plain texts, the first HTML part with its charset, bytes of attachments as encoded in the message)."""
    plain: list[str] = []
    page: tuple[bytes, str | None] | None = None
    attached = 0
    for part in message.walk():
        if part.is_multipart():
            continue
        kind = part.get_content_type()
        is_text = kind in ("text/plain", "text/html") and part.get_content_disposition() != "attachment"
        payload = part.get_payload(decode=True) if is_text else None
        if not isinstance(payload, bytes):
            attached += len(part.get_payload() or "")
        elif kind == "text/plain":
            text = decode(payload, part.get_content_charset())[0].replace("\r\n", "\n").strip("\n")
            plain += [QUOTED_FROM.sub(r"\1", text)] if text.strip() else []
        elif page is None:
            page = payload, part.get_content_charset()
    return plain, page, attached


def _header(message: Message, name: str) -> str:
    """A decoded header, unfolded."""
    value = message.get(name)
    if value is None:
        return ""
    try:
        return " ".join(str(make_header(decode_header(str(value)))).split())
    except (MessageError, ValueError, LookupError):
        return " ".join(str(value).split())
