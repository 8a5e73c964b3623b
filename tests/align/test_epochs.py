"""What passes ask of the loop, and the parts of dpo that need no training."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gristmill.align import dpo, epochs
from gristmill.align.epochs import Passes, train_epochs
from gristmill.graph.ranks import ONE_RANK
from gristmill.recipe.schema.training import Optimizer
from gristmill.tokens.chat import EncodedChat
from gristmill.train.loop import Progress

PASSES = Passes(num_items=2050, batch_size=10, epochs=2, seed=7)


def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The arguments with which the loop was called for PASSES."""
    seen: list[Any] = []
    monkeypatch.setattr(epochs, "train", lambda session, method, watch, **more: seen.append((method, watch, more)))
    saved: list[Progress] = []
    runtime = SimpleNamespace(ranks=ONE_RANK)
    session = SimpleNamespace(runtime=runtime, log=print, save=saved.append, stepped=print, cut_smaller=print)
    train_epochs(
        session,  # type: ignore[arg-type]
        PASSES,
        make_batch=lambda numbers: numbers,
        reports=(),
        loss_fn=max,
        optimizer=Optimizer(peak_lr=0.05, max_grad_norm=0.25),
        warmup_frac=0.1,
    )
    method, watch, more = seen[0]
    watch.save.run(Progress())
    return SimpleNamespace(method=method, watch=watch, saved=saved, **more)


def test_whole_passes_are_asked_for_and_saved_every_two_hundred_steps_and_at_their_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = asked(monkeypatch)
    assert (found.end_step, found.runtime.ranks, found.saved) == (410, ONE_RANK, [Progress()])
    assert [step for step in range(1, 411) if found.watch.save.at(step)] == [200, 205, 400, 410]
    assert found.watch.log_every == 5
    assert found.method.max_grad_norm == 0.25


def test_the_rate_warms_up_over_its_share_of_steps_and_falls_as_a_cosine_to_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = asked(monkeypatch)
    warmup, steps = 41, 410
    expected = [0.05 * step / warmup for step in range(1, warmup + 1)]
    expected += [0.025 * (1 + math.cos(math.pi * step / (steps - warmup))) for step in range(1, steps - warmup + 1)]
    assert [found.method.lr_at(Progress(step=step)) for step in range(steps)] == pytest.approx(expected, abs=1e-12)


def test_a_batch_is_made_of_the_items_of_its_sample_whatever_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    method = asked(monkeypatch).method
    numbers, following = method.batch_at(Progress(step=3, sample=2040))
    assert (numbers.tolist(), following) == (PASSES.items(2040).tolist(), 2050)
    assert method.batch_at(Progress(step=9, sample=2040))[0].tolist() == numbers.tolist()


def chat(num_tokens: int) -> EncodedChat:
    return EncodedChat(id="c", ids=np.arange(num_tokens + 1), mask=np.ones(num_tokens + 1, dtype=np.float32))


def test_a_pair_fits_where_both_conversations_do() -> None:
    for chosen, rejected, expected in ((4, 4, True), (5, 4, False), (4, 5, False)):
        assert dpo.fits(("p", chat(chosen), chat(rejected)), 4) is expected


def test_each_pair_gets_its_own_log_probabilities() -> None:
    rows = [("a", chat(1), chat(2)), ("b", chat(3), chat(4))]
    first, second = dpo.with_reference(rows, [(-1.0, -2.0), (-3.0, -4.0)])
    assert (first.id, first.reference_chosen_logp, first.reference_rejected_logp) == ("a", -1.0, -2.0)
    assert (second.id, second.reference_chosen_logp, second.reference_rejected_logp) == ("b", -3.0, -4.0)
    assert (second.chosen, second.rejected) == rows[1][1:]
