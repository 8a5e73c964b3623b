"""What unpacks the members of gzip files: zlib-ng where it is installed (the extra `fast`), else zlib.

zlib-ng does what zlib does in half the time: whatever bytes it is fed, in whatever pieces, each piece gives the same output or is refused
by both, and a member ends at the same byte. So damaged files, too, read the same with and without it. `tests/formats/test_inflate.py`
holds it to that.
"""

from __future__ import annotations

import importlib
import zlib
from types import ModuleType
from typing import Protocol, Self, cast

GZIP_WINDOW_BITS = 31  # the largest window, and the head and the check sum of a gzip member


class Inflater(Protocol):
    """The decompressor of one gzip member, as zlib has it."""

    @property
    def eof(self) -> bool:
        """True if the member has ended."""

    @property
    def unused_data(self) -> bytes:
        """What was fed after the end."""

    @property
    def unconsumed_tail(self) -> bytes:
        """What was fed and not taken because of `max_length`."""

    def decompress(self, data: bytes | memoryview, max_length: int = 0, /) -> bytes:
        """What the next bytes unpack to, at most max_length bytes; all of it for 0. Raises one of INFLATE_ERRORS if they are broken."""

    def copy(self) -> Self:
        """Another decompressor in the same state."""


def fastest_library() -> ModuleType:
    """The module of zlib-ng, or zlib where that is not installed."""
    try:
        return importlib.import_module("zlib_ng.zlib_ng")
    except ImportError:
        return zlib


LIBRARY = fastest_library()
INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error, LIBRARY.error)


def gzip_inflater() -> Inflater:
    """A decompressor that has been fed nothing yet."""
    return cast(Inflater, LIBRARY.decompressobj(GZIP_WINDOW_BITS))
