"""The one training loop: pretraining, context extension, SFT and DPO are four callers with other arguments.

    batch_at(progress) ─→ take_step (optimizer_step.py) ─→ what it took, averages
                                                                │
       log every few steps ─→ save ─→ hooks (evaluate, sample): watchers, they never touch the weights

A call says what is trained (Trainee), how (Method), what is written on the way (Watch) and where it runs (Runtime). The loop
knows nothing of recipes, stages, chat or preference pairs. Its state is `Progress`, small enough to be JSON: a checkpoint of
weights, optimizer state and Progress is all that resuming needs. Saving comes before the hooks of a step; `hooks_pending` lets
a resumed run do them first.

Several ranks run this loop together, each on its cut of every batch. What is counted, logged and decided is of the whole batch: one
small sum over ranks before a step (units, tokens), one before its last backward pass (memory), one after it, one to agree on stopping.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Generic, Protocol

import torch
from torch import nn

from gristmill.errors import ArtifactError, GristmillError, Interrupted
from gristmill.graph.progress import Position
from gristmill.graph.ranks import Ranks, any_rank, is_first
from gristmill.train.loss import LossOutput
from gristmill.train.optimizer_step import BatchT, StepOutcome, take_step
from gristmill.train.outputs import train_metric
from gristmill.train.ranks.sharding import gathered
from gristmill.train.runtime import Runtime

VERSION = 1  # of a training step: this file, optimizer_step.py, loss.py, optimizer.py, schedule.py; rises when the meaning changes

MAX_SKIPPED_STEPS = 3
SKIPPED_STEPS_WINDOW = 100


class TrainingDiverged(GristmillError):
    """Loss or gradient was not finite too often; the weights were never touched by such a step."""


@dataclass(kw_only=True)
class Interval:
    """What happened since the last metrics line. `sums` maps a quantity to (sum, count); "loss/web" is the loss of web."""

    tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, sums: Mapping[str, tuple[float, float]]) -> None:
        """Adds sums and counts, name by name."""
        for name, (total, count) in sums.items():
            before_total, before_count = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (before_total + total, before_count + count)

    def metrics(self) -> dict[str, float]:
        """The averages of this interval, by metric name; a metric that was never counted is absent."""
        values = {_named(name): total / count for name, (total, count) in self.sums.items() if count > 0}
        if self.skipped:
            values[train_metric("skipped_steps")] = float(self.skipped)
        if self.seconds > 0:
            values["throughput/tok_per_sec"] = self.tokens / self.seconds
            values["throughput/data_wait_frac"] = self.wait_seconds / self.seconds
        return values


def _named(name: str) -> str:
    """The metric of a sum: of "loss/web", the loss of web."""
    quantity, _, source = name.partition("/")
    return train_metric(quantity, source)


@dataclass(kw_only=True)
class Progress:
    """Where training is.

    step: steps done, skipped ones too. sample: the first sequence or example of the next step; it moves apart from `step`
    where data is passed over. tokens: consumed so far; seconds: taken so far. lineage: where this training was computed,
    one {"from_step", "environment", "checkpoint"} for each start that differs from the one before.
    """

    step: int = 0
    sample: int = 0
    tokens: int = 0
    seconds: float = 0.0
    hooks_pending: bool = True
    skipped_steps: list[int] = field(default_factory=list)
    interval: Interval = field(default_factory=Interval)
    lineage: list[dict[str, Any]] = field(default_factory=list)

    def start_in(
        self,
        environment: Mapping[str, Any],
        *,
        checkpoint: str | None = None,
        of_other_run: bool = False,
        prefix: Mapping[str, Any] | None = None,
    ) -> None:
        """Notes a start, unless it resumes this run's own checkpoint in the environment of the last entry.

        prefix: what shaped the checkpoint of another run: its stage table, its changes.
        """
        if not self.lineage or of_other_run or self.lineage[-1]["environment"] != environment:
            entry = {"from_step": self.step, "environment": dict(environment), "checkpoint": checkpoint}
            entry |= {} if prefix is None else {"prefix": dict(prefix)}
            self.lineage = [*self.lineage, entry]

    @property
    def mixed_environments(self) -> bool:
        """True when not all steps were computed in one environment, so that no other machine repeats them bit for bit."""
        return any(entry["environment"] != self.lineage[0]["environment"] for entry in self.lineage)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal Progress (floats survive exactly)."""
        sums = {name: list(pair) for name, pair in self.interval.sums.items()}
        return {
            **vars(self),
            "interval": {**vars(self.interval), "sums": sums},
            "skipped_steps": list(self.skipped_steps),
            "lineage": list(self.lineage),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        """The reverse of `to_json`. Raises ArtifactError when a field is missing or unknown: a guess would train other data."""
        different = {one.name for one in fields(cls)} ^ value.keys()
        if different:
            raise ArtifactError(
                f"the progress of this checkpoint was saved by another version of gristmill: {', '.join(sorted(different))} "
                "missing or unknown. Remove the checkpoints to start from the beginning."
            )
        interval = dict(value["interval"])
        interval["sums"] = {name: (pair[0], pair[1]) for name, pair in interval["sums"].items()}
        return cls(**{**value, "interval": Interval(**interval)})


class Trainee(Protocol):
    """What is trained: a session, or anything else that has these three. The loop changes all of them in place."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def progress(self) -> Progress: ...


@dataclass(frozen=True, kw_only=True)
class Method(Generic[BatchT]):
    """How it is trained. `batch_at` and `lr_at` are pure functions of the progress before the step.

    batch_at: (the batch of the next step, or this rank's cut of it; the first sample of the step after it). reports: every name
    that the sums of `loss_fn` may have, in the same order on all ranks. max_grad_norm: the gradient of the whole batch is scaled
    down to it. accepts: asked once a step on every rank, after its gradient and before its update, which is left out where the answer
    is no; what it raises ends the training in the state before the step.
    """

    batch_at: Callable[[Progress], tuple[BatchT, int]]
    loss_fn: Callable[[Any, BatchT], LossOutput]
    reports: Sequence[str]
    lr_at: Callable[[Progress], float]
    max_grad_norm: float
    accepts: Callable[[Progress, StepOutcome], bool] = lambda progress, outcome: True


@dataclass(frozen=True, kw_only=True)
class Hook:
    """`run(progress)` is called after each step for which `at(step)` holds."""

    at: Callable[[int], bool]
    run: Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a step took. cpu_seconds: processor time of all threads of this process together. rank_seconds: of each of several
    ranks, by its number, the time of its forward passes, in which it waits for no other.
    """

    tokens: int
    seconds: float
    cpu_seconds: float
    rank_seconds: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is written on the way. It reads the weights and never changes them.

    stepped: gets each step that was taken. log: gets averages over the steps since the last multiple of `log_every`, there and at the
    end. save: before the hooks of its step, and when the run is stopped. hooks: with gradients off, also at step 0 before the first.
    cut_smaller: gets the new size of micro-batches, in tokens, with the progress before the step in which a device ran out of memory.
    """

    log_every: int
    log: Callable[[Progress, dict[str, float]], None]
    save: Hook
    hooks: Sequence[Hook] = ()
    stepped: Callable[[Progress, Took], None] = lambda progress, took: None
    cut_smaller: Callable[[Progress, int], None] = lambda progress, tokens: None


def train(trainee: Trainee, method: Method[BatchT], watch: Watch, *, end_step: int, runtime: Runtime) -> None:
    """Trains from `trainee.progress.step` to `end_step`.

    A step in which a device runs out of memory is taken again with smaller micro-batches, and so are those after it. When
    `runtime.should_stop()` turns true on any rank, the step is finished, saved, and Interrupted is raised. Raises TrainingDiverged
    after 3 steps in 100 whose loss or gradient was not finite.
    """
    model, progress, ranks = trainee.model, trainee.progress, runtime.ranks
    micro_batch_tokens = runtime.micro_batch_tokens
    model.train()
    if progress.hooks_pending:
        runtime.progress(Position.doing(f"measuring at step {progress.step:,}"))
        _run_hooks(model, watch.hooks, progress, ranks)
    runtime.progress(Position.doing(f"computing step {progress.step + 1:,}"))
    while progress.step < end_step:
        started, cpu_started = time.perf_counter(), time.process_time()
        batch, next_sample = method.batch_at(progress)
        waited = time.perf_counter() - started
        lr = method.lr_at(progress)
        outcome = take_step(
            model,
            trainee.optimizer,
            batch,
            method.loss_fn,
            lr=lr,
            micro_batch_tokens=micro_batch_tokens,
            max_grad_norm=method.max_grad_norm,
            accepts=partial(method.accepts, progress),
            ranks=ranks,
            reports=method.reports,
        )
        if outcome.micro_batch_tokens != micro_batch_tokens:
            micro_batch_tokens = outcome.micro_batch_tokens
            watch.cut_smaller(progress, micro_batch_tokens)
        took = Took(
            tokens=outcome.tokens,
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu_started,
            rank_seconds=outcome.rank_seconds,
        )
        progress.seconds += took.seconds
        progress.interval.seconds += took.seconds
        progress.interval.wait_seconds += waited
        progress.sample = next_sample
        _record(progress, outcome, lr)
        watch.stepped(progress, took)
        is_full = progress.step % watch.log_every == 0
        if is_full or progress.step == end_step:
            watch.log(progress, progress.interval.metrics())
        if (
            is_full
        ):  # not at another end: what continues from here logs the intervals of a training that never ended here
            progress.interval = Interval()
        progress.hooks_pending = True
        stop = any_rank(ranks, runtime.should_stop())
        if stop or watch.save.at(progress.step):
            watch.save.run(progress)
        if stop:
            raise Interrupted(f"stopped after step {progress.step}; its state is saved")
        _run_hooks(model, watch.hooks, progress, ranks)


def _record(progress: Progress, outcome: StepOutcome, lr: float) -> None:
    """Counts one step. A step that was not applied counts its tokens, and nothing else of it enters an average."""
    interval = progress.interval
    interval.tokens += outcome.tokens
    progress.tokens += outcome.tokens
    if outcome.applied:
        own = {
            "loss": (outcome.loss * outcome.units, outcome.units),
            "grad_norm": (outcome.grad_norm, 1.0),
            "lr": (lr, 1.0),
        }
        interval.add(own | outcome.sums)
    else:
        interval.skipped += 1
    if not outcome.is_finite:
        recent = [step for step in progress.skipped_steps if step > progress.step - SKIPPED_STEPS_WINDOW]
        progress.skipped_steps = [*recent, progress.step]
        if len(progress.skipped_steps) >= MAX_SKIPPED_STEPS:
            raise TrainingDiverged(
                f"the batch of step {progress.step} gave loss {outcome.loss} and gradient norm {outcome.grad_norm}; so did "
                f"{len(progress.skipped_steps)} of the last {SKIPPED_STEPS_WINDOW} steps: {progress.skipped_steps}.\n"
                "  None of them was applied."
            )
    progress.step += 1


def _run_hooks(model: nn.Module, hooks: Sequence[Hook], progress: Progress, ranks: Ranks) -> None:
    """Runs what is due at this step with gradients off, on the first rank, and leaves the model in training mode."""
    due = [hook for hook in hooks if hook.at(progress.step)]
    if due:
        model.eval()
        with torch.no_grad(), gathered(model):
            for hook in due if is_first(ranks) else ():
                hook.run(progress)
        model.train()
    progress.hooks_pending = False
