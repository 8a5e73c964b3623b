"""Word n-gram sets of full texts: of texts in memory, or spilled to disk for the documents that have candidates.

    documents of a shard with candidates -> sorted distinct n-gram hashes, 8 bytes each -> sets-NNNNN.bin, places-NNNNN.bin

The n-grams of a text say which text it is as long as few of them occur twice. Logs of the calls of four functions have the same
ones, in whatever order the calls are. So a text of which many n-grams occur again has a second set, of n-grams
WIDENING times as long, unless it is shorter than one; two such texts are compared by both.

A set is read whole where it fits the block that is compared, or in pieces where one document is larger than a block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.select.corpus import BATCH_BYTES, Corpus, batches_of_texts, text_pieces
from gristmill.select.files import Array, mapped, read_flat, write_flat
from gristmill.select.pages import keep_freed_pages
from gristmill.select.stages import Stage
from gristmill.select.words import WIDENING, Int64, UInt64, Words, composed, ngram_hashes, ngrams_per_text, split_words

MIN_DISTINCT = 0.9  # of the n-grams of a text; marin-community/marin takes texts below it for repetitive, too
PLACE = np.dtype([("touched", "<i8"), ("first", "<i8"), ("size", "<i8"), ("wide", "<i8")])


@dataclass(frozen=True, kw_only=True)
class TextSets:
    """The sorted distinct n-gram hashes of a text; `wide`: those of WIDENING × n words where it is repetitive, else none."""

    narrow: UInt64
    wide: UInt64


def ngram_set(text: str, n: int) -> UInt64:
    """The sorted distinct word n-gram hashes of the whole text, which is split in pieces where it is long."""
    return _counted_set(text, n)[0]


def text_sets(texts: Sequence[str], n: int) -> Iterator[TextSets]:
    """The sets of each text; short texts are split into words together."""
    if sum(map(len, texts)) > BATCH_BYTES:
        for text in texts:
            narrow, count = _counted_set(text, n)
            repetitive = len(narrow) < MIN_DISTINCT * count
            yield TextSets(narrow=narrow, wide=ngram_set(text, n * WIDENING) if repetitive else np.empty(0, np.uint64))
        return
    both = both_ngrams(texts, n)
    places = np.arange(len(texts) + 1)
    end_D, wide_end_D = (np.searchsorted(text_N, places) for _, text_N in (both.narrow, both.wide))
    for d in range(len(texts)):
        yield TextSets(
            narrow=both.narrow[0][end_D[d] : end_D[d + 1]], wide=both.wide[0][wide_end_D[d] : wide_end_D[d + 1]]
        )


def _counted_set(text: str, n: int) -> tuple[UInt64, int]:
    """The set of `ngram_set`, and how many n-grams there are."""
    carried = np.empty(0, dtype=np.uint64)
    found = [np.empty(0, dtype=np.uint64)]
    count = 0
    for piece in text_pieces(composed(text)):
        words = np.concatenate([carried, split_words([piece]).hashes_W])
        count += max(0, len(words) - n + 1)
        found.append(_distinct(ngram_hashes(words, n)))
        carried = words[max(0, len(words) - n + 1) :]
    return _distinct(np.concatenate(found)), count


def distinct_ngrams(texts: Sequence[str], n: int) -> tuple[UInt64, Int64]:
    """The distinct n-grams of each text, sorted, one text after another, and of which text each is."""
    return _distinct_of_words(split_words(texts), n)


@dataclass(frozen=True, kw_only=True)
class BothNgrams:
    """Of D texts: `distinct_ngrams`, the wide ones of those that are repetitive in the same form, and which are."""

    narrow: tuple[UInt64, Int64]
    wide: tuple[UInt64, Int64]
    repetitive_D: NDArray[np.bool_]


def both_ngrams(texts: Sequence[str], n: int) -> BothNgrams:
    """The n-grams of texts, and what tells repetitive ones apart."""
    words = split_words(texts)
    grams, text_G = _distinct_of_words(words, n)
    count_D = np.maximum(np.diff(words.offsets_D1) - n + 1, 0)
    repetitive_D = np.bincount(text_G, minlength=len(texts)) < MIN_DISTINCT * count_D
    repetitive_D &= count_D > n * (WIDENING - 1)  # shorter texts have no wide n-gram
    these = np.flatnonzero(repetitive_D)
    wide = [_distinct(ngram_hashes(words.of(d), n * WIDENING)) for d in these.tolist()]
    text_W = np.repeat(these, [len(some) for some in wide])
    return BothNgrams(
        narrow=(grams, text_G),
        wide=(np.concatenate([np.empty(0, np.uint64), *wide]), text_W.astype(np.int64)),
        repetitive_D=repetitive_D,
    )


def _distinct_of_words(words: Words, n: int) -> tuple[UInt64, Int64]:
    grams, offsets = ngrams_per_text(words, n)
    text_G = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    for first, end in itertools.pairwise(offsets.tolist()):
        grams[first:end].sort()
    new = np.ones(len(grams), dtype=bool)
    new[1:] = (grams[1:] != grams[:-1]) | (text_G[1:] != text_G[:-1])
    return grams[new], text_G[new]


def num_shared(one: UInt64, other: UInt64) -> int:
    """How many n-grams two sets have in common: equal neighbours once both are one sorted array, which a stable sort merges."""
    both = np.concatenate((one, other))
    both.sort(kind="stable")
    return int(np.count_nonzero(both[1:] == both[:-1]))


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
        keep_freed_pages()
        first, end = (int(number) for number in self.corpus.firsts_S1[k : k + 2])
        rank_D = read_flat(self.ranks, np.int64, first=first, count=end - first)
        touched = mapped(self.touched, np.int64)
        place_D = np.minimum(np.searchsorted(touched, rank_D), max(len(touched) - 1, 0))
        rows = np.flatnonzero((rank_D >= 0) & (touched[place_D] == rank_D)) if len(touched) else np.empty(0, np.int64)
        sizes: list[tuple[int, int]] = []

        def sets() -> Iterator[UInt64]:
            for _, texts in batches_of_texts(self.corpus.shards[k].documents, rows):
                for found in text_sets(texts, self.ngram):
                    sizes.append((len(found.narrow), len(found.wide)))
                    yield from (found.narrow, found.wide)

        write_flat(self.sets(k), sets())
        places = np.zeros(len(rows), dtype=PLACE)
        places["touched"] = place_D[rows]
        places["size"], places["wide"] = np.array(sizes, dtype=np.int64).reshape(-1, 2).T
        lengths = places["size"] + places["wide"]
        places["first"] = np.cumsum(lengths) - lengths
        write_flat(self.target(k), [places])


class NgramSets:
    """The spilled sets of all shards, by the place of the document among those with candidates. 16 bytes for each.

    size_T, wide_T: n-grams of each set of a document, the wide ones after the others; wide_T is 0 where it is not repetitive.
    """

    def __init__(self, stage: Stage, spilled: SpillSets, *, num_touched: int) -> None:
        self._files = [spilled.sets(k) for k in range(len(spilled.corpus.shards))]
        counts = [path.stat().st_size // 8 for path in self._files]
        self._bases = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._first_T = stage.array("set-firsts.scratch", num_touched, np.int64)
        self.size_T = stage.array("set-sizes.scratch", num_touched, np.int32)
        self.wide_T = stage.array("wide-sizes.scratch", num_touched, np.int32)
        for k in range(len(self._files)):
            places = read_flat(spilled.target(k), PLACE)
            self._first_T[places["touched"]] = places["first"] + self._bases[k]
            self.size_T[places["touched"]] = places["size"]
            self.wide_T[places["touched"]] = places["wide"]

    def length(self, t: int) -> int:
        """How many n-grams `load` reads of a document."""
        return int(self.size_T[t]) + int(self.wide_T[t])

    def load(self, wanted: Int64) -> dict[int, UInt64]:
        """The sets of some documents, read file by file: both of a document as one array."""
        order = wanted[np.argsort(self._first_T[wanted], kind="stable")]
        file_N = np.searchsorted(self._bases, self._first_T[order], side="right") - 1
        found: dict[int, UInt64] = {}
        for k in np.unique(file_N).tolist():
            with self._files[k].open("rb") as file:
                mine = order[file_N == k]
                for t in mine.tolist():
                    file.seek(8 * int(self._first_T[t] - self._bases[k]))
                    found[t] = np.frombuffer(file.read(8 * self.length(t)), dtype=np.uint64)
        return found

    def num_shared(self, one: int, other: int, loaded: dict[int, UInt64], *, wide: bool, chunk: int) -> int:
        """How many n-grams two documents have in common, or how many wide ones. What is not loaded is read, at most `chunk`
        n-grams of each at a time."""
        ranges = [self._range(t, wide=wide) for t in (one, other)]
        if one in loaded:
            return num_shared(*(loaded[t][first:end] for t, (first, end) in zip((one, other), ranges, strict=True)))
        shared = 0
        while all(first < end for first, end in ranges):
            parts = [
                self._read(t, first, min(chunk, end - first))
                for t, (first, end) in zip((one, other), ranges, strict=True)
            ]
            last = min(part[-1] for part in parts)
            counts = [int(np.searchsorted(part, last, side="right")) for part in parts]
            shared += num_shared(parts[0][: counts[0]], parts[1][: counts[1]])
            ranges = [(first + count, end) for (first, end), count in zip(ranges, counts, strict=True)]
        return shared

    def _range(self, t: int, *, wide: bool) -> tuple[int, int]:
        """Where the n-grams of a document begin and end among all that it has."""
        size = int(self.size_T[t])
        return (size, size + int(self.wide_T[t])) if wide else (0, size)

    def _read(self, t: int, place: int, count: int) -> Array:
        first = int(self._first_T[t])
        k = int(np.searchsorted(self._bases, first, side="right")) - 1
        return read_flat(self._files[k], np.uint64, first=first - int(self._bases[k]) + place, count=count)
