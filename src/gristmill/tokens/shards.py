"""Token shards: one flat file of ids, one index of document ends, one sidecar that vouches for both, one file of hashes.

    train.bin      ids, little-endian, 2 bytes each where the vocabulary fits, else 4; every document ends with the eos id
    train.index    uint64 little-endian, one per document: the position just after its eos id
    train.json     tokenizer sha256, vocab_size, eos_id, dtype, counts of tokens, documents and text bytes, sha256 of both files
    train.blocks   a hash of each MiB of them, so that no token is used before its block was checked (blocks.py)

Nothing in the files knows a sequence length: windows are formed when they are read (stream.py), so a longer context needs no
new copy. The sidecar is written last; a shard without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gristmill.errors import ArtifactError, DataError
from gristmill.planning.cost import token_bytes
from gristmill.store.durable import atomic_path, out_of_space_is_a_resource_error, read_json, write_text
from gristmill.tokens.blocks import BlockHasher, CheckedFile, hashes_as_bytes, read_hashes, remedy

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """The sidecar. Counts of tokens include the eos id of each document; `num_bytes` are UTF-8 bytes of text."""

    format_version: int
    tokenizer_sha256: str
    vocab_size: int
    eos_id: int
    dtype: str
    num_tokens: int
    num_documents: int
    num_bytes: int
    tokens_sha256: str
    index_sha256: str


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Little-endian uint16 up to 65,536 entries, else uint32."""
    return np.dtype(f"<u{token_bytes(vocab_size)}")


