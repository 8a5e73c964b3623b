"""What the split takes of all text, told from a sample: made documents, some of them alike, held out and sampled by chance."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.draft.held_out import Split, train_share
from gristmill.recipe.schema.curation import Validation

DOCUMENTS, UNITS = 2_000, 100
RULES = Validation(fraction=0.05, min_bytes=1)


def split_of(sizes: np.ndarray, partner: np.ndarray, unit: np.ndarray, rng: np.random.Generator) -> Split:
    """A split by the rule of select: documents in random order until the wanted bytes are held out; their partners leave."""
    order = rng.permutation(len(sizes))
    before = np.concatenate([[0], np.cumsum(sizes[order])[:-1]])
    held = np.zeros(len(sizes), dtype=bool)
    held[order[before < RULES.fraction * sizes.sum()]] = True
    has = partner >= 0
    leaves = has & held[np.where(has, partner, 0)] & ~held
    return Split(
        train_bytes=int(sizes[~held & ~leaves].sum()),
        held_bytes=int(sizes[held].sum()),
        alike_bytes=int(sizes[leaves].sum()),
        typical_document=float((sizes**2).sum() / sizes.sum()),
        alike_documents=int(leaves.sum()),
        alike_across=int((leaves & (unit != unit[np.where(has, partner, 0)])).sum()),
    )


def population(alike: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sizes, partner or -1, unit) of documents of which a share comes in pairs that lie anywhere."""
    partner = np.full(DOCUMENTS, -1)
    paired = rng.permutation(DOCUMENTS)[: 2 * int(alike * DOCUMENTS / 2)]
    partner[paired] = paired.reshape(2, -1)[::-1].reshape(-1)
    return np.round(rng.lognormal(8, 1, DOCUMENTS)), partner, rng.integers(0, UNITS, DOCUMENTS)


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_interval_holds_what_the_split_of_all_leaves(alike: float) -> None:
    rng = np.random.default_rng(8)
    held, values, truths = 0, [], []
    for _ in range(100):
        sizes, partner, unit = population(alike, rng)
        whole = split_of(sizes, partner, unit, rng)
        some = np.flatnonzero(unit < 0.3 * UNITS)
        place = np.full(DOCUMENTS + 1, -1)
        place[some] = np.arange(len(some))
        sample = split_of(sizes[some], place[partner[some]], unit[some], rng)
        found = train_share(sample, RULES, num_bytes=float(sizes.sum()), share_read=0.3)
        truth = whole.train_bytes / sizes.sum()
        held += found.low <= truth <= found.high
        values.append(found.value)
        truths.append(truth)
    assert held >= 93
    assert np.mean(values) == pytest.approx(np.mean(truths), abs=0.01)


def test_what_is_alike_within_a_unit_is_met_in_full() -> None:
    found = {"train_bytes": 90, "held_bytes": 0, "alike_bytes": 10, "typical_document": 0.0}
    within = Split(**found, alike_documents=10, alike_across=0)
    across = Split(**found, alike_documents=10, alike_across=10)
    rules = Validation(fraction=0, min_bytes=1)
    assert train_share(within, rules, num_bytes=1e6, share_read=0.1).value == pytest.approx(0.9, abs=1e-5)
    assert train_share(across, rules, num_bytes=1e6, share_read=0.1).value == pytest.approx(0.9**10, abs=1e-5)
