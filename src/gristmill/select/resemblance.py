"""Texts that resemble held-out ones, where none may be missed: each is compared with all of them, without bands.

    held-out texts -> their n-grams, sorted -> those that a text shares with each of them -> the rule of deduplication

Locality-sensitive hashing, which deduplication uses for candidates, hardly ever finds a short text inside a long one. Held-out
text is little, so an index of all its n-grams is affordable: 12 bytes a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gristmill.data.executor import Executor
from gristmill.select.corpus import Corpus
from gristmill.select.rules import MIN_CONTAINMENT, DuplicateRules
from gristmill.select.sets import distinct_ngrams
from gristmill.select.words import Int64

INDEX_BYTES = 1_000_000_000  # beyond it held-out documents are taken in parts


@dataclass(frozen=True, kw_only=True)
class Resemblance:
    """The held-out document that a document resembles most. containment: of the one with fewer n-grams in the other.

    Both numbers are None where the two only share a cluster, through other documents.
    """

    held: int
    jaccard: float | None = None
    containment: float | None = None


class HeldOutTexts:
    """The n-grams of held-out documents, and of whom each is. A text shorter than one n-gram resembles none."""

    def __init__(self, batches: Iterable[Sequence[tuple[int, str]]], rules: DuplicateRules) -> None:
        self.rules = rules
        documents: list[int] = []
        grams = [np.empty(0, dtype=np.uint64)]
        owners = [np.empty(0, dtype=np.int32)]
        for batch in batches:
            found, text_G = distinct_ngrams([text for _, text in batch], rules.ngram)
            grams.append(found)
            owners.append((text_G + len(documents)).astype(np.int32))
            documents += [document for document, _ in batch]
        flat, owner_G = np.concatenate(grams), np.concatenate(owners)
        order = np.argsort(flat, kind="stable")
        self._owner_G = owner_G[order]
        self._hash_H, first_H = np.unique(flat[order], return_index=True)
        self._first_H1 = np.append(first_H, len(flat))
        self._document_V = np.array(documents, dtype=np.int64)
        self._size_V = np.bincount(owner_G, minlength=len(documents))

    def find(self, batch: Sequence[tuple[int, str]]) -> dict[int, Resemblance]:
        """Those of the documents that are copies of a held-out one, part of one, or contain one, each with the closest."""
        if not len(self._hash_H):
            return {}
        grams, text_G = distinct_ngrams([text for _, text in batch], self.rules.ngram)
        size_D = np.bincount(text_G, minlength=len(batch))
        place_G = np.minimum(np.searchsorted(self._hash_H, grams), len(self._hash_H) - 1)
        known = self._hash_H[place_G] == grams
        place_K, text_K = place_G[known], text_G[known]
        offsets = np.searchsorted(text_K, np.arange(len(batch) + 1))
        found: dict[int, Resemblance] = {}
        for d in np.unique(text_K).tolist():
            closest = self._closest(place_K[offsets[d] : offsets[d + 1]], int(size_D[d]))
            if closest is not None:
                found[batch[d][0]] = closest
        return found

    def _closest(self, places: Int64, size: int) -> Resemblance | None:
        """Of a text of `size` n-grams, those at these places of the index among them."""
        starts, counts = self._first_H1[places], self._first_H1[places + 1] - self._first_H1[places]
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        shared_V = np.bincount(self._owner_G[np.repeat(starts, counts) + inside], minlength=len(self._size_V))
        held = np.flatnonzero(shared_V)
        shared, sizes = shared_V[held], self._size_V[held]
        jaccard = shared / (size + sizes - shared)
        containment = shared / np.minimum(size, sizes)
        alike = np.flatnonzero((jaccard >= self.rules.min_jaccard) | (containment >= MIN_CONTAINMENT))
        if not len(alike):
            return None
        best = max(alike.tolist(), key=lambda v: (jaccard[v], containment[v], -self._document_V[held[v]]))
        return Resemblance(
            held=int(self._document_V[held[best]]),
            jaccard=float(jaccard[best]),
            containment=float(containment[best]),
        )


def neighbours_of(
    corpus: Corpus,
    *,
    held: Path,
    asked: Path,
    rules: DuplicateRules,
    work: Path,
    executor: Executor,
    index_bytes: int = INDEX_BYTES,
) -> Path:
    """Which of the asked documents resemble a held-out one: work/neighbours.parquet, sorted by document.

    held, asked: .npy files with a boolean (or byte) per document of the corpus. Columns: document, held (int64),
    jaccard, containment (float64), the closest held-out document of each. Every pair is compared: none is missed.
    A killed call resumes with the shards that are left. Memory per worker: `index_bytes` and one batch of texts.
    """
    raise NotImplementedError
