"""MinHash signatures and the candidate groups that locality-sensitive hashing finds in them.

    n-gram hashes per text -> signature (bands × rows values) -> one 64-bit key per band -> texts that share a key

A pair of texts with Jaccard similarity s shares at least one key with probability 1 - (1 - s^rows)^bands. Signatures
come from rensa; `sign_numpy` is the plain reference, and the fallback where rensa is not installed or has changed.
The two give different values, so keys of one must never be compared with keys of the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gristmill.select.words import Int64, UInt64, mix

try:
    from rensa import RMinHash
except ImportError:
    RMinHash = None

SIGNER = "numpy" if RMinHash is None else f"rensa-{RMinHash.ALGORITHM_VERSION}"
_BLOCK_NGRAMS = 16_384


def chance_found(jaccard: float, *, num_bands: int, rows_per_band: int) -> float:
    """The probability that a pair with this similarity becomes a candidate."""
    return float(1 - (1 - jaccard**rows_per_band) ** num_bands)


def sign_rensa(ngrams: UInt64, offsets_D1: Int64, *, num_hashes: int, seed: int) -> UInt64:
    """Signatures (D, num_hashes) of the n-gram sets of D texts. Set RAYON_NUM_THREADS=1 in workers."""
    assert RMinHash is not None, "rensa is not installed"
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(ngrams, offsets_D1, num_hashes, seed % 2**32)
    return np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(offsets_D1) - 1, num_hashes)


def sign_numpy(ngrams: UInt64, offsets_D1: Int64, *, num_hashes: int, seed: int) -> UInt64:
    """As sign_rensa, by the plain method: the minimum of `num_hashes` independent 64-bit hashes of each n-gram.

    A text without n-grams gets the largest value everywhere.
    """
    rng = np.random.default_rng(seed)
    # The multipliers must be full 64-bit odd numbers: with 32-bit ones all hashes keep the same minimum.
    multipliers = rng.integers(0, 2**64, size=num_hashes, dtype=np.uint64) | np.uint64(1)
    addends = rng.integers(0, 2**64, size=num_hashes, dtype=np.uint64)
    signatures = np.full((len(offsets_D1) - 1, num_hashes), np.iinfo(np.uint64).max, dtype=np.uint64)
    for d in range(len(offsets_D1) - 1):
        for start in range(int(offsets_D1[d]), int(offsets_D1[d + 1]), _BLOCK_NGRAMS):
            block = ngrams[start : min(start + _BLOCK_NGRAMS, int(offsets_D1[d + 1]))]
            hashed = mix(block[:, None] * multipliers + addends)
            np.minimum(signatures[d], hashed.min(axis=0), out=signatures[d])
    return signatures


def sign(ngrams: UInt64, offsets_D1: Int64, *, num_hashes: int, seed: int) -> UInt64:
    """Signatures by the signer that SIGNER names."""
    signer = sign_numpy if RMinHash is None else sign_rensa
    return signer(ngrams, offsets_D1, num_hashes=num_hashes, seed=seed)


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
