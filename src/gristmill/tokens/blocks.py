"""Hashes of a shard's files block by block: a byte that changed since it was written is found before a token of it is used.

    train.blocks    uint64 little-endian, XXH3: one for each MiB of train.bin, one for each MiB of train.index, one for
                    train.json, and one for all that stands before it in this file

The hashes follow from the files, so they are notes: no identity covers them. A shard that was written before there were any has
one block for each file, the whole of it, by the SHA-256 in its sidecar.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from gristmill.errors import ArtifactError
from gristmill.store.artifact import is_committed

BLOCK_BYTES = 1 << 20
_HASH = np.dtype("<u8")


class DamagedShard(ArtifactError):
    """A file of a shard is not what was written; nothing of the damaged part was used."""


class BlockHasher:
    """The hashes of the blocks of a file that is written piece by piece. `hashes` has those of all bytes so far."""

    def __init__(self) -> None:
        self._finished: list[int] = []
        self._open = xxhash.xxh3_64()
        self._room = BLOCK_BYTES

    def update(self, payload: bytes) -> None:
        """Takes the next bytes of the file."""
        left = memoryview(payload)
        while len(left):
            here, left = left[: self._room], left[self._room :]
            self._open.update(here)
            self._room -= len(here)
            if not self._room:
                self._finished.append(self._open.intdigest())
                self._open.reset()
                self._room = BLOCK_BYTES

    @property
    def hashes(self) -> list[int]:
        """One for each MiB, the last of which may be shorter."""
        return [*self._finished, self._open.intdigest()] if self._room < BLOCK_BYTES else [*self._finished]


class CheckedFile:
    """A mapped file, of which each block is hashed once by this process, before the first use of a byte of it.

    is_checked: whether all were.
    """

    def __init__(
        self,
        path: Path,
        content: memoryview,
        hashes: Sequence[Any] | NDArray[np.uint64],
        *,
        block_bytes: int = BLOCK_BYTES,
        hash_of: Callable[[memoryview], int | str] = xxhash.xxh3_64_intdigest,
    ) -> None:
        self.path, self._content, self._hashes, self._hash_of = path, content, hashes, hash_of
        self._block_bytes = block_bytes
        self._checked = bytearray(len(hashes))
        self.is_checked = not len(hashes)

    @classmethod
    def whole(cls, path: Path, content: memoryview, sha256: str) -> CheckedFile:
        """A file with one hash for all of it."""
        return cls(
            path,
            content,
            [sha256] if len(content) else [],
            block_bytes=max(1, len(content)),
            hash_of=lambda block: hashlib.sha256(block).hexdigest(),
        )

    def check(self, begin: int, end: int) -> None:
        """Hashes the blocks of bytes [begin, end) that were not yet. Raises DamagedShard, naming the block, where one is another."""
        first, stop = begin // self._block_bytes, -(-end // self._block_bytes)
        while (block := self._checked.find(0, first, stop)) >= 0:
            if not self._is_sound(block):
                raise self._error(block)
            self._checked[block] = 1
            first = block + 1
            self.is_checked = 0 not in self._checked  # stops at the first; right whichever thread asks

    def check_all(self) -> None:
        """The same of the whole file."""
        self.check(0, len(self._content))

    def damaged(self) -> list[range]:
        """The bytes of every block that is not what was written."""
        return [self._bytes_of(block) for block in range(len(self._hashes)) if not self._is_sound(block)]

    def _is_sound(self, block: int) -> bool:
        here = self._bytes_of(block)
        return bool(self._hash_of(self._content[here.start : here.stop]) == self._hashes[block])

    def _bytes_of(self, block: int) -> range:
        begin = block * self._block_bytes
        return range(begin, min(begin + self._block_bytes, len(self._content)))

    def _error(self, block: int) -> DamagedShard:
        here = self._bytes_of(block)
        return DamagedShard(
            f"{self.path} was damaged or exchanged: bytes {here.start:,} to {here.stop:,} (block {block + 1:,} of "
            f"{len(self._hashes):,}) do not have the hash that was written with them. Nothing of them was used.\n"
            f"  {remedy(self.path)}"
        )


def hashes_as_bytes(tokens: BlockHasher, index: BlockHasher, sidecar: bytes) -> bytes:
    """What train.blocks holds."""
    hashes = np.array([*tokens.hashes, *index.hashes, xxhash.xxh3_64_intdigest(sidecar)], dtype=_HASH).tobytes()
    return hashes + _own_hash(hashes)


def read_hashes(path: Path, sidecar: Path, sizes: Sequence[int]) -> list[NDArray[np.uint64]] | None:
    """The hashes of the blocks of files of these sizes in bytes, by file; None for a shard that was written without them.

    Raises DamagedShard when the file, or the sidecar that it vouches for, is not what was written.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    counts = [-(-size // BLOCK_BYTES) for size in sizes]
    expected = (sum(counts) + 2) * _HASH.itemsize
    is_sound = len(content) == expected and _own_hash(content[: -_HASH.itemsize]) == content[-_HASH.itemsize :]
    if not is_sound:
        raise DamagedShard(
            f"{path} was damaged or exchanged: it has {len(content):,} bytes, expected {expected:,} that agree with each other.\n"
            f"  {remedy(path)}"
        )
    hashes = np.frombuffer(content, dtype=_HASH)
    if xxhash.xxh3_64_intdigest(sidecar.read_bytes()) != hashes[-2]:
        raise DamagedShard(
            f"{sidecar} was damaged or exchanged: it does not have the hash that {path.name} names.\n  {remedy(path)}"
        )
    return np.split(hashes[:-2], np.cumsum(counts)[:-1])


def _own_hash(hashes: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(hashes).to_bytes(_HASH.itemsize, "little")


def remedy(path: Path) -> str:
    """What to do about a damaged file of a shard."""
    folder = next((folder for folder in path.resolve().parents if is_committed(folder)), path.parent)
    return f"Put a copy of it back, or remove {folder} and run the same command: it remakes that, and training resumes from its last checkpoint."
