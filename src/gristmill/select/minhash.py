"""MinHash signatures and the candidate groups that locality-sensitive hashing finds in them.

    n-gram hashes per text -> signature (bands × rows values) -> one 64-bit key per band -> texts that share a key

A pair of texts with Jaccard similarity s shares at least one key with probability 1 - (1 - s^rows)^bands. Signatures
come from rensa only: another signer gives other values, and keys of two signers must never be compared.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from gristmill.errors import ResourceError
from gristmill.select.words import Int64, UInt64, mix

ALGORITHM = 2  # of rensa; another one signs otherwise, so then VERSION of select rises
SIGNER = f"rensa-{ALGORITHM}"


def chance_found(jaccard: float, *, num_bands: int, rows_per_band: int) -> float:
    """The probability that a pair with this similarity becomes a candidate."""
    return float(1 - (1 - jaccard**rows_per_band) ** num_bands)


def sign(ngrams: UInt64, offsets_D1: Int64, *, num_hashes: int, seed: int) -> UInt64:
    """Signatures (D, num_hashes) of the n-gram sets of D texts. Set RAYON_NUM_THREADS=1 in workers.

    Raises ResourceError for a rensa that signs by another algorithm: its values would be taken for the same.
    """
    if RMinHash.ALGORITHM_VERSION != ALGORITHM:
        raise ResourceError(
            f"the rensa that is installed signs by its algorithm {RMinHash.ALGORITHM_VERSION}, gristmill by {ALGORITHM}; install "
            "the version that gristmill asks for."
        )
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(ngrams, offsets_D1, num_hashes, seed % 2**32)
    pack = struct.Struct(f"={num_hashes}I").pack  # half the time of numpy.array
    rows = b"".join([pack(*row) for row in matrix.to_rows()])
    return np.frombuffer(rows, dtype=np.uint32).reshape(len(offsets_D1) - 1, num_hashes).astype(np.uint64)


def band_keys(signatures: UInt64, *, num_bands: int, rows_per_band: int) -> UInt64:
    """One key per band, (D, num_bands): equal when all rows of the band are equal."""
    assert signatures.shape[1] == num_bands * rows_per_band, f"{signatures.shape} for {num_bands} × {rows_per_band}"
    rows = signatures.reshape(len(signatures), num_bands, rows_per_band)
    keys = np.zeros((len(signatures), num_bands), dtype=np.uint64)
    for row in range(rows_per_band):
        keys = mix(keys ^ rows[:, :, row])
    return keys


def candidate_edges(keys_DB: UInt64, eligible_D: NDArray[np.bool_]) -> tuple[Int64, Int64]:
    """Edges (left, right) that join each group of eligible texts sharing a key of a band, band by band.

    Memory is one sorted band plus the edges; a group of m texts gives m - 1 edges.
    """
    members = np.flatnonzero(eligible_D)
    lefts, rights = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for band in range(keys_DB.shape[1]):
        column = keys_DB[members, band]
        order = np.argsort(column, kind="stable")
        same = column[order[1:]] == column[order[:-1]]
        lefts.append(members[order[:-1][same]])
        rights.append(members[order[1:][same]])
    return np.concatenate(lefts), np.concatenate(rights)
