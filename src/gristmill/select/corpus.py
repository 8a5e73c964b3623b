"""The documents that a search for duplicates runs over: shards with their texts and prints, numbered as one sequence.

A document's number is the first number of its shard plus its row. Which documents take part, and their scores, lie in two
NumPy files with an entry per document, so that a worker reads only the part of its shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gristmill.data.document import open_parquet, read_batches
from gristmill.errors import DataError
from gristmill.select.words import Int64

BATCH_ROWS = 256
BATCH_BYTES = 4_000_000  # of text split into words at once; arrays take some 20 times as much

_BLANK = re.compile(r"[ \t\n\r]")


@dataclass(frozen=True, kw_only=True)
class PrintedShard:
    """One shard of documents and its prints (`signatures.PRINTS_SCHEMA`), row by row.

    priority: of the source in the survivor order, 0 is the most wanted.
    """

    documents: Path
    prints: Path
    source: str
    priority: int


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """D documents in S shards; shard k holds the documents firsts_S1[k] to firsts_S1[k + 1] - 1.

    turns: an .npy file of D booleans (or bytes), 0 for the documents that take no part; those with 1 come before those with 2.
    scores: an .npy file of D float32, 0 for documents without a score.
    """

    shards: tuple[PrintedShard, ...]
    firsts_S1: Int64
    turns: Path
    scores: Path

    def __len__(self) -> int:
        return int(self.firsts_S1[-1])

    def mask(self, path: Path, k: int) -> NDArray[np.bool_]:
        """The part that belongs to shard k of an .npy file with a boolean (or byte) per document."""
        return self._entries(path, k).astype(bool)

    def passed_of(self, k: int) -> NDArray[np.bool_]:
        """Which documents of shard k take part."""
        return self.mask(self.turns, k)

    def turns_of(self, k: int) -> NDArray[np.int8]:
        """The turns of the documents of shard k."""
        return self._entries(self.turns, k).astype(np.int8)

    def scores_of(self, k: int) -> NDArray[np.float32]:
        """The scores of the documents of shard k."""
        return self._entries(self.scores, k).astype(np.float32)

    def prints_of(self, k: int, *columns: str) -> pa.Table:
        """Columns of the prints of shard k, each in one piece."""
        with open_parquet(self.shards[k].prints) as file:
            return file.read(columns=list(columns)).combine_chunks()

    def id_bytes(self) -> int:
        """Bytes of all ids, from the footers of the prints."""
        total = 0
        for shard in self.shards:
            with open_parquet(shard.prints) as file:
                place = file.schema_arrow.get_field_index("id")
                groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
                total += sum(group.column(place).total_uncompressed_size for group in groups)
        return total

    def _entries(self, path: Path, k: int) -> NDArray[np.generic]:
        entries: NDArray[np.generic] = np.load(path, mmap_mode="r")[self.firsts_S1[k] : self.firsts_S1[k + 1]]
        return entries


def corpus_of(shards: Sequence[PrintedShard], *, turns: Path, scores: Path) -> Corpus:
    """Numbers the documents. Raises DataError when prints or one of the two files have another number of documents."""
    sizes = [_num_rows(shard) for shard in shards]
    firsts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    for path in (turns, scores):
        found = len(np.load(path, mmap_mode="r"))
        if found != firsts[-1]:
            raise DataError(f"{path} has {found:,} entries for {firsts[-1]:,} documents. Remake it.")
    return Corpus(shards=tuple(shards), firsts_S1=firsts, turns=turns, scores=scores)


def batches_of_texts(path: Path, wanted: Int64 | None = None) -> Iterator[tuple[Int64, list[str]]]:
    """(rows, texts) of one shard of documents, or of its `wanted` rows (ascending), at most BATCH_BYTES of text at once.

    A single text that is longer comes by itself.
    """
    row = 0
    for batch in read_batches(path, columns=["text"], batch_rows=rows_per_batch(path)):
        rows = np.arange(row, row + batch.num_rows)
        if wanted is not None:
            rows = wanted[np.searchsorted(wanted, row) : np.searchsorted(wanted, row + batch.num_rows)]
        if len(rows):
            yield from _cut(rows, batch.column("text").take(pa.array(rows - row)))
        row += batch.num_rows


def _cut(rows: Int64, texts: pa.Array) -> Iterator[tuple[Int64, list[str]]]:
    for first, end in pieces(text_bytes(texts), BATCH_BYTES):
        yield rows[first:end], texts.slice(first, end - first).to_pylist()


def rows_per_batch(path: Path) -> int:
    """How many rows of a shard of documents to read at once: BATCH_ROWS, fewer where texts are long."""
    with open_parquet(path) as file:
        place = file.schema_arrow.get_field_index("text")
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    longest = max(
        (group.column(place).total_uncompressed_size // max(1, group.num_rows) for group in groups), default=0
    )
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, longest)))


def text_pieces(text: str) -> Iterator[str]:
    """The text cut at white space into pieces of about BATCH_BYTES characters: no word is parted, and case depends on none."""
    first = 0
    while first < len(text):
        blank = _BLANK.search(text, first + BATCH_BYTES)
        end = len(text) if blank is None else blank.start()
        yield text[first:end]
        first = end


def text_bytes(texts: pa.Array) -> Int64:
    """UTF-8 bytes of each text."""
    sizes: Int64 = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    return sizes


def pieces(sizes: Int64, max_size: int) -> Iterator[tuple[int, int]]:
    """Ranges [first, end) that cover all, each with a sum of at most `max_size` or of one entry only."""
    sums = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = int(sums[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(sums, before + max_size, side="right")))
        yield first, end
        first = end


def _num_rows(shard: PrintedShard) -> int:
    with open_parquet(shard.documents) as documents, open_parquet(shard.prints) as prints:
        if documents.metadata.num_rows != prints.metadata.num_rows:
            raise DataError(
                f"{shard.prints} has {prints.metadata.num_rows:,} rows, {shard.documents} has "
                f"{documents.metadata.num_rows:,}. Remake the signatures of source {shard.source!r}."
            )
        return int(prints.metadata.num_rows)
