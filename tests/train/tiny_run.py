"""A training run small enough for tests: a tiny Llama on random documents, with a session folder around the loop.

As a program it trains the run in the folder it is given; with a step as second argument it kills itself with SIGKILL before the
batch of that step. The golden losses were made by

    python tests/train/tiny_run.py /tmp/golden && cp /tmp/golden/losses.json tests/train/golden_losses.json
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gristmill.model.config import LlamaConfig
from gristmill.model.transfer import on_device
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.jsonl import read_log
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.batch import Batch, positions_within
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer
from gristmill.train.checkpoints import Checkpoints
from gristmill.train.loop import Hook, Method, Progress, Watch, train
from gristmill.train.loss import LossOutput, next_token_loss
from gristmill.train.monitor import METRICS
from gristmill.train.runtime import Runtime
from gristmill.train.session import Session, open_session

END = 12
DOCUMENTS = 6
LOG_EVERY = 3
SAVE_EVERY = 4
MICRO_BATCH_TOKENS = 24
LOSS = partial(next_token_loss, source_names=("web", "code"))


def tiny_tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(["one two three four five six seven"] * 4, 276))


def tiny_model(seed: int = 0, vocab_size: int = 276) -> Llama:
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    return init_weights(Llama(config), seed)


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), fused=True)


def batch_at(step: int) -> Batch:
    """Six documents of 3 to 14 tokens from two sources; one target in four does not count."""
    random = np.random.default_rng(step)
    lengths = random.integers(3, 15, size=DOCUMENTS)
    ids = random.integers(0, 276, size=int(lengths.sum()) + 1)
    return Batch(
        tokens_N=ids[:-1],
        targets_N=ids[1:],
        positions_N=positions_within(lengths),
        document_lengths=lengths,
        loss_mask_N=(random.random(len(ids) - 1) < 0.75).astype(np.float32),
        source_N=np.repeat(np.arange(DOCUMENTS) % 2, lengths).astype(np.int16),
    )


def runtime(**others: Any) -> Runtime:
    return Runtime(**{"device": "cpu", "threads": 1, "micro_batch_tokens": MICRO_BATCH_TOKENS, **others})


def checkpoints_in(folder: Path, *, identity: str = "f", prefix: str = "p", run: str = "tiny") -> Checkpoints:
    """Checkpoints of a training that the same things shape at every step; the first one is a milestone."""
    store = Store(folder / "runs")
    return Checkpoints(
        step="pretrain",
        index=CheckpointIndex(store, "train"),
        run=RunLinks(store, run),
        identity=identity,
        prefix_at=lambda step: {"prefix": prefix, "step": step},
        milestones=(SAVE_EVERY,),
    )


def open_run(
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
    *,
    checkpoints: Checkpoints | None = None,
    out: str = "out",
    **circumstances: Any,
) -> Session:
    tokenizer_dir = folder / "tokenizer"
    if not tokenizer_dir.exists():
        tiny_tokenizer().save(tokenizer_dir)
    return open_session(
        folder / out,
        fresh_model=tiny_model,
        optimizer_options={"lr": 0.0},
        tokenizer_dir=tokenizer_dir,
        checkpoints=checkpoints or checkpoints_in(folder),
        runtime=runtime(say=say, **circumstances),
    )


def train_run(
    session: Session,
    *,
    batches: Callable[[int], Batch] = batch_at,
    save_every: int | None = SAVE_EVERY,
    log_every: int = LOG_EVERY,
    hooks: Sequence[Hook] = (),
    should_stop: Callable[[], bool] = lambda: False,
    end_step: int = END,
    loss_fn: Callable[[Any, Batch], LossOutput] = LOSS,
) -> Session:
    method = Method(
        batch_at=lambda progress: (batches(progress.step), progress.sample + DOCUMENTS),
        loss_fn=loss_fn,
        reports=("loss", "loss/web", "loss/code"),
        lr_at=lambda progress: 1e-2 * (1 - progress.step / 20),
        max_grad_norm=0.5,
    )
    watch = Watch(
        log_every=log_every,
        log=session.log,
        save=Hook(at=lambda step: save_every is not None and step % save_every == 0, run=session.save),
        hooks=hooks,
    )
    train(session, method, watch, end_step=end_step, runtime=runtime(should_stop=should_stop))
    return session


def copy(run: Path, to: Path) -> Path:
    """A run, or a folder of it, with its links as they are."""
    shutil.copytree(run, to, symlinks=True)
    return to


def measuring_hook(session: Session) -> Hook:
    """Reads the model every fourth step, uses the global random generator, writes to the diary."""

    def measure(progress: Progress) -> None:
        batch = batch_at(1000)
        tokens_N, positions_N = on_device([batch.tokens_N, batch.positions_N], session.model.device)
        x_ND = session.model.hidden(tokens_N, positions_N, batch.document_lengths.tolist())
        session.monitor.evaluation(
            progress.step, progress.tokens, {"eval/sum": float(session.model.logits(x_ND).sum())}
        )

    return Hook(at=lambda step: step % 4 == 0, run=measure)


def state_of(session: Session) -> dict[str, torch.Tensor]:
    """Weights and optimizer state, by name."""
    found = {name: value.detach().clone() for name, value in session.model.state_dict().items()}
    for name, parameter in session.model.named_parameters():
        for key, value in session.optimizer.state[parameter].items():
            found[f"{key}/{name}"] = value.clone()
    return found


def assert_identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"not bit-identical: {different}"


def die_before(step: int) -> Callable[[int], Batch]:
    def batches(number: int) -> Batch:
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch_at(number)

    return batches


def losses(session: Session) -> list[float]:
    """The loss of each step of a run that logged every step."""
    return [line["train/loss"] for line in read_log(session.out / METRICS) if line["kind"] == "train"]


if __name__ == "__main__":
    run = open_run(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        train_run(run, batches=die_before(int(sys.argv[2])), hooks=[measuring_hook(run)])
    train_run(run, log_every=1, save_every=None)
    Path(sys.argv[1], "losses.json").write_text(json.dumps(losses(run), indent=1) + "\n")
