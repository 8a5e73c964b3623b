"""Subtitles, SubRip and WebVTT, plain or packed: the words without numbers, times and tags.

A record is a file. A cue is a line of times and the lines below it up to a blank one; its lines are joined by blanks, and a cue goes on
in the line of the one before unless that ended a sentence. Comments, styles and regions of WebVTT are no cues.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from gristmill.data.charset import decode
from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Unread
from gristmill.formats.document_file import DocumentFile, read_document
from gristmill.formats.format import Span
from gristmill.recipe.schema.formats import ReadSubtitles

TIMES = re.compile(r"\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}")
# <i>, </font>, <00:01:02.000>, <v Anna>: what begins like a tag; {\an8}: a place on the screen.
TAG = re.compile(r"</?[a-zA-Z\d][^<>\n]{0,200}>|\{\\[^{}\n]{0,100}\}")
SENTENCE_END = re.compile(r"[.!?…:;。！？][\"'”’»)\]]*$")
SPEAKER = re.compile(r"[-–—]\s*\S")


class Subtitles(DocumentFile[ReadSubtitles]):
    """A file is a document."""

    def read(self, span: Span, settings: ReadSubtitles) -> Iterator[Record]:
        """The one document."""
        return read_subtitles(span.path, name=span.name)


FORMAT = Subtitles()


def read_subtitles(path: Path, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[RawDocument | Unread]:
    """The words of one file. Fails as `read_document` does; a file without a line of times is dropped as no_cues."""
    data = read_document(path, name=name, max_bytes=max_bytes)
    if isinstance(data, Unread):
        yield data
    elif (text := words_of(decode(data)[0])) is None:
        yield Unread(id=name, origin=f"{name}#0", bytes_in=len(data), kind="dropped", reason="no_cues")
    else:
        yield RawDocument(id=name, origin=f"{name}#0", bytes_in=len(data), text=text)


def words_of(text: str) -> str | None:
    """The words of all cues, a sentence or more a line; None where there is no cue."""
    lines: list[str] = []
    has_cues = False
    for cue in _cues(text):
        has_cues = True
        words = " ".join(html.unescape(TAG.sub("", " ".join(cue))).split())
        if not words or (lines and words == lines[-1]):  # rolling captions repeat each line
            continue
        if lines and not SENTENCE_END.search(lines[-1]) and not SPEAKER.match(words):
            lines[-1] += f" {words}"
        else:
            lines.append(words)
    return "\n".join(lines) if has_cues else None


def _cues(text: str) -> Iterator[list[str]]:
    """The lines below each line of times."""
    cue: list[str] | None = None
    for line in text.splitlines():
        if TIMES.match(line):
            if cue is not None:
                yield _without_number(cue)
            cue = []
        elif cue is not None and line.strip():
            cue.append(line)
        elif cue:
            yield cue
            cue = None
    if cue is not None:
        yield cue


def _without_number(cue: list[str]) -> list[str]:
    """A cue that runs into the next one ends with the number of that."""
    return cue[:-1] if cue and cue[-1].strip().isdecimal() else cue
