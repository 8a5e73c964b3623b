"""Texts that resemble held-out ones, where none may be missed: each is compared with all of them, without bands.

    held-out texts → their n-grams, sorted, in parts of bounded size → those that a text shares with each → the rule of deduplication

Locality-sensitive hashing, which deduplication uses for candidates, hardly ever finds a short text inside a long one. Held-out
text is little, so an index of all its n-grams is affordable: 20 bytes per n-gram. `neighbours_of` looks through a whole corpus,
shard by shard; what it finds does not depend on how many parts the index has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gristmill.data.executor import Executor
from gristmill.data.write import write_table
from gristmill.select.corpus import Corpus, batches_of_texts
from gristmill.select.files import Array, read_part, write_parts
from gristmill.select.rules import MIN_CONTAINMENT, DuplicateRules
from gristmill.select.sets import distinct_ngrams
from gristmill.select.stages import run_all
from gristmill.select.words import Int64, UInt64
from gristmill.store.durable import atomic_path

PART_BYTES = (
    50_000_000  # of held-out text in one part of the index, which then takes some 200 MB, and 600 MB while it is built
)
MAX_PAIRS = 4_000_000  # (n-gram of a text, held-out document that has it) looked at together
NEIGHBOURS = "neighbours.parquet"
NEIGHBOURS_SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),
        pa.field("held", pa.int64(), nullable=False),
        pa.field("jaccard", pa.float64(), nullable=False),
        pa.field("containment", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Resemblance:
    """The held-out document that a document resembles most. containment: of the one with fewer n-grams in the other.

    Both numbers are None where the two only share a cluster, through other documents.
    """

    held: int
    jaccard: float | None = None
    containment: float | None = None


@dataclass(frozen=True, kw_only=True)
class Index:
    """G n-grams of V held-out documents, H of them distinct: hash_H has the owners owner_G[first_H1[h] : first_H1[h + 1]].

    document_V, size_V: the number of each document, and how many distinct n-grams it has.
    """

    hash_H: UInt64
    first_H1: Int64
    owner_G: NDArray[np.int32]
    document_V: Int64
    size_V: Int64


INDEX_FIELDS = ("hash_H", "first_H1", "owner_G", "document_V", "size_V")
INDEX_KINDS = (np.uint64, np.int64, np.int32, np.int64, np.int64)  # of its fields


class HeldOutTexts:
    """What resembles held-out documents. A text shorter than one n-gram resembles none."""

    def __init__(self, held: Iterable[Sequence[tuple[int, str]]] | Index, rules: DuplicateRules) -> None:
        self.rules = rules
        self.index = held if isinstance(held, Index) else index_of(held, rules.ngram)

    def find(self, batch: Sequence[tuple[int, str]]) -> dict[int, Resemblance]:
        """Those of the documents that are copies of a held-out one, part of one, or contain one, each with the closest."""
        index = self.index
        if not len(index.hash_H):
            return {}
        grams, text_G = distinct_ngrams([text for _, text in batch], self.rules.ngram)
        size_D = np.bincount(text_G, minlength=len(batch))
        place_G = np.minimum(np.searchsorted(index.hash_H, grams), len(index.hash_H) - 1)
        known = index.hash_H[place_G] == grams
        found: dict[int, Resemblance] = {}
        for text_P, owner_P, shared_P in self._shared(text_G[known], place_G[known], len(batch)):
            for d, closest in self._closest(size_D, text_P, owner_P, shared_P):
                found[batch[d][0]] = closest
        return found

    def _shared(self, text_K: Int64, place_K: Int64, num_texts: int) -> Iterator[tuple[Int64, Int64, Int64]]:
        """(text, held-out document, how many n-grams they share) of all pairs that share one; all of a text together."""
        first_H1, owner_G, num_held = self.index.first_H1, self.index.owner_G, len(self.index.document_V)
        count_K = first_H1[place_K + 1] - first_H1[place_K]
        end_D = np.searchsorted(text_K, np.arange(num_texts + 1))
        pairs_D = np.diff(np.concatenate([[0], np.cumsum(count_K)])[end_D])
        d = 0
        while d < num_texts:
            stop = max(d + 1, int(np.searchsorted(np.cumsum(pairs_D[d:]), MAX_PAIRS, side="right")) + d)
            mine = slice(end_D[d], end_D[stop])
            if stop == d + 1:  # one text may have more pairs than fit
                shared_V = self._shared_of_one(place_K[mine])
                owners = np.flatnonzero(shared_V)
                yield np.full(len(owners), d), owners, shared_V[owners]
            else:
                entries = _ranges(first_H1[place_K[mine]], count_K[mine])
                pair = np.repeat(text_K[mine], count_K[mine]) * num_held + owner_G[entries]
                pair, shared = np.unique(pair, return_counts=True)
                yield pair // num_held, pair % num_held, shared
            d = stop

    def _shared_of_one(self, place_K: Int64) -> Int64:
        """How many n-grams one text shares with each held-out document."""
        first_H1 = self.index.first_H1
        shared_V = np.zeros(len(self.index.document_V), dtype=np.int64)
        count_K = first_H1[place_K + 1] - first_H1[place_K]
        ends = np.flatnonzero(np.diff(np.cumsum(count_K) // MAX_PAIRS)) + 1
        for places in np.split(place_K, ends):
            owners = self.index.owner_G[_ranges(first_H1[places], first_H1[places + 1] - first_H1[places])]
            shared_V += np.bincount(owners, minlength=len(shared_V))
        return shared_V

    def _closest(
        self, size_D: Int64, text_P: Int64, owner_P: Int64, shared_P: Int64
    ) -> Iterator[tuple[int, Resemblance]]:
        """Of the pairs that the rule calls alike, the closest of each text: by Jaccard, then containment, then number."""
        mine, theirs = size_D[text_P], self.index.size_V[owner_P]
        jaccard = shared_P / (mine + theirs - shared_P)
        containment = shared_P / np.minimum(mine, theirs)
        held = self.index.document_V[owner_P]
        alike = np.flatnonzero((jaccard >= self.rules.min_jaccard) | (containment >= MIN_CONTAINMENT))
        order = alike[np.lexsort((held[alike], -containment[alike], -jaccard[alike], text_P[alike]))]
        texts, first = np.unique(text_P[order], return_index=True)
        for d, p in zip(texts.tolist(), order[first].tolist(), strict=True):
            yield d, Resemblance(held=int(held[p]), jaccard=float(jaccard[p]), containment=float(containment[p]))


def index_of(batches: Iterable[Sequence[tuple[int, str]]], ngram: int) -> Index:
    """The index of held-out documents; a number names one document."""
    documents: list[int] = []
    grams, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for batch in batches:
        found, text_G = distinct_ngrams([text for _, text in batch], ngram)
        grams.append(found)
        owners.append((text_G + len(documents)).astype(np.int32))
        documents += [document for document, _ in batch]
    flat, owner_G = np.concatenate(grams), np.concatenate(owners)
    order = np.argsort(flat, kind="stable")
    hash_H, first_H = np.unique(flat[order], return_index=True)
    return Index(
        hash_H=hash_H,
        first_H1=np.append(first_H, len(flat)),
        owner_G=owner_G[order],
        document_V=np.array(documents, dtype=np.int64),
        size_V=np.bincount(owner_G, minlength=len(documents)),
    )


def neighbours_of(
    corpus: Corpus,
    *,
    held: Path,
    asked: Path,
    rules: DuplicateRules,
    work: Path,
    executor: Executor,
    part_bytes: int = PART_BYTES,
) -> Path:
    """Which of the asked documents resemble a held-out one: work/neighbours.parquet, sorted by document.

    held, asked: .npy files with a boolean (or byte) per document of the corpus. Columns: document, held (int64),
    jaccard, containment (float64), the closest held-out document of each. Every pair is compared: none is missed.
    A killed call resumes with the parts and shards that are left.
    """
    path = work / NEIGHBOURS
    if path.is_file():
        return path
    build = BuildPart(corpus=corpus, held=held, ngram=rules.ngram, out=work, part_bytes=part_bytes)
    parts = range(len(build.cuts()) - 1)
    find = FindNeighbours(
        corpus=corpus, asked=asked, rules=rules, out=work, parts=tuple(build.target(number) for number in parts)
    )
    shards = range(len(corpus.shards))
    run_all(executor, build, [number for number in parts if not build.target(number).is_file()])
    run_all(executor, find, [k for k in shards if not find.target(k).is_file()])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, NEIGHBOURS_SCHEMA, compression="zstd") as writer:
        for k in shards:
            writer.write_table(pq.read_table(find.target(k)))
    for done in (*find.parts, *map(find.target, shards)):
        done.unlink(missing_ok=True)
    return path


@dataclass(frozen=True, kw_only=True)
class BuildPart:
    """The function over parts: the index of held-out documents of about `part_bytes` of text. Safe to repeat."""

    corpus: Corpus
    held: Path
    ngram: int
    out: Path
    part_bytes: int

    def target(self, number: int) -> Path:
        """Where the part lies: the arrays of `Index`."""
        return self.out / f"held-{number:05d}.bin"

    def __call__(self, number: int) -> None:
        """Builds one part."""
        first, end = self.cuts()[number : number + 2]
        index = index_of(self._batches(first, end), self.ngram)
        arrays: list[Array] = [index.hash_H, index.first_H1, index.owner_G, index.document_V, index.size_V]
        write_parts(self.target(number), arrays, count=len(arrays))

    def cuts(self) -> list[int]:
        """Documents at which parts begin, and the number of all; a part has one held-out document at least."""
        cuts, size = [0], 0
        for k in range(len(self.corpus.shards)):
            rows = np.flatnonzero(self.corpus.mask(self.held, k))
            if len(rows):
                sizes = self.corpus.prints_of(k, "num_bytes").column("num_bytes").to_numpy()[rows]
                for row, num_bytes in zip(rows.tolist(), sizes.tolist(), strict=True):
                    if size and size + num_bytes > self.part_bytes:
                        cuts.append(int(self.corpus.firsts_S1[k]) + row)
                        size = 0
                    size += num_bytes
        return [*cuts, len(self.corpus)]

    def _batches(self, first: int, end: int) -> Iterator[list[tuple[int, str]]]:
        for k, shard in enumerate(self.corpus.shards):
            numbers = np.flatnonzero(self.corpus.mask(self.held, k)) + int(self.corpus.firsts_S1[k])
            numbers = numbers[(numbers >= first) & (numbers < end)]
            if len(numbers):
                yield from numbered(shard.documents, numbers, int(self.corpus.firsts_S1[k]))


@dataclass(frozen=True, kw_only=True)
class FindNeighbours:
    """The function over shards: the asked documents of one shard that resemble a held-out one. Safe to repeat.

    The shard is read once for each part of the index.
    """

    corpus: Corpus
    asked: Path
    rules: DuplicateRules
    out: Path
    parts: tuple[Path, ...]

    def target(self, k: int) -> Path:
        """Where they lie: rows of NEIGHBOURS_SCHEMA."""
        return self.out / f"neighbours-{k:05d}.parquet"

    def __call__(self, k: int) -> None:
        """Looks through one shard."""
        first = int(self.corpus.firsts_S1[k])
        numbers = np.flatnonzero(self.corpus.mask(self.asked, k)) + first
        closest: dict[int, Resemblance] = {}
        for path in self.parts if len(numbers) else ():
            arrays = [read_part(path, place, kind) for place, kind in enumerate(INDEX_KINDS)]
            texts = HeldOutTexts(Index(**dict(zip(INDEX_FIELDS, arrays, strict=True))), self.rules)
            for batch in numbered(self.corpus.shards[k].documents, numbers, first):
                for d, found in texts.find(batch).items():
                    closest[d] = max(closest.get(d, found), found, key=_closeness)
        rows = [{"document": d, **asdict(closest[d])} for d in sorted(closest)]
        write_table(self.target(k), pa.Table.from_pylist(rows, schema=NEIGHBOURS_SCHEMA))


def numbered(path: Path, numbers: Int64, first: int) -> Iterator[list[tuple[int, str]]]:
    """(document, text) of the documents with these numbers, in batches, from the shard whose first number is `first`."""
    for rows, texts in batches_of_texts(path, numbers - first):
        yield list(zip((rows + first).tolist(), texts, strict=True))


def _closeness(one: Resemblance) -> tuple[float, float, int]:
    assert one.jaccard is not None, one
    assert one.containment is not None, one
    return one.jaccard, one.containment, -one.held


def _ranges(starts: Int64, counts: Int64) -> Int64:
    """All numbers of the ranges that begin at `starts`, one after another."""
    inside: Int64 = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(starts, counts) + inside, dtype=np.int64)
