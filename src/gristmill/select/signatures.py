"""STEP signatures/<source>: what the search for duplicates needs of each document instead of its text.

Reads extract/<source>, writes prints-NNNNN.parquet: same rows, same order as documents-NNNNN.parquet. A killed run resumes
with the shards that are not there yet; those that were signed with other bands or another seed are signed again. Which documents
take part is decided later, so a changed threshold or pack remakes nothing here; a print depends on the text, the bands and the
seed only.

Texts that repeat a few phrases in many orders, such as logs, have nearly the same n-grams, so all their keys would be the same. Of
a text in which each n-gram occurs more than twice on average, every second band is signed over wide n-grams (see `sets`); the
other bands still find a copy that repeats itself a little less.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from gristmill.data.document import read_batches
from gristmill.data.each_shard import each_shard
from gristmill.extract.outputs import Extracted
from gristmill.graph.step import StepContext
from gristmill.select.corpus import BATCH_BYTES, pieces, rows_per_batch, text_bytes
from gristmill.select.exact import exact_hashes
from gristmill.select.marks import mark
from gristmill.select.minhash import band_keys, sign
from gristmill.select.pages import keep_freed_pages
from gristmill.select.words import (
    WIDENING,
    Int64,
    UInt64,
    composed,
    folded,
    folded_utf8,
    joined,
    ngram_hashes,
    ngrams_per_text,
    words_of,
)
from gristmill.store.durable import atomic_path
from gristmill.store.fingerprint import derive_seed

VERSION = 3
STEM = "prints"
MIN_DISTINCT_SIGNED = 0.5  # of the n-grams of a text; below it every second band is signed over wide ones
MAX_SIGNED_CHARS = 500_000  # signatures of longer texts fill up and collide with anything; verification reads all
ROWS_PER_GROUP = 8192
ROOM = 4  # places for each n-gram, where repeated ones are looked for


@dataclass(frozen=True, kw_only=True)
class Bands:
    """How a text is signed: num_bands keys, each of rows_per_band MinHash values over word n-grams of `ngram` words."""

    num_bands: int
    rows_per_band: int
    ngram: int


@dataclass(frozen=True, kw_only=True)
class Prints:
    """Of D texts: exact_D2 (128 bits, high half first), keys_DB (a key per band), num_ngrams_D."""

    exact_D2: UInt64
    keys_DB: UInt64
    num_ngrams_D: Int64


def prints_schema(num_bands: int) -> pa.Schema:
    """Columns of prints-NNNNN.parquet.

    num_bytes: UTF-8 bytes of the text. bytes_in: of the record it was read from. num_ngrams: of the signed part, 0 for a text
    shorter than one n-gram. exact: `exact_hash`, big-endian. text_hash: 64 bits of the text as it is, the last word in the
    survivor order. keys: a uint64 per band, little-endian.
    """
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("num_bytes", pa.int64(), nullable=False),
            pa.field("bytes_in", pa.int64(), nullable=False),
            pa.field("num_ngrams", pa.int64(), nullable=False),
            pa.field("exact", pa.binary(16), nullable=False),
            pa.field("text_hash", pa.uint64(), nullable=False),
            pa.field("keys", pa.binary(8 * num_bands), nullable=False),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class PrintShard:
    """The function over shards: reads one shard of documents, writes its prints. Safe to repeat."""

    out: Path
    bands: Bands
    seed: int

    def target(self, shard: Path) -> Path:
        """Where the prints of a shard lie."""
        return self.out / shard.name.replace("documents", STEM)

    def __call__(self, shard: Path) -> int:
        """Prints one shard unless that was done before; returns its number of documents."""
        target = self.target(shard)
        if target.is_file():
            return int(pq.read_metadata(target).num_rows)
        keep_freed_pages()
        schema = prints_schema(self.bands.num_bands)
        documents = 0
        with (
            atomic_path(target) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for table in _row_groups(self._tables(shard, schema)):
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)
                documents += table.num_rows
        return documents

    def _tables(self, shard: Path, schema: pa.Schema) -> Iterator[pa.Table]:
        for batch in read_batches(shard, columns=["id", "text", "bytes_in"], batch_rows=rows_per_batch(shard)):
            sizes = text_bytes(batch.column("text"))
            for first, end in pieces(sizes, BATCH_BYTES):
                piece = batch.slice(first, end - first)
                texts = piece.column("text").cast(pa.binary()).to_pylist()
                prints = print_texts(texts, bands=self.bands, seed=self.seed)
                columns = {
                    "id": piece.column("id"),
                    "num_bytes": pa.array(sizes[first:end]),
                    "bytes_in": piece.column("bytes_in"),
                    "num_ngrams": pa.array(prints.num_ngrams_D),
                    "exact": _fixed_size(prints.exact_D2.astype(">u8"), 16),
                    "text_hash": pa.array(np.fromiter(map(text_hash, texts), np.uint64, len(texts))),
                    "keys": _fixed_size(prints.keys_DB.astype("<u8"), 8 * self.bands.num_bands),
                }
                yield pa.table([columns[name] for name in schema.names], schema=schema)


def run(ctx: StepContext) -> dict[str, Any]:
    """Prints all shards of one source. Config: num_bands, rows_per_band, ngram, seed."""
    bands = Bands(**{name: ctx.config[name] for name in ("num_bands", "rows_per_band", "ngram")})
    function = PrintShard(out=ctx.out, bands=bands, seed=signing_seed(ctx.config["seed"]))
    made_by = mark(ctx.out, shards=f"{STEM}-*.parquet", rules={**asdict(bands), "seed": function.seed})
    documents_in: Extracted = ctx.inputs["documents"]
    documents = sum(each_shard(ctx, function, documents_in.documents))
    made_by.unlink()
    return {"documents": documents}


def signing_seed(recipe_seed: int) -> int:
    """One seed for all sources, whose keys are compared. It is derived from the name of the step that uses the keys."""
    return derive_seed(derive_seed(recipe_seed, "select"), "minhash")


def print_texts(texts: Sequence[bytes], *, bands: Bands, seed: int) -> Prints:
    """Exact hashes and band keys of all texts, in UTF-8. The same bands and seed must be used for all that is compared."""
    whole = [folded_utf8(text) for text in texts]
    buffer, starts = joined(whole)
    exact_D2 = exact_hashes(buffer, starts)
    if max(map(len, texts), default=0) > MAX_SIGNED_CHARS:
        buffer, starts = joined([_signed(text, lower) for text, lower in zip(texts, whole, strict=True)])
    words = words_of(buffer, starts)
    ngrams, offsets = ngrams_per_text(words, bands.ngram)
    keys_DB = _keys(ngrams, offsets, bands=bands, seed=seed)
    wide = {d: ngram_hashes(words.of(d), bands.ngram * WIDENING) for d in _repetitive(ngrams, offsets)}
    wide = {d: grams for d, grams in wide.items() if len(grams)}
    if wide:
        wide_offsets = np.cumsum([0, *map(len, wide.values())])
        wide_keys = _keys(np.concatenate(list(wide.values())), wide_offsets, bands=bands, seed=seed)
        keys_DB[list(wide), 1::2] = wide_keys[:, 1::2]
    return Prints(exact_D2=exact_D2, keys_DB=keys_DB, num_ngrams_D=np.diff(offsets))


def _signed(text: bytes, lower: bytes) -> bytes:
    """What is signed of a text, folded: all of it, as `lower`, or the beginning of a long one."""
    if len(text) <= MAX_SIGNED_CHARS:
        return lower
    characters = text.decode("utf-8", "surrogatepass")
    return lower if len(characters) <= MAX_SIGNED_CHARS else folded(composed(characters)[:MAX_SIGNED_CHARS])


def _keys(ngrams: UInt64, offsets_D1: Int64, *, bands: Bands, seed: int) -> UInt64:
    signatures = sign(ngrams, offsets_D1, num_hashes=bands.num_bands * bands.rows_per_band, seed=seed)
    return band_keys(signatures, num_bands=bands.num_bands, rows_per_band=bands.rows_per_band)


def _repetitive(ngrams: UInt64, offsets_D1: Int64) -> list[int]:
    """The texts whose n-grams occur more than twice on average.

    Each n-gram goes to one of ROOM places for each that its text has: distinct ones fill at most as many places as they are. Only
    where few places are filled are the n-grams sorted and counted.
    """
    count_D = np.diff(offsets_D1)
    place_G = (ngrams >> np.uint64(32)) * np.repeat(ROOM * count_D, count_D).view(np.uint64) >> np.uint64(32)
    filled = np.zeros(ROOM * len(ngrams), dtype=bool)
    filled[place_G.view(np.int64) + np.repeat(ROOM * offsets_D1[:-1], count_D)] = True
    found = []
    for d, (first, end) in enumerate(itertools.pairwise(offsets_D1.tolist())):
        least = MIN_DISTINCT_SIGNED * (end - first)
        if np.count_nonzero(filled[ROOM * first : ROOM * end]) < least and len(np.unique(ngrams[first:end])) < least:
            found.append(d)
    return found


def text_hash(text: bytes) -> int:
    """64 bits of the text as it is, in UTF-8."""
    return xxhash.xxh3_64_intdigest(text)


def exact_column(column: pa.ChunkedArray) -> UInt64:
    """exact_D2 of a column `exact`."""
    return _fixed_values(column, ">u8", 2)


def keys_column(column: pa.ChunkedArray, *, num_bands: int) -> UInt64:
    """keys_DB of a column `keys`."""
    return _fixed_values(column, "<u8", num_bands)


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of ROWS_PER_GROUP, so that the size of a batch leaves no mark on the file."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= ROWS_PER_GROUP:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, ROWS_PER_GROUP).combine_chunks()
            waiting, rows = [joined.slice(ROWS_PER_GROUP)], rows - ROWS_PER_GROUP
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


def _fixed_size(values: UInt64, width: int) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(values).tobytes())
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, buffer])


def _fixed_values(column: pa.ChunkedArray, dtype: str, count: int) -> UInt64:
    values = np.empty((len(column), count), dtype=np.uint64)
    first = 0
    for chunk in column.chunks:
        raw = np.frombuffer(chunk.buffers()[1], dtype=dtype).reshape(-1, count)
        values[first : first + len(chunk)] = raw[chunk.offset : chunk.offset + len(chunk)]
        first += len(chunk)
    return values
