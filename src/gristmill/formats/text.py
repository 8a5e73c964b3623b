"""Plain text and markup that is read as it is."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from gristmill.data.charset import decode
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread, failed
from gristmill.formats.format import Format, Span, is_packed, open_unpacked
from gristmill.recipe.schema.formats import ReadText

MAX_TEXT_FILE_BYTES = 256_000_000


class Text(Format[ReadText]):
    """A file is a document, or the pieces of it between matches of `split_at` are."""

    def read(self, span: Span, settings: ReadText) -> Iterator[Record]:
        """The pieces of the file."""
        return read_text(span.path, name=span.name, split_at=settings.split_at)


FORMAT = Text()


def read_text(
    path: Path,
    *,
    name: str,
    split_at: str | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    max_file_bytes: int = MAX_TEXT_FILE_BYTES,
) -> Iterator[RawDocument | Unread]:
    """A text file, plain or gzip, whole or cut where the regular expression `split_at` matches at a line's start.

    The text before the first match is a document of its own unless it is blank. Bytes are counted after unpacking,
    and where a file is cut, in UTF-8.
    """
    packed = is_packed(path)
    with open_unpacked(path) as file:
        try:
            data = file.read(max_file_bytes + 1)
        except (OSError, EOFError, zlib.error) as error:
            if not packed:
                raise
            yield failed(f"{name}#0", "corrupt_gzip", bytes_in=path.stat().st_size, detail=str(error))
            return
    if len(data) > max_file_bytes:
        yield failed(f"{name}#0", "file_too_large", bytes_in=len(data), detail=f"the limit is {max_file_bytes:,} bytes")
        return
    text, _ = decode(data)
    if split_at is None:
        pieces = [text]
    else:
        starts = [match.start() for match in re.finditer(f"^(?:{split_at})", text, re.MULTILINE)]
        cuts = sorted({0, *starts, len(text)})
        pieces = [text[a:b] for a, b in itertools.pairwise(cuts)]
    offset = 0
    for number, piece in enumerate(pieces):
        size = len(data) if split_at is None else len(piece.encode("utf-8", "surrogatepass"))
        origin = f"{name}#{offset}"
        id = name if split_at is None else f"{name}#{number}"
        offset += size
        if size > max_bytes:
            yield failed(origin, "text_too_large", bytes_in=size, detail=f"the limit is {max_bytes:,} bytes", id=id)
        elif split_at is None or piece.strip():
            yield RawDocument(id=id, origin=origin, bytes_in=size, text=piece)
