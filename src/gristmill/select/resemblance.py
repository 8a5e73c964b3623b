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
from gristmill.select.sets import BothNgrams, both_ngrams
from gristmill.select.stages import run_all
from gristmill.select.words import Int64, UInt64
from gristmill.store.durable import atomic_path

PART_BYTES = (
    50_000_000  # of held-out text in one part of the index, which then takes some 200 MB, and 600 MB while it is built
)
MAX_PAIRS = 4_000_000  # (n-gram of a text, held-out document that has it) looked at together
PAIR = np.dtype([("text", "<i8"), ("owner", "<i8"), ("jaccard", "<f8"), ("containment", "<f8")])
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
class Owners:
    """G n-grams of V held-out documents, H of them distinct: hash_H has the owners owner_G[first_H1[h] : first_H1[h + 1]].

    size_V: how many distinct n-grams each document has.
    """

    hash_H: UInt64
    first_H1: Int64
    owner_G: NDArray[np.int32]
    size_V: Int64

    def of(self, grams_N: UInt64) -> tuple[Int64, NDArray[np.bool_]]:
        """The place of each n-gram in hash_H, and whether it is there."""
        if not len(self.hash_H):
            return np.zeros(len(grams_N), dtype=np.int64), np.zeros(len(grams_N), dtype=bool)
        place_N = np.minimum(np.searchsorted(self.hash_H, grams_N), len(self.hash_H) - 1)
        return place_N, self.hash_H[place_N] == grams_N


@dataclass(frozen=True, kw_only=True)
class Index:
    """The owners of n-grams and those of wide ones, which only repetitive documents have. document_V: the number of each document."""

    narrow: Owners
    wide: Owners
    repetitive_V: NDArray[np.bool_]
    document_V: Int64

    def arrays(self) -> list[Array]:
        """All arrays, to be written."""
        owners = [getattr(of, name) for of in (self.narrow, self.wide) for name in OWNER_FIELDS]
        return [*owners, self.repetitive_V, self.document_V]

    @classmethod
    def read(cls, path: Path) -> Index:
        """From a file with `arrays` as its parts."""
        kinds = (*OWNER_KINDS, *OWNER_KINDS, np.bool_, np.int64)
        arrays = [read_part(path, place, kind) for place, kind in enumerate(kinds)]
        narrow, wide = (
            Owners(**dict(zip(OWNER_FIELDS, arrays[first : first + len(OWNER_FIELDS)], strict=True)))
            for first in (0, len(OWNER_FIELDS))
        )
        return cls(narrow=narrow, wide=wide, repetitive_V=arrays[-2], document_V=arrays[-1])


OWNER_FIELDS = ("hash_H", "first_H1", "owner_G", "size_V")
OWNER_KINDS = (np.uint64, np.int64, np.int32, np.int64)  # of its fields


class HeldOutTexts:
    """What resembles held-out documents. A text shorter than one n-gram resembles none."""

    def __init__(self, held: Iterable[Sequence[tuple[int, str]]] | Index, rules: DuplicateRules) -> None:
        self.rules = rules
        self.index = held if isinstance(held, Index) else index_of(held, rules.ngram)

    def find(self, batch: Sequence[tuple[int, str]]) -> dict[int, Resemblance]:
        """Those of the documents that are copies of a held-out one, part of one, or contain one, each with the closest."""
        index = self.index
        both = both_ngrams([text for _, text in batch], self.rules.ngram)
        found: dict[int, Resemblance] = {}
        for alike in self._alike(both, len(batch)):
            order = np.lexsort(
                (index.document_V[alike["owner"]], -alike["containment"], -alike["jaccard"], alike["text"])
            )
            texts, first = np.unique(alike["text"][order], return_index=True)
            for d, pair in zip(texts.tolist(), alike[order[first]], strict=True):
                held = int(index.document_V[pair["owner"]])
                found[batch[d][0]] = Resemblance(
                    held=held, jaccard=float(pair["jaccard"]), containment=float(pair["containment"])
                )
        return found

    def _alike(self, both: BothNgrams, num_texts: int) -> Iterator[NDArray[np.void]]:
        """The pairs that the rule calls alike, rows of PAIR; all of a text together."""
        index, rules = self.index, self.rules
        size_D = np.bincount(both.narrow[1], minlength=num_texts)
        for text_P, owner_P, shared_P in _shared(index.narrow, both.narrow, num_texts):
            mine, theirs = size_D[text_P], index.narrow.size_V[owner_P]
            pairs = np.empty(len(text_P), dtype=PAIR)
            pairs["text"], pairs["owner"] = text_P, owner_P
            pairs["jaccard"] = shared_P / (mine + theirs - shared_P)
            pairs["containment"] = shared_P / np.minimum(mine, theirs)
            pairs = pairs[(pairs["jaccard"] >= rules.min_jaccard) | (pairs["containment"] >= MIN_CONTAINMENT)]
            in_doubt = both.repetitive_D[pairs["text"]] & index.repetitive_V[pairs["owner"]]
            if in_doubt.any():
                pairs = np.concatenate([pairs[~in_doubt], self._in_order(pairs[in_doubt], both, num_texts)])
            yield pairs

    def _in_order(self, pairs: NDArray[np.void], both: BothNgrams, num_texts: int) -> NDArray[np.void]:
        """Those of the pairs of repetitive documents that have their n-grams in the same order."""
        grams, text_W = both.wide
        mine = np.isin(text_W, pairs["text"])
        size_D = np.bincount(text_W, minlength=num_texts)
        kept = [pairs[:0]]
        for text_P, owner_P, shared_P in _shared(self.index.wide, (grams[mine], text_W[mine]), num_texts):
            agrees = self.rules.same_order(shared_P, size_D[text_P], self.index.wide.size_V[owner_P])
            num_held = len(self.index.document_V)
            keys = text_P[agrees] * num_held + owner_P[agrees]
            kept.append(pairs[np.isin(pairs["text"] * num_held + pairs["owner"], keys)])
        return np.concatenate(kept)


