"""Word n-gram sets of full texts: of texts in memory, or spilled to disk for the documents that have candidates.

    documents of a shard with candidates -> sorted distinct n-gram hashes, 8 bytes each -> sets-NNNNN.bin, places-NNNNN.bin

A set is read whole where it fits the block that is compared, or in pieces where one document is larger than a block.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gristmill.select.corpus import BATCH_BYTES, Corpus, batches_of_texts, text_pieces
from gristmill.select.files import Array, mapped, read_flat, write_flat
from gristmill.select.stages import Stage
from gristmill.select.words import Int64, UInt64, ngram_hashes, ngrams_per_text, split_words

PLACE = np.dtype([("touched", "<i8"), ("first", "<i8"), ("size", "<i8")])


def ngram_set(text: str, n: int) -> UInt64:
    """The sorted distinct word n-gram hashes of the whole text, which is split in pieces where it is long."""
    composed = unicodedata.normalize("NFC", text)
    carried = np.empty(0, dtype=np.uint64)
    found = [np.empty(0, dtype=np.uint64)]
    for piece in text_pieces(composed):
        words = np.concatenate([carried, split_words([piece]).hashes_W])
        found.append(_distinct(ngram_hashes(words, n)))
        carried = words[max(0, len(words) - n + 1) :]
    return _distinct(np.concatenate(found))


def ngram_sets(texts: Sequence[str], n: int) -> Iterator[UInt64]:
    """`ngram_set` of each text; short texts are split into words together."""
    if sum(map(len, texts)) > BATCH_BYTES:
        yield from (ngram_set(text, n) for text in texts)
        return
    grams, text_G = distinct_ngrams(texts, n)
    ends = np.searchsorted(text_G, np.arange(len(texts) + 1))
    for d in range(len(texts)):
        yield grams[ends[d] : ends[d + 1]]


def distinct_ngrams(texts: Sequence[str], n: int) -> tuple[UInt64, Int64]:
    """The distinct n-grams of each text, sorted, one text after another, and of which text each is."""
    grams, offsets = ngrams_per_text(split_words([unicodedata.normalize("NFC", text) for text in texts]), n)
    text_G = np.repeat(np.arange(len(texts)), np.diff(offsets))
    order = np.lexsort((grams, text_G))
    grams = grams[order]  # text_G is in order already
    new = np.ones(len(grams), dtype=bool)
    new[1:] = (grams[1:] != grams[:-1]) | (text_G[1:] != text_G[:-1])
    return grams[new], text_G[new]


def num_shared(one: UInt64, other: UInt64) -> int:
    """How many n-grams two sets have in common."""
    if not len(one) or not len(other):
        return 0
    places = np.minimum(np.searchsorted(other, one), len(other) - 1)
    return int((other[places] == one).sum())


def similarity(shared: int, size: int, other_size: int) -> tuple[float, float]:
    """(Jaccard similarity, share of the first set's n-grams that the other has) of two sets; zeros for an empty one."""
    if not size or not other_size:
        return 0.0, 0.0
    return shared / (size + other_size - shared), shared / size


def overlap(document: UInt64, survivor: UInt64) -> tuple[float, float]:
    """(Jaccard similarity, share of the document's n-grams that the survivor has) of two n-gram sets."""
    return similarity(num_shared(document, survivor), len(document), len(survivor))


def _distinct(values: UInt64) -> UInt64:
    """The distinct values, sorted. It sorts in place: numpy.unique takes several times the memory."""
    values.sort()
    new = np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return values[new]


@dataclass(frozen=True, kw_only=True)
class SpillSets:
    """The function over shards: the sets of the documents of one shard that have candidates.

    ranks: a flat file, rank of each document or -1. touched: a flat file, the ranks of documents with candidates, ascending;
    a document's place in it is its name from here on.
    """

    corpus: Corpus
    ngram: int
    ranks: Path
    touched: Path
    out: Path

    def target(self, k: int) -> Path:
        """Where each set of shard k lies: rows of PLACE. Written after the sets themselves."""
        return self.out / f"places-{k:05d}.bin"

    def sets(self, k: int) -> Path:
        """The sets of shard k, one after another."""
        return self.out / f"sets-{k:05d}.bin"

    def __call__(self, k: int) -> None:
        first, end = (int(number) for number in self.corpus.firsts_S1[k : k + 2])
        rank_D = read_flat(self.ranks, np.int64, first=first, count=end - first)
        touched = mapped(self.touched, np.int64)
        place_D = np.minimum(np.searchsorted(touched, rank_D), max(len(touched) - 1, 0))
        rows = np.flatnonzero((rank_D >= 0) & (touched[place_D] == rank_D)) if len(touched) else np.empty(0, np.int64)
        sizes: list[int] = []

        def sets() -> Iterator[UInt64]:
            for _, texts in batches_of_texts(self.corpus.shards[k].documents, rows):
                for grams in ngram_sets(texts, self.ngram):
                    sizes.append(len(grams))
                    yield grams

        write_flat(self.sets(k), sets())
        places = np.zeros(len(rows), dtype=PLACE)
        places["touched"], places["size"] = place_D[rows], sizes
        places["first"] = np.cumsum(places["size"]) - places["size"]
        write_flat(self.target(k), [places])


class NgramSets:
    """The spilled sets of all shards, by the place of the document among those with candidates. 12 bytes for each."""

    def __init__(self, stage: Stage, spilled: SpillSets, *, num_touched: int) -> None:
        self._files = [spilled.sets(k) for k in range(len(spilled.corpus.shards))]
        counts = [path.stat().st_size // 8 for path in self._files]
        self._bases = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._first_T = stage.array("set-firsts.scratch", num_touched, np.int64)
        self.size_T = stage.array("set-sizes.scratch", num_touched, np.int32)
        for k in range(len(self._files)):
            places = read_flat(spilled.target(k), PLACE)
            self._first_T[places["touched"]] = places["first"] + self._bases[k]
            self.size_T[places["touched"]] = places["size"]

    def load(self, wanted: Int64) -> dict[int, UInt64]:
        """The sets of some documents, read file by file."""
        order = wanted[np.argsort(self._first_T[wanted], kind="stable")]
        file_N = np.searchsorted(self._bases, self._first_T[order], side="right") - 1
        found: dict[int, UInt64] = {}
        for k in np.unique(file_N).tolist():
            with self._files[k].open("rb") as file:
                for t in order[file_N == k].tolist():
                    file.seek(8 * int(self._first_T[t] - self._bases[k]))
                    found[t] = np.frombuffer(file.read(8 * int(self.size_T[t])), dtype=np.uint64)
        return found

    def num_shared_streamed(self, one: int, other: int, *, chunk: int) -> int:
        """As `num_shared`, holding at most `chunk` n-grams of each set at a time."""
        places, sizes, shared = [0, 0], [int(self.size_T[one]), int(self.size_T[other])], 0
        while places[0] < sizes[0] and places[1] < sizes[1]:
            parts = [self._read(t, place, chunk) for t, place in zip((one, other), places, strict=True)]
            last = min(part[-1] for part in parts)
            counts = [int(np.searchsorted(part, last, side="right")) for part in parts]
            shared += num_shared(parts[0][: counts[0]], parts[1][: counts[1]])
            places = [place + count for place, count in zip(places, counts, strict=True)]
        return shared

    def _read(self, t: int, place: int, count: int) -> Array:
        first = int(self._first_T[t])
        k = int(np.searchsorted(self._bases, first, side="right")) - 1
        count = min(count, int(self.size_T[t]) - place)
        return read_flat(self._files[k], np.uint64, first=first - int(self._bases[k]) + place, count=count)
