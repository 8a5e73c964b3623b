"""A training run: begin or resume, save, finish. What pretraining, SFT and DPO share around the loop.

    out/metrics.jsonl, samples.jsonl     the metrics log
    out/model/                           the result, written at the end

Checkpoints are in the store, each under all that shaped it. A run resumes from the newest sound one whose prefix is its own,
whoever saved it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gristmill.errors import ArtifactError
from gristmill.graph.progress import Position, Report, unreported
from gristmill.graph.ranks import Ranks, is_first
from gristmill.graph.step import StepContext
from gristmill.model.compiled import compile_parts
from gristmill.model.transformer import Llama
from gristmill.model.weights import save_weights
from gristmill.planning.cost import KEEP_CHECKPOINTS
from gristmill.recipe.schema.training import Optimizer
from gristmill.store.checkpoints import CheckpointIndex, CheckpointRef
from gristmill.store.fingerprint import fingerprint
from gristmill.store.jsonl import read_log
from gristmill.store.store import RunLinks
from gristmill.train.checkpoint import (
    Checkpoint,
    environment,
    environment_changes,
    load_checkpoint,
    optimizer_tensors,
    read_checkpoint,
    write_checkpoint,
)
from gristmill.train.events import CutSmallerEvent
from gristmill.train.loop import Progress, Took
from gristmill.train.monitor import METRICS, Monitor
from gristmill.train.optimizer import make_optimizer
from gristmill.train.outputs import EVAL, TRAIN, Start, TrainingCounts, train_metric
from gristmill.train.ranks.sharding import put_together
from gristmill.train.ranks.slow_rank import SlowRank
from gristmill.train.runtime import Runtime, TrainingThreads
from gristmill.train.sinks import open_sinks
from gristmill.train.threads import ThreadChoice
from gristmill.units import counted


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where a training keeps its checkpoints, and which it may resume from.

    step: the name of the step that trains. prefix_at: all that shapes the training up to a step, as plain JSON; None beyond the end. identity: of the step that
    trains. milestones: steps whose checkpoints stay.
    """

    step: str
    index: CheckpointIndex
    run: RunLinks
    identity: str
    prefix_at: Callable[[int], Mapping[str, Any] | None]
    milestones: Collection[int] = ()

    @classmethod
    def of(
        cls,
        ctx: StepContext,
        prefix_at: Callable[[int], Mapping[str, Any] | None],
        *,
        milestones: Collection[int] = (),
    ) -> Checkpoints:
        """Those of a step."""
        index = CheckpointIndex(ctx.run.store, ctx.name)
        return cls(
            step=ctx.name, index=index, run=ctx.run, identity=ctx.identity, prefix_at=prefix_at, milestones=milestones
        )

    def ref(self, step: int) -> CheckpointRef:
        """The name of this training's checkpoint at a step."""
        return self.index.ref(step, self._prefix(step))

    def kept(self) -> list[CheckpointRef]:
        """Those that the run links now, newest first."""
        return self.index.own(self.run)

    def newest_sound(
        self, now: Mapping[str, Any], *, say: Callable[[str], None], progress: Report = unreported
    ) -> Checkpoint | None:
        """The newest checkpoint with the training's prefix whose every file is sound; the run then links it.

        Those that other runs saved in another environment than `now` are not taken; the newest is offered. A damaged one is set
        aside and passed over. Raises ArtifactError when all of the run's own are damaged: starting anew in silence would throw work away.
        """
        own = set(self.kept())
        damaged: list[str] = []
        is_offered = False
        for ref in self.index.find(self._prefix):
            if not self.index.link(self.run, ref):
                continue
            progress(Position.doing(f"checking the checkpoint of step {ref.step:,}"))
            try:
                found = read_checkpoint(ref.folder)
            except ArtifactError as error:
                say(f"checkpoint {ref.folder} is damaged and is passed over: {error}")
                damaged += [f"{ref.folder.name}: {error}"] if ref in own else []
                self.index.unlink(self.run, ref)
                self.index.set_damaged_aside(ref)
                continue
            changes = environment_changes(found.state["environment"], now)
            if changes and ref not in own and found.state["run"] != self.run.name:
                self.index.unlink(self.run, ref)
                if not is_offered:
                    say(
                        f"Run {found.state['run']!r} has a checkpoint at step {ref.step:,} that fits, but it was trained "
                        f"with different {', '.join(changes)}. To use it, run with those."
                    )
                is_offered = True
                continue
            if damaged:
                say(f"Resuming from {ref.folder}, the newest checkpoint that is sound.")
            self._let_go_others()
            return found
        if damaged:
            raise ArtifactError(
                "no checkpoint of this training is sound:\n  "
                + "\n  ".join(damaged)
                + "\n  They were set aside. Run the same command again to start from the beginning."
            )
        self._let_go_others()
        return None

    def save(self, step: int, write: Callable[[Path], Mapping[str, str]], *, say: Callable[[str], None]) -> None:
        """Commits a checkpoint, unless the store has it, and lets the ones go that are no longer kept."""
        self.index.save(self.run, self.ref(step), write)
        self.index.prune(self.run, keep_last=KEEP_CHECKPOINTS, milestones=self.milestones, say=say)

    def _let_go_others(self) -> None:
        """Unlinks the run's checkpoints of other prefixes: they are of a training that the recipe no longer asks for, and stay
        in the store until `clean`. What was reserved for this training it has taken or does not need."""
        for ref in self.kept():
            if ref.prefix != self._prefix(ref.step):
                self.index.unlink(self.run, ref)
        self.index.release(self.run)

    def _prefix(self, step: int) -> str:
        return fingerprint(self.prefix_at(step))