def _shared(owners: Owners, ngrams: tuple[UInt64, Int64], num_texts: int) -> Iterator[tuple[Int64, Int64, Int64]]:
    """(text, held-out document, how many n-grams they share) of all pairs that share one; all of a text together."""
    place_N, known_N = owners.of(ngrams[0])
    place_K, text_K = place_N[known_N], ngrams[1][known_N]
    first_H1, num_held = owners.first_H1, len(owners.size_V)
    count_K = first_H1[place_K + 1] - first_H1[place_K]
    end_D = np.searchsorted(text_K, np.arange(num_texts + 1))
    pairs_D = np.diff(np.concatenate([[0], np.cumsum(count_K)])[end_D])
    d = 0
    while d < num_texts:
        stop = max(d + 1, int(np.searchsorted(np.cumsum(pairs_D[d:]), MAX_PAIRS, side="right")) + d)
        mine = slice(end_D[d], end_D[stop])
        if stop == d + 1:  # one text may have more pairs than fit
            shared_V = _shared_of_one(owners, place_K[mine])
            found = np.flatnonzero(shared_V)
            yield np.full(len(found), d), found, shared_V[found]
        else:
            entries = _ranges(first_H1[place_K[mine]], count_K[mine])
            pair = np.repeat(text_K[mine], count_K[mine]) * num_held + owners.owner_G[entries]
            pair, shared = np.unique(pair, return_counts=True)
            yield pair // num_held, pair % num_held, shared
        d = stop


def _shared_of_one(owners: Owners, place_K: Int64) -> Int64:
    """How many n-grams one text shares with each held-out document."""
    first_H1 = owners.first_H1
    shared_V = np.zeros(len(owners.size_V), dtype=np.int64)
    count_K = first_H1[place_K + 1] - first_H1[place_K]
    ends = np.flatnonzero(np.diff(np.cumsum(count_K) // MAX_PAIRS)) + 1
    for places in np.split(place_K, ends):
        found = owners.owner_G[_ranges(first_H1[places], first_H1[places + 1] - first_H1[places])]
        shared_V += np.bincount(found, minlength=len(shared_V))
    return shared_V


def index_of(batches: Iterable[Sequence[tuple[int, str]]], ngram: int) -> Index:
    """The index of held-out documents; a number names one document."""
    documents: list[int] = []
    repetitive = [np.empty(0, dtype=bool)]
    narrow: list[tuple[UInt64, Int64]] = []
    wide: list[tuple[UInt64, Int64]] = []
    for batch in batches:
        both = both_ngrams([text for _, text in batch], ngram)
        for of, found in ((narrow, both.narrow), (wide, both.wide)):
            of.append((found[0], found[1] + len(documents)))
        repetitive.append(both.repetitive_D)
        documents += [document for document, _ in batch]
    return Index(
        narrow=_owners_of(narrow, len(documents)),
        wide=_owners_of(wide, len(documents)),
        repetitive_V=np.concatenate(repetitive),
        document_V=np.array(documents, dtype=np.int64),
    )


def _owners_of(found: Sequence[tuple[UInt64, Int64]], num_held: int) -> Owners:
    flat = np.concatenate([np.empty(0, np.uint64), *(grams for grams, _ in found)])
    owner_G = np.concatenate([np.empty(0, np.int32), *(owner.astype(np.int32) for _, owner in found)])
    order = np.argsort(flat, kind="stable")
    hash_H, first_H = np.unique(flat[order], return_index=True)
    return Owners(
        hash_H=hash_H,
        first_H1=np.append(first_H, len(flat)),
        owner_G=owner_G[order],
        size_V=np.bincount(owner_G, minlength=num_held),
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
        arrays = index.arrays()
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
            texts = HeldOutTexts(Index.read(path), self.rules)
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
