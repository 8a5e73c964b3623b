"""Saving a checkpoint against writing and flushing the same bytes, and resuming from one against loading its two tensor files.

    python benchmarks/checkpoints.py [--quick] [--folder /a/disk]

Save: `Session.save` as the loop calls it, hashes, manifest, rename and links included; the peer writes the tensors' memory to files of
the same sizes, one after the other, with an fsync each. Resume: `open_session`, which finds the checkpoint, checks every hash and ends
before the first step; the peer reads both files with safetensors into memory of its own, as a model and the moments of an optimizer; cold
with nothing of them in the page cache, as after a restart, and warm. By turns in one process. The ratio is ours / peer, the median over
rounds: at most 1.3 for saving and 1.5 for resuming is asked for. Prints how it grows with size, and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from model_shapes import SHAPES, config_of
from safetensors.torch import load_file

from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer
from gristmill.train.checkpoint import MOMENTS, OPTIMIZER, optimizer_tensors
from gristmill.train.checkpoints import Checkpoints
from gristmill.train.optimizer import make_optimizer
from gristmill.train.runtime import Runtime
from gristmill.train.session import Session, open_session

PAIRS = (("save", "plain save"), ("cold resume", "plain cold load"), ("resume", "plain load"))
OPTIMIZER_OPTIONS = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "decay_embeddings": False}


def opened(name: str, folder: Path) -> Session:
    return open_session(
        folder / "out",
        fresh_model=lambda: init_weights(Llama(config_of(name, 2048)), 0),
        optimizer_options=OPTIMIZER_OPTIONS,
        tokenizer_dir=folder / "tokenizer",
        checkpoints=Checkpoints(
            step="pretrain",
            index=CheckpointIndex(Store(folder / "runs"), "pretrain"),
            run=RunLinks(Store(folder / "runs"), "benchmark"),
            identity="0" * 32,
            prefix_at=lambda step: {"step": step},
        ),
        runtime=Runtime(device="cpu", threads=torch.get_num_threads(), micro_batch_tokens=2048),
    )


def take_a_step(session: Session) -> None:
    """Moments as a step leaves them."""
    for parameter in session.model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    session.optimizer.step()
    session.optimizer.zero_grad(set_to_none=True)


def write_plainly(session: Session, folder: Path) -> None:
    """The same tensors, in two files."""
    folder.mkdir()
    for name, tensors in (
        ("model", session.model.state_dict()),
        ("optimizer", optimizer_tensors(session.model, session.optimizer)),
    ):
        with (folder / name).open("wb") as file:
            for tensor in tensors.values():
                file.write(tensor.detach().numpy().data)
            file.flush()
            os.fsync(file.fileno())


def load_plainly(name: str, checkpoint: Path) -> None:
    """Model and optimizer, as a loop without checks would."""
    with torch.device("meta"):
        model = Llama(config_of(name, 2048))
    weights = load_file(checkpoint / "model.safetensors")
    model.load_state_dict({key: value.clone() for key, value in weights.items()}, assign=True)
    optimizer = make_optimizer(model, **OPTIMIZER_OPTIONS)
    moments = load_file(checkpoint / OPTIMIZER)
    for key, parameter in model.named_parameters():
        optimizer.state[parameter] = {kind: moments[f"{kind}/{key}"].clone() for kind in MOMENTS}


def forget(folder: Path) -> None:
    """Nothing of the folder's files stays in the page cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(name: str, folder: Path, rounds: int) -> dict[str, float]:
    """Medians over the rounds."""
    Tokenizer(train_tokenizer(["one two three four five six seven"] * 4, 276)).save(folder / "tokenizer")
    session = opened(name, folder)
    take_a_step(session)
    seconds: dict[str, list[float]] = {way: [] for pair in PAIRS for way in pair}
    for number in range(1, rounds + 1):
        session.progress.step = number
        os.sync()  # neither waits for what the other left
        seconds["plain save"].append(seconds_of(lambda: write_plainly(session, folder / "plain")))
        shutil.rmtree(folder / "plain")
        os.sync()
        seconds["save"].append(seconds_of(lambda: session.save(session.progress)))
    newest = session.checkpoints.kept()[0].folder
    for _ in range(rounds):
        forget(newest)
        seconds["plain cold load"].append(seconds_of(lambda: load_plainly(name, newest)))
        seconds["plain load"].append(seconds_of(lambda: load_plainly(name, newest)))
        forget(newest)
        seconds["cold resume"].append(seconds_of(lambda: opened(name, folder)))
        seconds["resume"].append(seconds_of(lambda: opened(name, folder)))
    found = {way: statistics.median(values) for way, values in seconds.items()}
    for way, peer in PAIRS:
        ratios = [ours / theirs for ours, theirs in zip(seconds[way], seconds[peer], strict=True)]
        found[f"{way} ratio"] = statistics.median(ratios)
    return {"bytes": sum(path.stat().st_size for path in newest.iterdir()), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the two small shapes, 3 rounds instead of 7")
    parser.add_argument("--folder", type=Path, help="where to write; otherwise the folder for temporary files")
    arguments = parser.parse_args()
    found = {}
    print(f"{'':>6} {'MB':>7} " + " ".join(f"{way:>12} {'plain':>7} {'ratio':>5}" for way, _ in PAIRS))
    for name in list(SHAPES)[:2] if arguments.quick else SHAPES:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            row = found[name] = measure(name, Path(folder), 3 if arguments.quick else 7)
        columns = [f"{row[way]:>11.3f}s {row[peer]:>6.3f}s {row[f'{way} ratio']:>5.2f}" for way, peer in PAIRS]
        print(f"{name:>6} {row['bytes'] / 1e6:>7.1f} {' '.join(columns)}")
    print(json.dumps({"benchmark": "checkpoints", "threads": torch.get_num_threads(), "found": found}))


if __name__ == "__main__":
    main()
