"""Passes over a list of examples: the order of each pass, and the call of the one loop that SFT and DPO share.

The order is a pure function of (seed, pass), computed for one batch at a time, so a resumed run meets the same batches
and a step costs the same however long the list is. The last batch of a pass may be smaller; no example is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.graph.ranks import Ranks, cut
from gristmill.recipe.schema.training import Optimizer
from gristmill.tokens.permutation import key_of, left_size, permute
from gristmill.train.loop import Hook, Method, Watch, train
from gristmill.train.loss import LossOutput
from gristmill.train.schedule import cosine
from gristmill.train.session import Session

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

LOG_EVERY = 5
SAVE_EVERY = 200


@dataclass(frozen=True, kw_only=True)
class Passes:
    """`epochs` passes over `num_items` examples, `batch_size` a step. A sample is an example of a pass, counted over all passes."""

    num_items: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass, the smaller last one included."""
        return -(-self.num_items // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Batches in all passes."""
        return self.epochs * self.steps_per_epoch

    def next_sample(self, sample: int) -> int:
        """The first sample of the step after the one that begins with `sample`: a batch ends with its pass."""
        end_of_pass = (sample // self.num_items + 1) * self.num_items
        return min(sample + self.batch_size, end_of_pass)

    def items(self, sample: int) -> NDArray[np.int64]:
        """The numbers of the examples in the batch that begins with `sample`."""
        epoch, place = divmod(sample, self.num_items)
        index = place + np.arange(self.next_sample(sample) - sample, dtype=np.uint64)
        found = permute(
            index,
            size=np.full_like(index, self.num_items),
            left=np.full_like(index, left_size(self.num_items)),
            key=np.full_like(index, key_of("pass", self.seed, epoch)),
        )
        return found.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Company:
    """The batch of a rank that has no example of a step: it computes one, so that all ranks exchange the same, and counts nothing."""

    batch: Any
    num_tokens: int = 0
    num_units: int = 0

    def micro_batches(self, max_tokens: int) -> Sequence[Any]:
        """The first of the batch's."""
        return self.batch.micro_batches(max_tokens)[:1]  # type: ignore[no-any-return]


def _cut_of(items: NDArray[np.int64], make_batch: Callable[[NDArray[np.int64]], Any], ranks: Ranks) -> Any:
    """This rank's batch of a step's examples."""
    own = items[cut(len(items), ranks)]
    return make_batch(own) if len(own) else Company(batch=make_batch(items[:1]))


def train_epochs(
    session: Session,
    passes: Passes,
    *,
    make_batch: Callable[[NDArray[np.int64]], Any],
    loss_fn: Callable[[Any, Any], LossOutput],
    reports: Sequence[str],
    optimizer: Optimizer,
    warmup_frac: float,
) -> None:
    """Trains for whole passes under a cosine schedule over steps; saves every 200 steps and at the end of each pass.

    reports: the names of the sums of `loss_fn`.
    """
    # The schedule's axis is steps here: conversations differ in length, so tokens are not known before.
    schedule = cosine(
        peak_lr=optimizer.peak_lr,
        total_tokens=passes.num_steps,
        warmup_tokens=round(warmup_frac * passes.num_steps),
    )

    method = Method(
        batch_at=lambda progress: (
            _cut_of(passes.items(progress.sample), make_batch, session.runtime.ranks),
            passes.next_sample(progress.sample),
        ),
        loss_fn=loss_fn,
        reports=reports,
        lr_at=lambda progress: schedule.lr_at(progress.step + 1),
        max_grad_norm=optimizer.max_grad_norm,
    )
    watch = Watch(
        log_every=LOG_EVERY,
        log=session.log,
        save=Hook(at=lambda step: step % SAVE_EVERY == 0 or step % passes.steps_per_epoch == 0, run=session.save),
        stepped=partial(session.stepped, total=passes.num_steps),
        cut_smaller=session.cut_smaller,
    )
    train(session, method, watch, end_step=passes.num_steps, runtime=session.runtime)
