"""The threshold report: what each cut of a score keeps and how well it agrees with the labels.

Agreement is measured on out-of-fold scores only: no model judges a document whose label it learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from gristmill.score.classifiers import Classifier, Float32
from gristmill.score.outputs import ThresholdRow
from gristmill.statistics import binary_scores, wilson_interval

BYTES_PER_TOKEN = 4  # only for the estimate in the report; tokenize counts
STEP = 0.5


def folds_of(texts: Sequence[str], labels: Sequence[int], *, num_folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each text: every label spread evenly, equal texts together, so that none is tested on its own copy."""
    first: dict[int, int] = {}
    group = [
        first.setdefault(xxhash.xxh3_64_intdigest(t.encode("utf-8", "surrogatepass")), i) for i, t in enumerate(texts)
    ]
    own = np.array(sorted(set(group)), dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(own)
    by_label = shuffled[np.argsort(np.asarray(labels)[shuffled], kind="stable")]
    fold_of_group = dict(zip(by_label.tolist(), (np.arange(len(by_label)) % num_folds).tolist(), strict=True))
    return np.array([fold_of_group[g] for g in group], dtype=np.int64)


def out_of_fold_scores(
    texts: Sequence[str],
    targets: Sequence[int],
    fold_N: NDArray[np.int64],
    *,
    fit: Callable[[list[str], list[int]], Classifier],
) -> Float32:
    """The score of each text by a model trained on the other folds."""
    scores = np.zeros(len(texts), dtype=np.float32)
    for fold in np.unique(fold_N):
        tested = np.flatnonzero(fold_N == fold).tolist()
        trained = np.flatnonzero(fold_N != fold).tolist()
        model = fit([texts[i] for i in trained], [targets[i] for i in trained])
        scores[tested] = model.score([texts[i] for i in tested])
    return scores


def threshold_table(
    *,
    labels: Sequence[int],
    out_of_fold: Float32,
    sample_scores: Float32,
    sample_bytes: NDArray[np.int64],
    source_bytes: int,
    source_documents: int,
) -> list[ThresholdRow]:
    """One row per threshold at which some labels lie above and some do not.

    `above`: documents with a raw score strictly above it are kept; a label counts as good when it is above it too.
    Kept documents, bytes and tokens are those of the whole source, scaled up from the scored sample.
    """
    label_N = np.asarray(labels)
    rows = []
    for above in np.arange(label_N.min() + STEP, label_N.max(), STEP).tolist():
        agreement = binary_scores(out_of_fold > above, label_N > above)
        kept = sample_scores > above
        share_bytes = float(sample_bytes[kept].sum() / max(1, sample_bytes.sum()))
        low, high = wilson_interval(int(kept.sum()), len(kept))
        rows.append(
            ThresholdRow(
                above=above,
                kept_document_share=float(kept.mean()) if len(kept) else 0.0,
                kept_document_share_interval=(low, high),
                kept_byte_share=share_bytes,
                kept_documents=round(source_documents * float(kept.mean())) if len(kept) else 0,
                kept_bytes=round(source_bytes * share_bytes),
                kept_tokens_estimate=round(source_bytes * share_bytes / BYTES_PER_TOKEN),
                test_documents=agreement.count,
                test_positives=agreement.positives,
                f1=agreement.f1,
                precision=agreement.precision,
                recall=agreement.recall,
            )
        )
    return rows
