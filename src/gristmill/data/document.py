"""The document: the one row shape that all curation steps read and write, and its Parquet helpers.

Shards of an artefact are `<stem>-00000.parquet`, `<stem>-00001.parquet`, ...; a document keeps its shard and row from
extract to select, so that per-document columns (scores) can live in files of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.data.write import write_rows
from gristmill.errors import DataError

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float32()),
        pa.field("license", pa.string()),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("bytes_in", pa.int64(), nullable=False),
    ]
)


REPOSITORY = pa.field("repository", pa.string())  # a column of sources of code whose recipe asks for it


def document_schema(*, with_repository: bool) -> pa.Schema:
    """DOCUMENT_SCHEMA, and the repository where it is told."""
    return DOCUMENT_SCHEMA.append(REPOSITORY) if with_repository else DOCUMENT_SCHEMA


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One kept text and where it came from.

    `origin` is "path#offset" of the record it was read from; `bytes_in` are the raw payload bytes of that record,
    not of `text`. `license` is the document's own, where its file or tree states one; the source's is in the recipe.
    `repository` is that of a source file, in shards that have the column.
    `language` is an ISO 639 code as the language model writes it, with its score in 0-1.
    """

    id: str
    source: str
    text: str
    origin: str
    bytes_in: int
    license: str | None = None
    url: str | None = None
    language: str | None = None
    language_score: float | None = None
    repository: str | None = None

    def row(self) -> dict[str, Any]:
        """The document as a row of `document_schema`."""
        return asdict(self)


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Writes one shard, atomically; returns the number of documents. Same documents, same bytes."""
    return write_rows(path, DOCUMENT_SCHEMA, (document.row() for document in documents))


def read_documents(path: Path, *, batch_rows: int = 1024) -> Iterator[Document]:
    """The documents of one shard in order; columns beyond DOCUMENT_SCHEMA (a cluster id, ...) are left unread.

    Raises DataError when the file is not Parquet or lacks one of the columns.
    """
    for batch in read_batches(path, columns=DOCUMENT_SCHEMA.names, batch_rows=batch_rows):
        for row in batch.to_pylist():
            yield Document(**row)


def read_batches(path: Path, *, columns: Sequence[str], batch_rows: int = 1024) -> Iterator[pa.RecordBatch]:
    """Record batches of the named columns of one Parquet file, in order; DataError names what is missing.

    Row groups are read one at a time: of several, Arrow reads all bytes ahead.
    """
    with open_parquet(path) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(map(repr, missing))}; its columns are "
                f"{', '.join(map(repr, file.schema_arrow.names))}."
            )
        for group in range(file.num_row_groups):
            yield from file.iter_batches(batch_size=batch_rows, row_groups=[group], columns=list(columns))


def open_parquet(path: Path) -> pq.ParquetFile:
    """The opened file; DataError when it is missing or is not Parquet."""
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except MemoryError:  # Arrow's own is an ArrowException, too
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        what = (
            str(error).partition("\n")[0].partition(". ")[0].rstrip(". ")
        )  # Arrow's further sentences guess at what we say
        raise DataError(f"{path} cannot be read as Parquet: {what}. Remake or re-download the file.") from error


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, by its metadata."""
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def shard_path(folder: Path, number: int, *, stem: str = "documents") -> Path:
    """Where shard `number` of an artefact folder lies."""
    return folder / f"{stem}-{number:05d}.parquet"
