"""Plain text and markup that is read as it is, plain or packed.

A record is a file, or a piece of it: between matches of `split_at`, and of at most `passage_chars`, so that of a large file a part can
be read. The pieces of a file are the file, so their bytes add up to it. Where a stretch of a packed
file cannot be unpacked, the lines next to it are lost with it, and the text is cut there: no document is glued over a gap.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from gristmill.data import deadline
from gristmill.data.charset import decode, is_binary
from gristmill.data.passages import cut_passages, passage_id
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Skip, Unread, failed
from gristmill.formats.content import open_content
from gristmill.formats.format import Format, Span, unreadable
from gristmill.formats.lines import drain, lost_at_gaps
from gristmill.formats.members import Gap
from gristmill.recipe.schema.formats import ReadText

MAX_TEXT_FILE_BYTES = 256_000_000


class Text(Format[ReadText]):
    """A file is a document, or its pieces are."""

    def read(self, span: Span, settings: ReadText) -> Iterator[Record]:
        """The pieces of the file."""
        return read_text(span.path, name=span.name, split_at=settings.split_at, passage_chars=settings.passage_chars)


FORMAT = Text()


def read_text(
    path: Path,
    *,
    name: str,
    split_at: str | None = None,
    passage_chars: int | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    max_file_bytes: int = MAX_TEXT_FILE_BYTES,
) -> Iterator[Record]:
    """A text file whole, or cut where the regular expression `split_at` matches at a line's start and into passages; and cut at gaps.

    The text before the first match is a document of its own unless it is blank. Ids are the name of a whole file, else
    "name#number"; those of passages have the id of what was cut before their number. What is no text in any charset is dropped as binary_file. Fails as file_too_large, text_too_large and, once for each damaged stretch, corrupt_gzip or corrupt_zstd.
    """
    try:
        file = open_content(path)
    except OSError as error:
        yield unreadable(path, name, error)
        return
    with closing(file):
        data = file.read(max_file_bytes + 1)
        if len(data) > max_file_bytes:
            size = len(data) + drain(file) + sum(gap.num_bytes for gap in file.gaps)
            yield failed(f"{name}#0", "file_too_large", bytes_in=size, detail=f"the limit is {max_file_bytes:,} bytes")
            return
        gaps = list(file.gaps)
    if is_binary(data):
        size = len(data) + sum(gap.num_bytes for gap in gaps)
        yield Unread(id=name, origin=f"{name}#0", bytes_in=size, kind="dropped", reason="binary_file")
        return
    number = -1
    for start, end, lost in _sound_stretches(data, gaps):
        if lost:
            yield lost_at_gaps(name, lost, beside=end - start)
            continue
        stretch = data if end - start == len(data) else data[start:end]
        for offset, size, piece, passage in _pieces(stretch, split_at, passage_chars):
            origin = f"{name}#{start + offset}"
            number += not passage
            is_whole = split_at is None and passage is None
            is_first = split_at is None and number == 0 and (is_whole or not gaps)
            id = name if is_first else f"{name}#{number}"
            id = id if passage is None else passage_id(id, passage)
            if size > max_bytes:
                yield failed(origin, "text_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes", id=id)
            elif (is_whole and not gaps) or piece.strip():
                yield RawDocument(id=id, origin=origin, bytes_in=size, text=piece, is_passage=passage is not None)
            else:
                yield Skip(reason="blank_text", num_bytes=size)


def _sound_stretches(data: bytes, gaps: Sequence[Gap]) -> Iterator[tuple[int, int, Sequence[Gap]]]:
    """[start, end) of each stretch of whole lines, and of each loss between them, with its gaps."""
    start = 0
    for position, here in itertools.groupby(gaps, key=lambda gap: gap.position):
        lost_from = max(start, data.rfind(b"\n", start, position) + 1)
        if lost_from > start:
            yield start, lost_from, ()
        start = data.find(b"\n", position) + 1 or len(data)
        yield lost_from, start, [*here]
    if start < len(data) or not gaps:
        yield start, len(data), ()


def _pieces(data: bytes, split_at: str | None, passage_chars: int | None) -> Iterator[tuple[int, int, str, int | None]]:
    """(offset, bytes, text, number) of each piece; the number is that of a passage of what is cut into several. Bytes are exact in UTF-8; in other charsets the file's are shared out by them.

    Line ends are line feeds before it is cut. One piece is held at a time: a text may take four times the memory of its file.
    """
    raw, charset = decode(data)
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    deadline.extend()
    cuts = [0, len(text)]
    if split_at is not None and text:
        cuts = sorted({*cuts, *(match.start() for match in re.finditer(f"^(?:{split_at})", text, re.MULTILINE))})
    numbers: list[int | None] = [None] * (len(cuts) - 1)
    if passage_chars is not None:
        sizes_of = [[*map(len, cut_passages(text[a:b], passage_chars))] for a, b in itertools.pairwise(cuts)]
        numbers = [number for sizes in sizes_of for number in (range(len(sizes)) if len(sizes) > 1 else (None,))]
        cuts = [0, *itertools.accumulate(itertools.chain(*sizes_of))]
    deadline.extend()
    if len(cuts) == 2:
        yield 0, len(data), text, None
        return
    sizes = [len(piece.encode("utf-8", "surrogatepass")) for piece in _as_written(raw, cuts)]
    mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    total, done, offset = sum(sizes), 0, 0
    is_exact = charset == "utf-8" and total + mark == len(data)
    for (a, b), size, number in zip(itertools.pairwise(cuts), sizes, numbers, strict=True):
        done += size
        end = done + mark if is_exact else done * len(data) // max(1, total)
        end = len(data) if b == len(text) else end
        yield offset, end - offset, text[a:b], number
        offset = end


def _as_written(raw: str, cuts: Sequence[int]) -> Iterator[str]:
    """The pieces of a text between cuts that count each of its line ends as one character."""
    start = 0
    for a, b in itertools.pairwise(cuts):
        end, following = start, start + b - a
        while end != following:
            end = following
            following = start + b - a + raw.count("\r\n", start, end) + raw.startswith("\r\n", max(start, end - 1))
        yield raw[start:end]
        start = end
