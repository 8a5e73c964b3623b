"""What the split takes of all text, told from a sample: made documents, some of them alike, held out and sampled by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.data.write import write_table
from gristmill.draft.held_out import Split, train_share
from gristmill.draft.held_out import split_of as measured
from gristmill.recipe.schema.curation import Validation
from gristmill.recipe.schema.formats import ReadJsonl

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


def test_passages_and_lines_that_were_not_cut_are_counted_by_the_texts_that_they_are_of(tmp_path: Path) -> None:
    """A line of JSON without an id of its own is named by its place, as a passage is by its number."""
    (tmp_path / "web").mkdir()
    rows = [("a.jsonl#0#0", "a.jsonl#0"), ("a.jsonl#0#2", "a.jsonl#0"), *((f"a.jsonl#{n}",) * 2 for n in (900, 1300))]
    columns = {"id": [id for id, _ in rows], "origin": [origin for _, origin in rows], "text": ["some text"] * 4}
    write_table(tmp_path / "web" / "validation-00000.parquet", pa.table(columns))
    read = ReadJsonl(format="jsonl", paths=["."], passage_chars=1000)
    found = measured(tmp_path, "web", left_bytes=100, units={"web": 1}, sources=["web"], read=read)
    assert (found.held_documents, found.held_texts, found.held_bytes) == (4, 3, 36)
