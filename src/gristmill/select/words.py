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

_BASE = 0x9E3779B97F4A7C15
_LONG_WORD = 256  # bytes
WIDENING = 8  # wide n-grams are so many times as long: with n-grams of 5, 40 words in a row
DOTTED_CAPITAL_I = "\u0130"


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
    return words_of(*joined([folded(text) for text in texts]))


def folded(text: str) -> bytes:
    """The text in NFC and lower case, as UTF-8."""
    return lowered(composed(text)).encode("utf-8", "surrogatepass")


def folded_utf8(text: bytes) -> bytes:
    """As `folded`, of a text in UTF-8."""
    return text.lower() if text.isascii() else folded(text.decode("utf-8", "surrogatepass"))


def joined(parts: Sequence[bytes]) -> tuple[bytes, Int64]:
    """Texts one after another, each with a blank at its end, and at which byte each begins, (D + 1,)."""
    starts = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) + 1 for part in parts], out=starts[1:])
    return b" ".join([*parts, b""]), starts


def words_of(buffer: bytes, text_starts_D1: Int64) -> Words:
    """The words of texts that are folded and joined."""
    starts, ends = _word_ranges(np.frombuffer(buffer, dtype=np.uint8))
    return Words(
        hashes_W=_range_hashes(buffer, starts, ends),
        starts_W=starts,
        ends_W=ends,
        offsets_D1=np.searchsorted(starts, text_starts_D1),
        text_starts_D1=text_starts_D1,
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
    return mix(_sums(words_W, n)) if len(words_W) >= n else np.empty(0, dtype=np.uint64)


def _sums(words_W: UInt64, n: int) -> UInt64:
    """Of each n consecutive words w the sum of w[k] × _BASE ** (n - 1 - k), (W - n + 1,), from the sums of half as many."""
    if n == 1:
        return words_W
    half = n // 2
    sums = _sums(words_W, half)
    sums = sums[: len(sums) - half] * np.uint64(_BASE**half % 2**64) + sums[half:]
    if n % 2:
        sums = sums[:-1] * np.uint64(_BASE) + words_W[n - 1 :]
    return sums


def ngrams_per_text(words: Words, n: int) -> tuple[UInt64, Int64]:
    """All n-gram hashes of all texts and the offsets (D + 1,) of each text's; no n-gram crosses a text."""
    flat = ngram_hashes(words.hashes_W, n)
    counts = np.maximum(np.diff(words.offsets_D1) - n + 1, 0)
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    inside = zip(words.offsets_D1.tolist(), counts.tolist())  # one offset more, the end
    parts = [flat[first : first + count] for first, count in inside]
    return np.concatenate([flat[:0], *parts]), offsets


def mix(values: UInt64) -> UInt64:
    """A bijection of 64-bit values that spreads each bit over all (the finaliser of splitmix64, Steele et al. 2014)."""
    z = values + np.uint64(_BASE)
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(z, np.uint64(27), out=shifted)
    z ^= shifted
    z *= np.uint64(0x94D049BB133111EB)
    np.right_shift(z, np.uint64(31), out=shifted)
    z ^= shifted
    return z


def _word_ranges(raw: NDArray[np.uint8]) -> tuple[Int64, Int64]:
    """First byte and end of each word; every text ends in a space. What is not ASCII is looked at byte by byte."""
    letter = np.zeros(len(raw) + 2, dtype=bool)  # a blank on either side
    is_digit = raw - np.uint8(ord("0")) < 10  # what is below wraps around
    letter[1:-1] = is_digit | ((raw | 0x20) - np.uint8(ord("a")) < 26) | (raw >= 0x80)
    lead = np.flatnonzero(raw >= 0xC2)
    first, after = raw[lead], raw[np.minimum(lead + 1, len(raw) - 1)]
    signs = lead[first == 0xC2]  # U+0080-00BF: no-break space, quotes, signs
    marks = lead[((first == 0xE2) & ((after == 0x80) | (after == 0x81))) | ((first == 0xE3) & (after == 0x80))]
    letter[1:][signs[:, None] + np.arange(2)] = False
    letter[1:][marks[:, None] + np.arange(3)] = False
    edges = np.flatnonzero(letter[1:] != letter[:-1])
    starts, stops = edges[::2].copy(), edges[1::2].copy()
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
    return starts, stops


def _range_hashes(buffer: bytes, starts: Int64, ends: Int64) -> UInt64:
    """A hash of the bytes of each range, eight at a time for all words at once; long words go one by one."""
    eights = np.ndarray((len(buffer),), dtype="<u8", buffer=buffer + bytes(8), strides=(1,))
    lengths = ends - starts
    hashes = mix(lengths.view(np.uint64) ^ _first_bytes(eights[starts], lengths))
    open_words = np.flatnonzero(lengths > 8)
    for offset in range(8, _LONG_WORD, 8):
        if not len(open_words):
            break
        chunk = _first_bytes(eights[starts[open_words] + offset], lengths[open_words] - offset)
        hashes[open_words] = mix(hashes[open_words] ^ chunk)
        open_words = open_words[lengths[open_words] > offset + 8]
    for long_word in np.flatnonzero(lengths > _LONG_WORD).tolist():
        hashes[long_word] = xxhash.xxh3_64_intdigest(buffer[starts[long_word] : ends[long_word]])
    return hashes


def _first_bytes(eights: UInt64, counts: Int64) -> UInt64:
    """Of each eight bytes the first `counts`, 1 or more, moved to the end; zeros stand before them."""
    return eights << ((8 - np.minimum(counts, 8)).view(np.uint64) << np.uint64(3))
