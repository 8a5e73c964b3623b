"""Hashed word and character n-grams with ridge regression: a quality classifier that trains in seconds on a CPU.

    text -> words, word pairs, character 3- to 5-grams -> 2^18 columns by hash -> log(1 + count) × idf, length 1
         -> ridge regression on the labels, solved in its dual form

With n labelled texts the dual is one n × n system, far smaller than the columns; many texts are solved by lsqr. The ridge is
chosen by the exact leave-one-out error. Same texts and labels, same weights.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
import xxhash
from numpy.typing import ArrayLike, NDArray

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

Float32 = NDArray[np.float32]

NUM_COLUMNS = 1 << 18
CHARACTER_NGRAMS = (3, 4, 5)
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
MAX_RIDGE_TEXTS = 2_000  # texts that the ridge is chosen on, evenly spread over all
MAX_DUAL = 8_000  # texts: the dual matrix takes 8 n² bytes, half a gigabyte here
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class HashedNgrams:
    """A trained model. weights and idf have NUM_COLUMNS entries; score = features · weights + intercept."""

    weights: NDArray[np.float64]
    idf: NDArray[np.float64]
    intercept: float
    max_chars: int
    ridge: float

    @classmethod
    def fit(cls, texts: Sequence[str], labels: ArrayLike, *, max_chars: int, seed: int = 0) -> HashedNgrams:
        """Trains on the first `max_chars` characters of each text. Nothing is drawn at random: `seed` has no effect."""
        del seed
        targets = np.asarray(labels, dtype=np.float64)
        if len(texts) != len(targets) or not len(texts):
            raise ValueError(f"need as many labels as texts and at least one, got {len(texts)} and {len(targets)}")
        counts = count_features([text[:max_chars] for text in texts])
        frequency = np.bincount(counts.indices, minlength=NUM_COLUMNS)
        idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        features = weigh(counts, idf)
        intercept = float(targets.mean())
        weights, ridge = solve_ridge(features, targets - intercept)
        return cls(weights=weights, idf=idf, intercept=intercept, max_chars=max_chars, ridge=ridge)

    def score(self, texts: Sequence[str]) -> Float32:
        """Raw scores (N,), neither clipped nor rounded."""
        if not texts:
            return np.empty(0, dtype=np.float32)
        features = weigh(count_features([text[: self.max_chars] for text in texts]), self.idf)
        scores: Float32 = (features @ self.weights + self.intercept).astype(np.float32)
        return scores

    def save(self, path: Path) -> None:
        """One .npz file; no pickle."""
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                kind="hashed_ngrams",
                weights=self.weights,
                idf=self.idf,
                intercept=self.intercept,
                max_chars=self.max_chars,
                ridge=self.ridge,
            )

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> HashedNgrams:
        """The model in the arrays of a file that `save` wrote."""
        return cls(
            weights=arrays["weights"],
            idf=arrays["idf"],
            intercept=float(arrays["intercept"]),
            max_chars=int(arrays["max_chars"]),
            ridge=float(arrays["ridge"]),
        )


def solve_ridge(features: Any, targets_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """(weights, ridge): in the dual up to MAX_DUAL texts, beyond that by conjugate gradients (lsqr) on the features."""
    count = len(targets_N)
    step = -(-count // MAX_RIDGE_TEXTS)
    if count > MAX_DUAL:
        ridge = choose_ridge(gram_matrix(features[::step]), targets_N[::step])
        found = scipy.sparse.linalg.lsqr(features, targets_N, damp=math.sqrt(ridge), atol=1e-10, btol=1e-10)
        return found[0], ridge
    gram = gram_matrix(features)
    ridge = choose_ridge(gram[::step, ::step], targets_N[::step])
    gram[np.diag_indices_from(gram)] += ridge
    return features.T @ scipy.linalg.solve(gram, targets_N, assume_a="pos"), ridge


def gram_matrix(features: Any) -> NDArray[np.float64]:
    """features · featuresᵀ, dense: common columns by dense products, which are faster there, the others by sparse ones."""
    frequency = np.bincount(features.indices, minlength=NUM_COLUMNS)
    common = frequency > features.shape[0] // 16
    dense = features[:, np.flatnonzero(common)].toarray()
    rare = features[:, np.flatnonzero(~common & (frequency > 0))]
    gram: NDArray[np.float64] = dense @ dense.T + (rare @ rare.T).toarray()
    return gram


def choose_ridge(gram_NN: NDArray[np.float64], targets_N: NDArray[np.float64]) -> float:
    """The ridge of RIDGES with the least leave-one-out error, the largest of equals."""
    values, vectors = scipy.linalg.eigh(gram_NN)
    errors = {
        ridge: float(np.mean(leave_one_out_errors(values, vectors, targets_N, ridge) ** 2))
        for ridge in reversed(RIDGES)
    }
    return min(errors, key=lambda ridge: errors[ridge])


def leave_one_out_errors(
    values_N: NDArray[np.float64], vectors_NN: NDArray[np.float64], targets_N: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """Label less prediction of each text by the model fitted on all others, without fitting it: dual / diag(inverse).

    values and vectors are those of the Gram matrix. Labels are centred on the mean of all, the text included.
    """
    inverse = (vectors_NN / (np.maximum(values_N, 0) + ridge)) @ vectors_NN.T
    errors: NDArray[np.float64] = inverse @ (targets_N - targets_N.mean()) / np.diag(inverse)
    return errors


def count_features(texts: Sequence[str]) -> Any:
    """Sparse counts (N, NUM_COLUMNS) of the n-grams of each text, csr, columns sorted."""
    columns, values, ends = [], [], [0]
    for text in texts:
        found, counts = np.unique(_columns(text.lower()), return_counts=True)
        columns.append(found)
        values.append(counts)
        ends.append(ends[-1] + len(found))
    parts = (np.concatenate(values).astype(np.float64), np.concatenate(columns), np.array(ends))
    return scipy.sparse.csr_array(parts, shape=(len(texts), NUM_COLUMNS))


def weigh(counts: Any, idf: NDArray[np.float64]) -> Any:
    """log(1 + count) × idf, each row scaled to length 1; an empty row stays empty."""
    rows = counts.copy()
    rows.data = np.log1p(rows.data) * idf[rows.indices]
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1))
    rows.data /= np.repeat(np.where(lengths == 0, 1.0, lengths), np.diff(rows.indptr))
    return rows


def _columns(text: str) -> NDArray[np.int64]:
    """The column of every n-gram of one lower-cased text."""
    words = _WORD.findall(text)
    names = words + [f"{a} {b}" for a, b in itertools.pairwise(words)]
    hashed = np.array(
        [xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) for name in names], dtype=np.uint64
    )
    points = np.frombuffer(" ".join(text.split()).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(
        np.uint64
    )
    grams = [hashed, *(_character_ngrams(points, n) for n in CHARACTER_NGRAMS)]
    return (np.concatenate(grams) % np.uint64(NUM_COLUMNS)).astype(np.int64)


def _character_ngrams(points: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    count = max(0, len(points) - n + 1)
    sums = np.full(count, n, dtype=np.uint64)
    for k in range(n):
        sums = (sums ^ points[k : k + count]) * np.uint64(0x9E3779B97F4A7C15)
        sums ^= sums >> np.uint64(29)
    return sums