class ShardWriter:
    """Streams documents into `path`.bin and `path`.index; `path`.json appears when the block ends without an exception.

    with ShardWriter(folder / "train", tokenizer_sha256=…, vocab_size=49152, eos_id=0) as writer:
        writer.add(ids, num_bytes=len(text.encode()))
    """

    def __init__(self, path: str | Path, *, tokenizer_sha256: str, vocab_size: int, eos_id: int) -> None:
        self.path = Path(path)
        self._tokenizer_sha256, self._vocab_size, self._eos_id = tokenizer_sha256, vocab_size, eos_id
        self._dtype = token_dtype(vocab_size)
        self._hashes = hashlib.sha256(), hashlib.sha256()
        self._blocks = BlockHasher(), BlockHasher()
        self.num_tokens = self.num_documents = self.num_bytes = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _sibling(self.path, "json").unlink(missing_ok=True)
        self._files: tuple[BinaryIO, BinaryIO] = (
            open(_sibling(self.path, "bin"), "wb"),  # noqa: SIM115
            open(_sibling(self.path, "index"), "wb"),  # noqa: SIM115
        )

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            for file in self._files:
                file.close()

    def add(self, ids: Sequence[int] | NDArray[np.integer], *, num_bytes: int) -> None:
        """Appends one document: its ids, then the eos id. Raises DataError when an id is not below the vocabulary's size."""
        self.add_many([ids], num_bytes=num_bytes)

    def add_many(self, documents: Sequence[Sequence[int] | NDArray[np.integer]], *, num_bytes: int) -> None:
        """Appends documents in order; `num_bytes` is the text bytes of all together."""
        if not documents:
            return
        lengths = np.array([len(ids) + 1 for ids in documents], dtype=np.int64)
        ends = np.cumsum(lengths)
        flat = np.full(int(ends[-1]), self._eos_id, dtype=np.int64)
        for ids, end, length in zip(documents, ends.tolist(), lengths.tolist(), strict=True):
            flat[end - length : end - 1] = ids
        if flat.min() < 0 or flat.max() >= self._vocab_size:
            raise DataError(
                f"token id {int(flat.max() if flat.min() >= 0 else flat.min())} in document "
                f"{self.num_documents} or soon after, expected 0 to {self._vocab_size - 1}. Is it another tokenizer's?"
            )
        self._write(0, flat.astype(self._dtype))
        self._write(1, (ends + self.num_tokens).astype("<u8"))
        self.num_tokens += len(flat)
        self.num_documents += len(documents)
        self.num_bytes += num_bytes

    def close(self) -> ShardFacts:
        """Flushes both files to disk, then writes the hashes and the sidecar, each by rename."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        facts = ShardFacts(
            format_version=FORMAT_VERSION,
            tokenizer_sha256=self._tokenizer_sha256,
            vocab_size=self._vocab_size,
            eos_id=self._eos_id,
            dtype=self._dtype.str,
            num_tokens=self.num_tokens,
            num_documents=self.num_documents,
            num_bytes=self.num_bytes,
            tokens_sha256=self._hashes[0].hexdigest(),
            index_sha256=self._hashes[1].hexdigest(),
        )
        sidecar = json.dumps(asdict(facts), indent=1) + "\n"
        with atomic_path(_sibling(self.path, "blocks")) as temporary:
            temporary.write_bytes(hashes_as_bytes(*self._blocks, sidecar.encode()))
        write_text(_sibling(self.path, "json"), sidecar)
        return facts

    def _write(self, which: int, array: NDArray[Any]) -> None:
        payload = array.tobytes()
        with out_of_space_is_a_resource_error(self.path):
            self._files[which].write(payload)
        self._hashes[which].update(payload)
        self._blocks[which].update(payload)


class TokenShard:
    """A finished shard, mapped into memory. What its methods give was checked against the hashes of its blocks.

    tokens (num_tokens,) uint16 or uint32, document_ends (num_documents,) uint64: the files as they lie there, unchecked.
    """

    def __init__(self, path: str | Path) -> None:
        """`path` is the common stem ("…/manuals/train"). Raises ArtifactError when a file is missing or of the wrong size, and
        DamagedShard, which is one, when the sidecar or the file of hashes was damaged."""
        self.path = Path(path)
        self.facts = _read_facts(_sibling(self.path, "json"))
        self.num_tokens = self.facts.num_tokens
        self.num_documents = self.facts.num_documents
        self.num_bytes = self.facts.num_bytes
        self.eos_id = self.facts.eos_id
        self.vocab_size = self.facts.vocab_size
        self.tokens: NDArray[Any] = map_file(_sibling(self.path, "bin"), np.dtype(self.facts.dtype), self.num_tokens)
        self.document_ends: NDArray[np.uint64] = map_file(
            _sibling(self.path, "index"), np.dtype("<u8"), self.num_documents
        )
        self._content = self.tokens.view(np.uint8).data
        self._token_file, self._index_file = self._checked_files()

    def read(self, begin: int, end: int) -> memoryview:
        """The ids of tokens [begin, end) as bytes. Raises DamagedShard when they are not those that were written."""
        size = self.tokens.itemsize
        if not self._token_file.is_checked:
            self._token_file.check(begin * size, end * size)
        return self._content[begin * size : end * size]

    def place(self, document: int) -> tuple[int, int]:
        """Where document `document` (from 0) lies: tokens [first, end), its eos id included."""
        before = max(0, document - 1)
        self._index_file.check(before * 8, (document + 1) * 8)
        return int(self.document_ends[before]) if document else 0, int(self.document_ends[document])

    def document_at(self, token: int) -> int:
        """The document that holds a token of the shard."""
        document = int(np.searchsorted(self.document_ends, np.uint64(token), side="right"))
        first, end = self.place(document) if document < self.num_documents else (0, 0)
        if not first <= token < end:  # a search over damaged ends leads anywhere
            self._index_file.check_all()
        return document

    def document(self, number: int) -> NDArray[Any]:
        """The ids of document `number` (from 0), with its eos id at the end."""
        return np.frombuffer(self.read(*self.place(number)), dtype=self.tokens.dtype)

    def document_lengths(self) -> NDArray[np.int64]:
        """(num_documents,) int64: tokens of each document, its eos id included."""
        self._index_file.check_all()
        lengths: NDArray[np.int64] = self.document_ends.astype(np.int64)
        lengths[1:] -= lengths[:-1].copy()
        return lengths

    def verify(self) -> None:
        """Reads every byte; raises ArtifactError when anything differs from the hashes, the sidecar or the format's rules."""
        for file in (self._token_file, self._index_file):
            file.check_all()
        lengths = self.document_lengths()
        total = int(self.document_ends[-1]) if self.num_documents else 0
        if total != self.num_tokens or (lengths < 1).any():
            raise ArtifactError(
                f"{_sibling(self.path, 'index')} does not rise to {self.num_tokens}.\n  {remedy(self.path)}"
            )
        if (self.tokens[self.document_ends.astype(np.int64) - 1] != self.eos_id).any():
            raise ArtifactError(f"{_sibling(self.path, 'bin')}: a document does not end with eos id {self.eos_id}.")

    def damaged(self) -> dict[Path, list[range]]:
        """Of the files of tokens and of the index that are not what was written, the bytes of every damaged block. Reads every byte."""
        return {file.path: found for file in (self._token_file, self._index_file) if (found := file.damaged())}

    def _checked_files(self) -> list[CheckedFile]:
        files = {
            _sibling(self.path, suffix): (array.view(np.uint8).data, sha256)
            for suffix, array, sha256 in (
                ("bin", self.tokens, self.facts.tokens_sha256),
                ("index", self.document_ends, self.facts.index_sha256),
            )
        }
        hashes = read_hashes(
            _sibling(self.path, "blocks"),
            _sibling(self.path, "json"),
            [len(content) for content, _ in files.values()],
        )
        if hashes is None:
            return [CheckedFile.whole(path, content, sha256) for path, (content, sha256) in files.items()]
        return [
            CheckedFile(path, content, own) for (path, (content, _)), own in zip(files.items(), hashes, strict=True)
        ]


def unique_tokens(shard: TokenShard, *, min_document_tokens: int | None = None) -> int:
    """Tokens of the documents that have at least `min_document_tokens` tokens (eos included); of all when it is None."""
    if min_document_tokens is None:
        return shard.num_tokens
    lengths = shard.document_lengths()
    return int(lengths[lengths >= min_document_tokens].sum())


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _read_facts(path: Path) -> ShardFacts:
    try:
        facts = ShardFacts(**read_json(path))
    except TypeError as error:
        raise ArtifactError(f"{path} is not a shard's sidecar: {error}.\n  {remedy(path)}") from error
    if facts.format_version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format_version {facts.format_version}, expected {FORMAT_VERSION}.\n  {remedy(path)}"
        )
    return facts


def map_file(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """A read-only plain array over the file: slices of np.memmap itself cost three times as much."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist.\n  {remedy(path)}") from error
    if size != count * dtype.itemsize:
        raise ArtifactError(
            f"{path} has {size} bytes, its sidecar promises {count} x {dtype.itemsize}.\n  {remedy(path)}"
        )
    if count == 0:
        return np.zeros(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(count,)))
