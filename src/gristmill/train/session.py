"""A training run in a folder: begin or go on, save, finish. What pretraining, SFT and DPO share around the loop.

out/
    metrics.jsonl, samples.jsonl     the diary
    checkpoints/step-NNNNNNN/        the newest two, and the milestones
    model/                           the result, written at the end
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gristmill.errors import ArtifactError
from gristmill.model.transformer import Llama
from gristmill.model.weights import save_model
from gristmill.recipe.schema.training import Optimizer
from gristmill.store.jsonl import read_log
from gristmill.train.checkpoint import (
    environment,
    environment_changes,
    load_checkpoint,
    newest_valid_checkpoint,
    prune,
    remove_leftovers,
    save_checkpoint,
    set_damaged_aside,
)
from gristmill.train.loop import Progress
from gristmill.train.monitor import METRICS, Monitor
from gristmill.train.optimizer import make_optimizer
from gristmill.train.runtime import Runtime

KEEP_LAST = 2


@dataclass(kw_only=True)
class Session:
    """One run under way. `notes` is a small JSON object of the caller's that every checkpoint carries along."""

    out: Path
    model: Llama
    optimizer: torch.optim.Optimizer
    progress: Progress
    monitor: Monitor
    tokenizer_dir: Path
    fingerprint: str
    environment: Mapping[str, Any]
    runtime: Runtime
    notes: dict[str, Any] = field(default_factory=dict)

    def save(self, progress: Progress, *, stage: str, milestone: str | None = None) -> Path:
        """Commits a checkpoint of this moment, then removes the ones that are no longer kept. Milestones are kept for good."""
        self.monitor.sync()
        state = {
            "progress": progress.to_json(),
            "stage": stage,
            "milestone": milestone,
            "fingerprint": self.fingerprint,
            "environment": dict(self.environment),
            "notes": self.notes,
        }
        folder = save_checkpoint(
            self.out / "checkpoints",
            progress.step,
            model=self.model,
            optimizer=self.optimizer,
            state=state,
            tokenizer_files_from=self.tokenizer_dir,
        )
        prune(self.out / "checkpoints", keep_last=KEEP_LAST)
        return folder

    def log(self, progress: Progress, values: dict[str, float]) -> None:
        """One line of averages in the diary, and one of progress for the reader."""
        self.monitor.train(progress.step, progress.tokens, values)
        if "train/loss" in values:
            self.runtime.say(f"step {progress.step:,}: loss {values['train/loss']:.4f}, lr {values['train/lr']:.2e}")

    def finish(self) -> dict[str, Any]:
        """Writes model/ and returns what every training step records."""
        save_model(self.out / "model", self.model, self.tokenizer_dir)
        lines = read_log(self.out / METRICS)
        last_train: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "train"), {})
        last_eval: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "eval"), {})
        seconds = self.progress.seconds
        return {
            "steps": self.progress.step,
            "tokens": self.progress.tokens,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "training_seconds": seconds,
            "tokens_per_second": self.progress.tokens / seconds if seconds > 0 else None,
            "final": {
                key: value for key, value in (last_eval | last_train).items() if key.startswith(("train/", "eval/"))
            },
            "environment": dict(self.environment),
            "lineage": self.progress.lineage,
            "mixed_environments": self.progress.mixed_environments,
        }


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
    fingerprint: str,
    runtime: Runtime,
) -> Session:
    """Goes on from the newest sound checkpoint in `out`, or begins with `fresh_model()`; the optimizer is AdamW with
    `optimizer_options`.

    Sets torch's thread count, which belongs to what makes a run repeatable. Says so when the run that goes on will not be
    bit-exact. Raises ArtifactError when the checkpoint is of another recipe, or none is sound.
    """
    torch.set_num_threads(runtime.threads)
    device, say = runtime.device, runtime.say

    def make(model: Llama) -> torch.optim.Optimizer:
        return make_optimizer(model, **optimizer_options)

    now = environment(runtime.micro_batch_tokens, device)
    checkpoint = newest_valid_checkpoint(out / "checkpoints", say=say)
    monitor = Monitor(out)
    if checkpoint is None:
        monitor.rewind(-1)
        model = fresh_model().to(device)
        optimizer: torch.optim.Optimizer = make(model)
        progress, notes = Progress(), dict[str, Any]()
    else:
        if checkpoint.state["fingerprint"] != fingerprint:
            raise ArtifactError(
                f"{checkpoint.folder} belongs to fingerprint {checkpoint.state['fingerprint']}, this step has {fingerprint}.\n"
                f"  Remove {out} to begin anew, or restore the recipe that it was made with."
            )
        for change in environment_changes(checkpoint.state["environment"], now):
            say(f"Resuming with different {change}; the result will not be bit-identical to an unbroken run.")
        model, optimizer = load_checkpoint(checkpoint, make, device=device)
        progress, notes = Progress.from_json(checkpoint.state["progress"]), dict(checkpoint.state["notes"])
        set_damaged_aside(out / "checkpoints", newer_than=checkpoint.step)
        remove_leftovers(out / "checkpoints")
        num_cut = monitor.rewind(checkpoint.step)
        say(f"going on from {checkpoint.folder.name}; {num_cut} later lines of the diary will be made again")
    progress.start_in(now, checkpoint=None if checkpoint is None else checkpoint.folder.name)
    return Session(
        out=out,
        model=model,
        optimizer=optimizer,
        progress=progress,
        monitor=monitor,
        tokenizer_dir=tokenizer_dir,
        fingerprint=fingerprint,
        environment=now,
        runtime=runtime,
        notes=notes,
    )
