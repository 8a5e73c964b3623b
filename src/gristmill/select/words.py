"""Texts as arrays of word hashes: the one tokenising that deduplication and decontamination share.

A word is a run of letters and digits, lower-cased; everything else separates, punctuation of ASCII and of the Unicode
blocks U+2000-206F and U+3000-303F included. Texts are taken in Unicode's composed form (NFC, UAX 15), so that an accent is the same
letter however it was typed; the positions of words are those in that form, which most texts have already. Digits are kept as they are, so that texts from one template with other
numbers stay apart. Scripts written without spaces (Chinese, Japanese, Thai, Lao) give one word per character.

    texts -> one byte buffer -> word boundaries (numpy) -> 64-bit hash per word -> n-gram hashes

No Python loop runs over words. The hashes are not meant to withstand an adversary. U+2000-206F holds joiners as well; a
word with one inside counts as two.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

VERSION = 2  # of every step that uses it: rises when the meaning of what it computes changes

UInt64 = NDArray[np.uint64]
Int64 = NDArray[np.int64]

_SPACE = 0x20
_BASE = 0x9E3779B97F4A7C15
_LONG_WORD = 256  # bytes
WIDENING = 8  # wide n-grams are so many times as long: with n-grams of 5, 40 words in a row
DOTTED_CAPITAL_I = "\u0130"
# ASCII letters and digits stay, other ASCII becomes a space, bytes of multi-byte characters stay.
_BYTE_TABLE = bytes(b if b >= 0x80 or chr(b).isalnum() else _SPACE for b in range(256))


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
        """Where words first..end (not included) of text d begin and end, in characters of the composed text."""
        begin = int(self.text_starts_D1[d])
        start_byte = int(self.starts_W[self.offsets_D1[d] + first])
        end_byte = int(self.ends_W[self.offsets_D1[d] + end - 1])
        start = len(self.buffer[begin:start_byte].decode("utf-8", "surrogatepass"))
        return start, start + len(self.buffer[start_byte:end_byte].decode("utf-8", "surrogatepass"))


def split_words(texts: Sequence[str]) -> Words:
    """The words of all texts, hashed."""
    return words_of([folded(text) for text in texts])


def folded(text: str) -> bytes:
    """The text in NFC and lower case, as UTF-8."""
    return lowered(composed(text)).encode("utf-8", "surrogatepass")


def words_of(parts: Sequence[bytes]) -> Words:
    """The words of texts that are folded."""
    buffer = b" ".join(parts) + b" "
    text_starts = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) + 1 for part in parts], out=text_starts[1:])
    normal = buffer.translate(_BYTE_TABLE)
    raw = np.frombuffer(normal, dtype=np.uint8)
    starts, ends = _word_ranges(raw)
    return Words(
        hashes_W=_range_hashes(raw, normal, starts, ends),
        starts_W=starts,
        ends_W=ends,
        offsets_D1=np.searchsorted(starts, text_starts),
        text_starts_D1=text_starts,
        buffer=buffer,
    )


def composed(text: str) -> str:
    """The text in NFC; the same object where it is in that form."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def lowered(text: str) -> str:
    """Lower case with as many characters as before, so that positions still hold.

    One character only has a longer lower case, "i" with a dot above it; here it is "i".
    """
    return text.replace(DOTTED_CAPITAL_I, "i").lower()


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


def _word_ranges(raw: NDArray[np.uint8]) -> tuple[Int64, Int64]:
    """First byte and end of each word; every text ends in a space. What is not ASCII is looked at byte by byte."""
    letter = np.zeros(len(raw) + 2, dtype=bool)  # a blank on either side
    letter[1:-1] = raw != _SPACE
    lead = np.flatnonzero(raw >= 0xC2)
    first, after = raw[lead], raw[np.minimum(lead + 1, len(raw) - 1)]
    signs = lead[first == 0xC2]  # U+0080-00BF: no-break space, quotes, signs
    marks = lead[((first == 0xE2) & ((after == 0x80) | (after == 0x81))) | ((first == 0xE3) & (after == 0x80))]
    letter[1:][signs[:, None] + np.arange(2)] = False
    letter[1:][marks[:, None] + np.arange(3)] = False
    starts = np.flatnonzero(letter[1:] & ~letter[:-1])
    stops = np.flatnonzero(letter[:-1] & ~letter[1:])
    thai_lao = (first == 0xE0) & (after >= 0xB8) & (after <= 0xBB)
    alone = lead[((first >= 0xE3) & (first <= 0xE9)) | thai_lao]
    alone = alone[letter[1:][alone]]
    if len(alone):  # such a character is a word, and what follows it begins another
        begins = np.zeros(len(letter), dtype=bool)
        begins[starts] = begins[alone] = True
        begins[alone[letter[1:][alone + 3]] + 3] = True
        bounds = begins.copy()
        bounds[stops] = True
        starts, edges = np.flatnonzero(begins), np.flatnonzero(bounds)
        stops = edges[np.flatnonzero(begins[edges]) + 1]
    return starts.astype(np.int64), stops.astype(np.int64)


def _range_hashes(raw: NDArray[np.uint8], buffer: bytes, starts: Int64, ends: Int64) -> UInt64:
    """A hash of the bytes of each range, eight at a time for all words at once; long words go one by one."""
    padded = buffer + bytes(8)
    eights = np.ndarray((len(raw),), dtype="<u8", buffer=padded, strides=(1,))
    lengths = ends - starts
    hashes = lengths.astype(np.uint64)
    shifts = np.uint64(8) * np.arange(8, -1, -1, dtype=np.uint64)
    open_words = np.flatnonzero(lengths <= _LONG_WORD)
    for offset in range(0, _LONG_WORD, 8):
        if not len(open_words):
            break
        left = np.minimum(lengths[open_words] - offset, 8)
        # The bytes beyond the word are shifted out; at least one is left, so no shift is 64.
        chunk = eights[starts[open_words] + offset] << shifts[left]
        hashes[open_words] = mix(hashes[open_words] ^ chunk)
        open_words = open_words[lengths[open_words] > offset + 8]
    for long_word in np.flatnonzero(lengths > _LONG_WORD).tolist():
        hashes[long_word] = xxhash.xxh3_64_intdigest(buffer[starts[long_word] : ends[long_word]])
    return hashes
