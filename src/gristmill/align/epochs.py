"""Passes over a small list of examples: the order of each pass, and the call of the one loop that SFT and DPO share.

The order is a pure function of (seed, pass), so a resumed run meets the same batches. The last batch of a pass may be smaller;
no example is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gristmill.model.transformer import Llama
from gristmill.store.fingerprint import derive_seed
from gristmill.train.loop import Progress, train
from gristmill.train.loss import LossOutput
from gristmill.train.schedule import cosine
from gristmill.train.session import Session

LOG_EVERY = 5
SAVE_EVERY = 200


def steps_per_epoch(num_items: int, batch_size: int) -> int:
    """Batches in one pass, the smaller last one included."""
    return -(-num_items // batch_size)


def items_of_step(step: int, *, num_items: int, batch_size: int, seed: int) -> list[int]:
    """The numbers of the examples in the batch of `step` (from 0)."""
    epoch, place = divmod(step, steps_per_epoch(num_items, batch_size))
    order = np.random.default_rng(derive_seed(seed, "epoch", epoch)).permutation(num_items)
    return [int(number) for number in order[place * batch_size : (place + 1) * batch_size]]


def train_epochs(
    session: Session,
    *,
    stage: str,
    num_items: int,
    batch_size: int,
    epochs: int,
    seed: int,
    make_batch: Callable[[Sequence[int]], Any],
    loss_fn: Callable[[Any, Any], LossOutput],
    peak_lr: float,
    warmup_frac: float,
    max_grad_norm: float,
    micro_batch_tokens: int,
    should_stop: Callable[[], bool],
) -> Llama:
    """Trains for whole passes under a cosine schedule over steps; saves every 200 steps and at the end of each pass."""
    per_epoch = steps_per_epoch(num_items, batch_size)
    num_steps = epochs * per_epoch
    # The schedule's axis is steps here: conversations differ in length, so tokens are not known before.
    schedule = cosine(peak_lr=peak_lr, total_tokens=num_steps, warmup_tokens=round(warmup_frac * num_steps))

    def save(progress: Progress) -> None:
        session.save(progress, stage=stage)

    train(
        session.model,
        session.optimizer,
        batch_at=lambda step: make_batch(items_of_step(step, num_items=num_items, batch_size=batch_size, seed=seed)),
        loss_fn=loss_fn,
        lr_at=lambda progress: schedule.lr_at(progress.step + 1),
        progress=session.progress,
        end_step=num_steps,
        micro_batch_tokens=micro_batch_tokens,
        max_grad_norm=max_grad_norm,
        log_every=LOG_EVERY,
        log=session.log,
        save=save,
        save_at=lambda step: step % SAVE_EVERY == 0 or step % per_epoch == 0,
        should_stop=should_stop,
    )
    return session.model
