"""A context extension is judged at positions beyond the old length, by the same documents before and after."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gristmill.evaluate.extension import extensions_of
from gristmill.train.watch.long_context import LongContext, Needles, ReadDocument

EDGES = (0, 64, 128, 256, 512, 1024)


def line(nats: np.ndarray, *, is_after: bool, tokens: Any = None) -> LongContext:
    """nats: by document and span, per token."""
    sizes = np.array([64, 64, 128, 256, 512]) if tokens is None else np.asarray(tokens)
    sizes = np.broadcast_to(sizes, nats.shape)
    return LongContext(
        step=10,
        tokens=1000,
        kind="positions",
        stage="extension",
        is_after=is_after,
        old=256,
        new=1024,
        edges=EDGES,
        documents=tuple(
            ReadDocument(source="web", nats=tuple((row * size).tolist()), tokens=tuple(size.tolist()))
            for row, size in zip(nats, sizes, strict=True)
        ),
        needles=(Needles(length=256, depth=0.5, right=3, asked=10),) if is_after else (),
    )


def test_an_extension_that_helps_beyond_the_old_length_is_said_to_and_nothing_else_is() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(4, 0.3, (20, 5))
    after = before + rng.normal(0, 0.01, (20, 5))
    after[:, 3:] -= 0.5
    [found] = extensions_of([line(before, is_after=False), line(after, is_after=True)])
    assert [span.decides for span in found.spans] == [False, False, False, True, True]
    assert [(span.begin, span.end) for span in found.spans] == list(pairwise(EDGES))
    peer = stats.ttest_rel(after[:, 3], before[:, 3])
    assert found.spans[3].difference.p_value == pytest.approx(peer.pvalue)
    assert (found.spans[3].difference.low, found.spans[3].difference.high) == pytest.approx(
        tuple(peer.confidence_interval(0.95))
    )
    assert found.beyond is not None
    assert (found.beyond.begin, found.beyond.end, found.beyond.tokens) == (256, 1024, 20 * 768)
    assert found.words.startswith("At positions beyond 256, the old length, the loss was ")
    assert "0.50" in found.words.split(": ")[1]
    assert "less" in found.words


def test_no_difference_is_called_none() -> None:
    rng = np.random.default_rng(2)
    before = rng.normal(4, 0.3, (20, 5))
    [found] = extensions_of([line(before, is_after=False), line(before + rng.normal(0, 0.2, (20, 5)), is_after=True)])
    assert found.words.endswith("no difference can be told from 20 documents.")


def test_documents_that_end_earlier_count_where_they_have_tokens() -> None:
    before, tokens = np.full((6, 5), 4.0), np.array([[64, 64, 128, 44, 0]] * 5 + [[64, 64, 128, 256, 512]])
    after = before - 1
    [found] = extensions_of([line(before, is_after=False, tokens=tokens), line(after, is_after=True, tokens=tokens)])
    assert [span.difference.count for span in found.spans] == [6, 6, 6, 6, 1]
    assert found.spans[4].difference.p_value == 1  # one document proves nothing


def test_without_a_look_before_or_without_long_documents_it_is_said() -> None:
    after = line(np.full((3, 5), 4.0), is_after=True)
    assert "before extension was not measured" in extensions_of([after])[0].words
    none = replace(after, documents=())
    [found] = extensions_of([replace(none, is_after=False), none])
    assert found.words.startswith("No held-out document is longer than 256 tokens")
    assert found.spans == ()


def test_of_many_spans_each_is_judged_by_holms_p_value() -> None:
    rng = np.random.default_rng(4)
    before = rng.normal(4, 0.3, (12, 5))
    after = before + rng.normal([0, -0.02, -0.03, -0.05, -0.08], 0.06, (12, 5))
    [found] = extensions_of([line(before, is_after=False), line(after, is_after=True)])
    p_values = stats.ttest_rel(after, before, axis=0).pvalue
    ranks = np.argsort(p_values)
    adjusted = np.empty(5)
    adjusted[ranks] = np.minimum(1, np.maximum.accumulate(p_values[ranks] * [5, 4, 3, 2, 1]))
    assert [span.p_adjusted for span in found.spans] == pytest.approx(adjusted.tolist(), rel=1e-6)