@dataclass(kw_only=True)
class Session:
    """One run under way. `notes` is a small JSON object of the caller's that every checkpoint carries along."""

    out: Path
    model: Llama
    optimizer: torch.optim.Optimizer
    progress: Progress
    monitor: Monitor
    tokenizer_dir: Path
    checkpoints: Checkpoints
    environment: Mapping[str, Any]
    runtime: Runtime
    threads: ThreadChoice
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.at_work = TrainingThreads(self.threads, self.runtime.say)
        self.slow_rank = SlowRank()

    def __enter__(self) -> Session:
        """Programs that draw metrics get them from here on, and are closed at the end, however it comes."""
        if self.runtime.metrics_to and is_first(self.runtime.ranks):
            run = self.checkpoints.run
            sinks = open_sinks(
                self.runtime.metrics_to,
                run=run.name,
                step=self.checkpoints.step,
                folder=run.folder,
                first_step=self.progress.step,
                config=vars(self.model.config),
                say=self.runtime.say,
            )
            self.monitor.show_in(sinks)
        return self

    def __exit__(self, *_error: object) -> None:
        self.monitor.close()

    def save(self, progress: Progress) -> None:
        """Commits a checkpoint of this moment, with the metrics log so far."""
        weights, moments = self._whole()
        state = {
            "progress": progress.to_json(),
            "prefix": self.checkpoints.prefix_at(progress.step),
            "identity": self.checkpoints.identity,
            "run": self.checkpoints.run.name,
            "environment": dict(self.environment),
            "notes": self.notes,
        }

        def write(folder: Path) -> dict[str, str]:
            written = write_checkpoint(
                folder,
                weights=weights,
                moments=moments,
                config=self.model.config,
                state=state,
                tokenizer_files_from=self.tokenizer_dir,
            )
            self.monitor.copy_to(folder)
            return written

        if is_first(self.runtime.ranks):
            self.checkpoints.save(progress.step, write, say=self.runtime.say)

    def _whole(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Weights and optimizer state by name, with the parts of all ranks; on the first rank only."""
        keep = is_first(self.runtime.ranks)
        weights = put_together(self.model.state_dict(), keep=keep)
        return weights, put_together(optimizer_tensors(self.model, self.optimizer), keep=keep)

    def log(self, progress: Progress, values: dict[str, float]) -> None:
        """One line of averages in the metrics log, with the number of threads of the next step."""
        values = {**values, "throughput/threads": float(self.threads.threads)}
        self.monitor.train(progress.step, progress.tokens, values)

    def cut_smaller(self, progress: Progress, micro_batch_tokens: int) -> None:
        """A device ran out of memory in the step after `progress`: says so, and keeps the smaller micro-batches for the rest of the run."""
        event = CutSmallerEvent(
            step=progress.step + 1,
            tokens=progress.tokens,
            micro_batch_tokens=micro_batch_tokens,
            before=self.runtime.micro_batch_tokens,
        )
        self.monitor.event(event)
        self.runtime.say(f"{event}. The result is the same up to rounding.")
        self.runtime = replace(self.runtime, micro_batch_tokens=micro_batch_tokens)
        progress.start_in({**progress.lineage[-1]["environment"], "micro_batch_tokens": micro_batch_tokens})

    def stepped(self, progress: Progress, took: Took, *, total: int, part: str = "") -> None:
        """After each step: reports progress, names a slow rank, and changes the number of threads where that is faster.

        total: steps of the whole training. part: the current part, such as "stage decay".
        """
        if line := self.slow_rank.after_step(took.rank_seconds):
            self.runtime.say(line)
        if self.at_work.after_step(took.tokens, took.seconds, took.cpu_seconds):
            progress.start_in({**progress.lineage[-1]["environment"], "threads": self.threads.threads})
        self.runtime.progress(
            Position(
                done=progress.step,
                total=total,
                unit="step",
                part=part,
                figures=_figures(progress.interval.metrics(), self.threads),
            )
        )

    def finish(self) -> TrainingCounts:
        """Writes model/ and returns what every training step counts."""
        weights = put_together(self.model.state_dict(), keep=is_first(self.runtime.ranks))
        if weights:
            save_weights(self.out / "model", weights, self.model.config, self.tokenizer_dir)
        lines = read_log(self.out / METRICS)
        last_train: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "train"), {})
        last_eval: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "eval"), {})
        seconds = self.progress.seconds
        return TrainingCounts(
            steps=self.progress.step,
            tokens=self.progress.tokens,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            training_seconds=seconds,
            tokens_per_second=self.progress.tokens / seconds if seconds > 0 else None,
            final={key: value for key, value in (last_eval | last_train).items() if key.startswith((TRAIN, EVAL))},
            environment=dict(self.environment),
            lineage=tuple(Start(**entry) for entry in self.progress.lineage),
            mixed_environments=self.progress.mixed_environments,
            checkpoints=tuple(ref.folder.name for ref in self.checkpoints.kept()),
        )


def _figures(values: Mapping[str, float], threads: ThreadChoice) -> tuple[str, ...]:
    """Averages of a few steps, in words."""
    shown = {
        train_metric("loss"): "loss {:.4g}",
        train_metric("lr"): "lr {:.2e}",
        "throughput/tok_per_sec": "{:,.0f} tokens/s",
        "throughput/data_wait_frac": "data wait {:.0%}",
    }
    words = [form.format(values[name]) for name, form in shown.items() if name in values]
    if threads.expected is not None and "throughput/tok_per_sec" in values:
        words.append(f"{values['throughput/tok_per_sec'] / threads.expected:.0%} of the measured speed")
    return (*words, *([] if threads.threads == threads.most else [f"{threads.threads} of {threads.most} threads"]))


def optimizer_options(section: Optimizer) -> dict[str, Any]:
    """A recipe's optimizer section as the arguments of `make_optimizer`; the schedule sets the rate before each step."""
    return {
        "lr": section.peak_lr,
        "betas": (section.beta1, section.beta2),
        "eps": section.eps,
        "weight_decay": section.weight_decay,
        "decay_embeddings": section.decay_embeddings,
    }


def open_session(
    out: Path,
    *,
    fresh_model: Callable[[], Llama],
    optimizer_options: Mapping[str, Any],
    tokenizer_dir: Path,
    checkpoints: Checkpoints,
    runtime: Runtime,
    expected_speed: float | None = None,
) -> Session:
    """Resumes from the newest sound checkpoint that fits, or begins with `fresh_model()`; the optimizer is AdamW with
    `optimizer_options`. expected_speed: tokens per second on idle cores, if known.

    Sets torch's thread count, on which bit-exact results depend. Says so when a resumed run will not be bit-exact.
    """
    threads = runtime.thread_choice(expected=expected_speed)
    torch.set_num_threads(threads.threads)
    device, say, ranks = runtime.device, runtime.say, runtime.ranks

    def make(model: Llama) -> torch.optim.Optimizer:
        return make_optimizer(model, **optimizer_options)

    now = environment(runtime.micro_batch_tokens, device, runtime.threads, ranks, compiled=runtime.compiled)
    computed_in = {**now, "threads": threads.threads}
    runtime.progress(Position.doing("looking for a checkpoint"))
    checkpoint = _agreed(ranks, lambda: checkpoints.newest_sound(now, say=say, progress=runtime.progress))
    monitor = Monitor(out, writes=is_first(ranks))
    if checkpoint is None:
        if discarded := monitor.restore(None):
            say(f"Starting from the beginning. Discarding {counted(discarded, 'log line')} of an earlier attempt.")
        model = fresh_model().to(device)
        ranks.shard(model)
        optimizer: torch.optim.Optimizer = make(model)
        progress, notes = Progress(), dict[str, Any]()
        progress.start_in(computed_in)
    else:
        for change in environment_changes(checkpoint.state["environment"], now):
            say(f"Resuming with different {change}; the result will not be bit-identical to an unbroken run.")
        step, notes = checkpoint.state["progress"]["step"], dict(checkpoint.state["notes"])
        runtime.progress(Position.doing(f"loading the checkpoint of step {step:,}"))
        model, optimizer = load_checkpoint(checkpoint, make, device=device, ranks=ranks)
        runtime = _cut_as_before(checkpoint, now, runtime)
        computed_in["micro_batch_tokens"] = runtime.micro_batch_tokens
        progress = _resumed(checkpoint, checkpoints, monitor, computed_in, say)
    model.recompute = runtime.recompute
    if runtime.compiled:
        compile_parts(model)
    return Session(
        out=out,
        model=model,
        optimizer=optimizer,
        progress=progress,
        monitor=monitor,
        tokenizer_dir=tokenizer_dir,
        checkpoints=checkpoints,
        environment=now,
        runtime=runtime,
        threads=threads,
        notes=notes,
    )


def _agreed(ranks: Ranks, find: Callable[[], Checkpoint | None]) -> Checkpoint | None:
    """The checkpoint that the first rank finds and checks, on all ranks."""

    def found() -> dict[str, Any] | None:
        checkpoint = find()
        return None if checkpoint is None else {"folder": str(checkpoint.folder), "state": dict(checkpoint.state)}

    agreed = ranks.from_first(found)
    return None if agreed is None else Checkpoint(folder=Path(agreed["folder"]), state=agreed["state"])


def _cut_as_before(checkpoint: Checkpoint, now: Mapping[str, Any], runtime: Runtime) -> Runtime:
    """With the micro-batches that the checkpoint's last steps had, if they were cut smaller than asked for and nothing else is asked now."""
    if environment_changes(checkpoint.state["environment"], now):
        return runtime
    last = checkpoint.state["progress"]["lineage"][-1]["environment"]
    return replace(runtime, micro_batch_tokens=last["micro_batch_tokens"])


def _resumed(
    checkpoint: Checkpoint,
    checkpoints: Checkpoints,
    monitor: Monitor,
    computed_in: Mapping[str, Any],
    say: Callable[[str], None],
) -> Progress:
    """Where the checkpoint was saved, the logs cut to it. Says whose it is and what of the logs went."""
    state = checkpoint.state
    is_other = state["identity"] != checkpoints.identity
    discarded = monitor.restore(checkpoint.folder, origin=state["run"] if is_other else None)
    is_same_run = state["run"] == checkpoints.run.name
    whose = ", saved under an earlier form of the recipe" if is_same_run else f" of run {state['run']!r}"
    lines = f" Discarding {counted(discarded, 'log line')} written after this checkpoint." if discarded else ""
    progress = Progress.from_json(state["progress"])
    say(f"Resuming from step {progress.step:,}{whose if is_other else ''}.{lines}")
    progress.start_in(
        computed_in,
        checkpoint=checkpoint.folder.name,
        of_other_run=is_other,
        prefix=state["prefix"] if is_other else None,
    )
    return progress
