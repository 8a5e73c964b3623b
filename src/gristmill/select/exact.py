"""The hash that exact copies share: of the whole text, composed (NFC), in lower case, with every run of white space made one space.

White space is what `str.split` cuts at. Texts lie in one buffer, so that no Python loop runs over their characters.
"""

from __future__ import annotations

import itertools

import numpy as np
import xxhash
from numpy.typing import NDArray

from gristmill.select.words import Int64, UInt64, folded, joined

_SPACE = ord(" ")
_SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]  # none is beyond
_WIDE = {
    length: [int.from_bytes(space.encode()) for space in _SPACES if len(space.encode()) == length] for length in (2, 3)
}


def exact_hash(text: str) -> tuple[int, int]:
    """The hash of one text, 128 bits, high half first."""
    high, low = exact_hashes(*joined([folded(text)]))[0].tolist()
    return high, low


def exact_hashes(buffer: bytes, text_starts_D1: Int64) -> UInt64:
    """exact_D2 of texts that are folded and joined: 128 bits of each, high half first."""
    raw = np.frombuffer(buffer, dtype=np.uint8)
    blank = _blanks(raw)
    other = np.flatnonzero(blank & (raw != _SPACE))
    again = np.zeros(len(raw), dtype=bool)
    again[1:] = blank[1:] & blank[:-1]
    whole = memoryview(buffer)
    if len(other) or again.any():
        line = raw.copy()
        line[other] = _SPACE
        whole = line[~again].data
        bounds = itertools.pairwise(text_starts_D1.tolist())
        text_starts_D1 = text_starts_D1 - np.cumsum([0, *(np.count_nonzero(again[first:end]) for first, end in bounds)])
    texts = (_stripped(whole[first:end]) for first, end in itertools.pairwise(text_starts_D1.tolist()))
    digests = b"".join(map(xxhash.xxh3_128_digest, texts))
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def _stripped(text: memoryview) -> memoryview:
    """The text without the one blank that may be at either end; no copy is made."""
    first = int(bytes(text[:1]) == b" ")
    return text[first : len(text) - int(bytes(text[first:][-1:]) == b" ")]


def _blanks(raw: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which bytes belong to white space. Of ASCII that is 9-13 and 28-32; what is below a range wraps around and lies above it."""
    blank: NDArray[np.bool_] = (raw - np.uint8(9) < 5) | (raw - np.uint8(28) < 5)
    lead = np.flatnonzero(raw >= 0xC2)
    for length, spaces in _WIDE.items():
        bytes_L = [raw[np.minimum(lead + place, len(raw) - 1)].astype(np.int64) for place in range(length)]
        code = sum(byte << 8 * (length - 1 - place) for place, byte in enumerate(bytes_L))
        found = lead[np.isin(code, spaces)]
        blank[found[:, None] + np.arange(length)] = True
    return blank
