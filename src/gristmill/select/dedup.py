"""Exact and near duplicates: which document is a copy of which, and which one is kept. Memory is bounded, the rest lies on disk.

    prints of all shards ── order.py ──→ ranks: documents in the stated order           (external sort)
                         ── groups.py ─→ exact copies; documents that share a band key  (grouped by hash range)
    texts of those       ── sets.py ───→ their n-gram sets
                            walk.py ───→ near copies and links, in rank order           (verified on full text)
                            copies.py ─→ copies.parquet, links.parquet, by document

Documents are taken in one stated order: priority of the source, score (high first), length in bytes (long first),
id, source, hash of the text. A document is removed when it is a verified copy of a *kept* document that comes before it, so

- every removed document names the survivor it was compared with: chains of copies never join strangers,
- nothing depends on the order of the input, and a second pass makes the same comparisons and removes nothing.

Verified means, on sets of word n-grams of the whole text: Jaccard similarity of at least `min_jaccard`, or, where the
survivor is the longer one, at least MIN_CONTAINMENT of the document's n-grams occur in it. Documents shorter than
one n-gram take part in the exact pass only.

Links join documents that a validation split must not part. A survivor that occurs in a longer document which comes later makes
no copy of it, but is linked to it. A link is found when the later of the two is decided, so documents never change what was
decided of those before them.

Every stage leaves finished files and is skipped when they exist, so a search that was killed resumes; the walk resumes at its
last finished window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gristmill.data.executor import Executor
from gristmill.select.corpus import Corpus
from gristmill.select.signatures import Bands
from gristmill.select.words import Int64

MIN_CONTAINMENT = 0.95
MAX_COMPARISONS = 64  # kept candidates that a document is verified against: those sharing most bands first
MAX_LISTED = 256  # kept documents that one band key leads to: templates would else cost the square of their number
COPIES = "copies.parquet"
LINKS = "links.parquet"


@dataclass(frozen=True, kw_only=True)
class DuplicateRules:
    """How near-duplicates are sought; `min_jaccard` is inclusive, and so is MIN_CONTAINMENT.

    With `remove_near` off, near copies stay but are linked, so that the split keeps them on one side.
    """

    num_bands: int
    rows_per_band: int
    ngram: int
    min_jaccard: float
    remove_near: bool
    max_comparisons: int = MAX_COMPARISONS
    max_listed: int = MAX_LISTED

    @property
    def bands(self) -> Bands:
        """What the prints must have been made with."""
        return Bands(num_bands=self.num_bands, rows_per_band=self.rows_per_band, ngram=self.ngram)


@dataclass(frozen=True, kw_only=True)
class SearchMemory:
    """What the search may hold. Results do not depend on it.

    worker_bytes: per worker over a shard or a hash range, roughly. walk_bytes: arrays of the walking process, beyond which
    they are mapped files. block_ngrams: n-grams (8 bytes each) of the documents that are compared at one time.
    """

    worker_bytes: int = 500_000_000
    walk_bytes: int = 2_000_000_000
    block_ngrams: int = 32_000_000


@dataclass(frozen=True, kw_only=True)
class DuplicateCounts:
    """What the search found.

    documents: that took part. with_candidates: that share a band key with another. capped: that had more kept candidates
    than MAX_COMPARISONS. Pairs are (document, kept document before it); refused: compared, and no copies.
    """

    documents: int
    exact_copies: int
    near_copies: int
    links: int
    with_candidates: int
    candidate_pairs: int
    compared_pairs: int
    refused_pairs: int
    capped: int


def find_duplicates(
    corpus: Corpus,
    *,
    rules: DuplicateRules,
    work: Path,
    executor: Executor,
    memory: SearchMemory | None = None,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> DuplicateCounts:
    """Finds all copies among the documents of the corpus that passed, and leaves two files in `work`.

    copies.parquet: document, survivor (int64, numbers in the corpus), exact (bool), jaccard, containment (float64); one row
    per removed document, sorted by document. links.parquet: document, other (int64), the second before the first in the
    survivor order; exact copies by document, then near ones in that order. Nothing else of the search remains.

    Raises ResourceError when the disk is full, Interrupted when `should_stop()`, and ArtifactError when `work` holds
    an unfinished search over other documents; after the first two the same call resumes.
    """
    raise NotImplementedError


def disk_bytes(
    documents: int, *, num_bands: int, ngrams_per_document: float, share_with_candidates: float = 1.0
) -> dict[str, int]:
    """An upper estimate of the bytes on disk: `prints`, which stay, and `search`, the peak while the search runs."""
    raise NotImplementedError


def components(count: int, links_E2: Int64) -> Int64:
    """The number of the connected part of each of `count` nodes: that of its lowest member."""
    ends = (links_E2[:, 0], links_E2[:, 1])
    graph = coo_array((np.ones(len(links_E2), dtype=np.int8), ends), shape=(count, count))
    parts, label_D = connected_components(graph, directed=False)
    lowest = np.full(parts, count, dtype=np.int64)
    np.minimum.at(lowest, label_D, np.arange(count))
    component_D: Int64 = lowest[label_D]
    return component_D
