"""A shuffle that needs no memory: element i of a keyed permutation of 0 … size-1, for arrays of i, sizes and keys at once.

A Feistel network over pairs (left, right) with left < a and right < b, where a*b is only just above size, so that walking the
cycle past the few values that are not below size is rare. Source: Black and Rogaway, Ciphers with arbitrary finite domains
(2002), the generalized-Feistel method with cycle walking. This is shuffling, not secrecy: the round function is splitmix64.
"""

from __future__ import annotations

import hashlib
from math import isqrt

import numpy as np
from numpy.typing import NDArray

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

_ROUNDS = 4
_GOLDEN = 0x9E3779B97F4A7C15
_STEP = 0xD1342543DE82EF95  # odd, so that multiplying keys by it loses nothing


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer, elementwise: a bijection of 64-bit numbers in which every input bit reaches every output bit."""
    x = x + np.uint64(_GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key_of(*parts: str | int | None) -> int:
    """A 64-bit key from names and numbers; the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def left_size(size: int) -> int:
    """The `a` of a domain of `size` elements: the ceiling of its square root."""
    root = isqrt(size)
    return root if root * root == size else root + 1


def permute(
    index: NDArray[np.uint64], *, size: NDArray[np.uint64], left: NDArray[np.uint64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The place of each `index` in the permutation of `size` elements that its `key` selects.

    All arrays have one shape; index < size, and left is `left_size(size)`.
    """
    right = (size + left - np.uint64(1)) // left
    out = _feistel(index, left, right, key)
    outside = np.flatnonzero(out >= size)
    while len(outside):
        out[outside] = _feistel(out[outside], left[outside], right[outside], key[outside])
        outside = outside[out[outside] >= size[outside]]
    return out


def unpermute(
    place: NDArray[np.uint64], *, size: NDArray[np.uint64], left: NDArray[np.uint64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The index whose place `permute` says: its inverse, with the same arguments."""
    right = (size + left - np.uint64(1)) // left
    out = _feistel_back(place, left, right, key)
    outside = np.flatnonzero(out >= size)
    while len(outside):
        out[outside] = _feistel_back(out[outside], left[outside], right[outside], key[outside])
        outside = outside[out[outside] >= size[outside]]
    return out


def _feistel(
    x: NDArray[np.uint64], left: NDArray[np.uint64], right: NDArray[np.uint64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    high, low = np.divmod(x, right)
    for _ in range(_ROUNDS // 2):
        key = key * np.uint64(_STEP)
        high = (high + mix(low ^ key) % left) % left
        key = key * np.uint64(_STEP)
        low = (low + mix(high ^ key) % right) % right
    return np.asarray(high * right + low)


def _feistel_back(
    x: NDArray[np.uint64], left: NDArray[np.uint64], right: NDArray[np.uint64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    keys = [key := key * np.uint64(_STEP) for _ in range(_ROUNDS)]
    high, low = np.divmod(x, right)
    for even, odd in reversed(list(zip(keys[::2], keys[1::2], strict=True))):
        low = (low + right - mix(high ^ odd) % right) % right
        high = (high + left - mix(low ^ even) % left) % left
    return np.asarray(high * right + low)
