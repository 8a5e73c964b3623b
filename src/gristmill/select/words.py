"""Texts as arrays of word hashes: the one tokenising that deduplication and decontamination share.

A word is a run of letters and digits, lower-cased; everything else separates, punctuation of ASCII and of the Unicode
blocks U+2000-206F and U+3000-303F included. Digits are kept as they are, so that texts from one template with other
numbers stay apart. Scripts written without spaces (Chinese, Japanese, Thai, Lao) give one word per character.

    texts -> one byte buffer -> word boundaries (numpy) -> 64-bit hash per word -> n-gram hashes

Word hashes are polynomials over the bytes modulo 2^64, by prefix sums, so no Python loop runs over words. They are not
meant to withstand an adversary. U+2000-206F holds joiners as well; a word with one inside counts as two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]
Int64 = NDArray[np.int64]

_SPACE = 0x20
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_MASK = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of D texts, one text after another.

    hashes_W and the byte ranges starts_W, ends_W (into `buffer`, the normalised texts as UTF-8) have an entry a word;
    text d has the words offsets_D1[d] to offsets_D1[d + 1] and begins at byte text_starts_D1[d].
    """

    hashes_W: UInt64
    starts_W: Int64
    ends_W: Int64
    offsets_D1: Int64
    text_starts_D1: Int64
    buffer: bytes

    def of(self, d: int) -> UInt64:
        """The word hashes of one text."""
        return self.hashes_W[self.offsets_D1[d] : self.offsets_D1[d + 1]]

    def characters(self, d: int, first: int, end: int) -> tuple[int, int]:
        """Where words first..end (not included) of text d begin and end, in characters of the text."""
        begin = int(self.text_starts_D1[d])
        start_byte = int(self.starts_W[self.offsets_D1[d] + first])
        end_byte = int(self.ends_W[self.offsets_D1[d] + end - 1])
        start = len(self.buffer[begin:start_byte].decode("utf-8", "surrogatepass"))
        return start, start + len(self.buffer[start_byte:end_byte].decode("utf-8", "surrogatepass"))


def split_words(texts: Sequence[str]) -> Words:
    """The words of all texts, hashed."""
    parts = [lowered(text).encode("utf-8", "surrogatepass") for text in texts]
    buffer = b" ".join(parts) + b" "
    text_starts = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) + 1 for part in parts], out=text_starts[1:])
    raw = np.frombuffer(buffer.translate(_byte_table()), dtype=np.uint8)
    starts, ends = _word_ranges(raw)
    return Words(
        hashes_W=_range_hashes(raw, starts, ends),
        starts_W=starts,
        ends_W=ends,
        offsets_D1=np.searchsorted(starts, text_starts),
        text_starts_D1=text_starts,
        buffer=buffer,
    )


def lowered(text: str) -> str:
    """Lower case with as many characters as before, so that positions still hold."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def ngram_hashes(words_W: UInt64, n: int) -> UInt64:
    """The hash of each n consecutive words, (W - n + 1,); empty when there are fewer words."""
    count = len(words_W) - n + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    sums = np.zeros(count, dtype=np.uint64)
    for k in range(n):
        sums = sums * np.uint64(_BASE) + words_W[k : k + count]
    return mix(sums)


def ngrams_per_text(words: Words, n: int) -> tuple[UInt64, Int64]:
    """All n-gram hashes of all texts and the offsets (D + 1,) of each text's; no n-gram crosses a text."""
    flat = ngram_hashes(words.hashes_W, n)
    lengths = np.diff(words.offsets_D1)
    counts = np.maximum(lengths - n + 1, 0)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - words.offsets_D1[:-1], counts)
    return flat[inside], offsets


def mix(values: UInt64) -> UInt64:
    """A bijection of 64-bit values that spreads each bit over all (the finaliser of splitmix64, Steele et al. 2014)."""
    z = values + np.uint64(_BASE)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _byte_table() -> bytes:
    """ASCII letters and digits stay, other ASCII becomes a space, bytes of multi-byte characters stay."""
    return bytes(b if b >= 0x80 or chr(b).isalnum() else _SPACE for b in range(256))


def _word_ranges(raw: NDArray[np.uint8]) -> tuple[Int64, Int64]:
    """First byte and end of each word. Every text ends in a space, so looking two bytes ahead never wraps into words."""
    after1, after2 = np.roll(raw, -1), np.roll(raw, -2)
    multi = raw >= 0xC2
    two = (raw == 0xC2) & (after1 <= 0xBF) & (after1 >= 0x80)  # U+0080-00BF: no-break space, quotes, signs
    three = ((raw == 0xE2) & ((after1 == 0x80) | (after1 == 0x81))) | ((raw == 0xE3) & (after1 == 0x80))
    three &= multi & (after2 >= 0x80)
    letter = raw != _SPACE
    letter[np.flatnonzero(two)[:, None] + np.arange(2)] = False
    letter[np.flatnonzero(three)[:, None] + np.arange(3)] = False
    thai_lao = (raw == 0xE0) & ((after1 >= 0xB8) & (after1 <= 0xBB))
    alone = letter & (((raw >= 0xE3) & (raw <= 0xE9)) | thai_lao)
    begins = np.zeros(len(raw) + 3, dtype=bool)
    begins[: len(raw)] = alone
    begins[3:] |= alone  # what follows such a character begins anew
    begins = begins[: len(raw)] & letter
    begins |= letter & ~np.concatenate(([False], letter[:-1]))
    starts = np.flatnonzero(begins)
    stops = np.flatnonzero(begins | ~letter)
    ends = stops[np.searchsorted(stops, starts, side="right")]
    return starts.astype(np.int64), ends.astype(np.int64)


def _range_hashes(raw: NDArray[np.uint8], starts: Int64, ends: Int64) -> UInt64:
    """Polynomial hash of raw[start:end] for each range: prefix sums of byte × base^position, shifted to position 0."""
    powers, inverses = _powers(_BASE, len(raw)), _powers(pow(_BASE, -1, 1 << 64), len(raw))
    prefix = np.zeros(len(raw) + 1, dtype=np.uint64)
    np.cumsum((raw.astype(np.uint64) + np.uint64(1)) * powers, out=prefix[1:])
    return mix((prefix[ends] - prefix[starts]) * inverses[starts])


def _powers(base: int, count: int) -> UInt64:
    """base^0 ... base^(count-1) modulo 2^64."""
    factors = np.full(count, base & _MASK, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)
