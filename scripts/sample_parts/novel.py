"""A whole novel out of the R package janeaustenr, whose data file is R's lazy-load form: for each object a big-endian
length and a zlib stream of R's XDR serialization (R Internals, section 1.8)."""

from __future__ import annotations

import struct
import zlib

from sample_parts.packages import Origin, SampleError, files_in

CHAPTER = r"^Chapter \d+$"
_FOLDER = "usr/lib/R/site-library/janeaustenr/data/"
_STRING_VECTOR = 16
_HEADER = 14 + 4 + len("UTF-8")  # "X\n", format version, two R versions, native encoding


def build(origin: Origin, title: str) -> str:
    """The novel whose first line is `title`, lines joined by newlines.

    Raises SampleError if the package holds no such novel.
    """
    raw = files_in(origin, _FOLDER)["Rdata.rdb"]
    at = 0
    while at + 4 < len(raw):
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(raw[at + 4 :])
        at = len(raw) - len(unpacker.unused_data)
        if data[_HEADER + 3] == _STRING_VECTOR:
            lines = _strings(data[_HEADER + 4 :])
            if lines[0] == title:
                return "\n".join(lines).strip() + "\n"
    raise SampleError(f"{origin.path.name} holds no text that begins with {title!r}")


def _strings(data: bytes) -> list[str]:
    """The elements of a serialized character vector: a count, then flags, length and bytes of each."""
    (count,) = struct.unpack_from(">I", data)
    at = 4
    lines: list[str] = []
    for _ in range(count):
        _, length = struct.unpack_from(">II", data, at)
        at += 8
        lines.append(data[at : at + length].decode("utf-8"))
        at += length
    return lines
