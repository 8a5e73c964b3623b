"""Training steps by two ranks of one thread against one process of two threads, and of one, by turns; optionally beside a process that
keeps a core busy.

    python benchmarks/ranks.py [--quick] [--busy]

Each turn starts the ranks as a run does and takes steps of 8,192 tokens on a 5M-parameter model; the first two do not count. The ratio is
tokens per second over those of one process of two threads in the same turn: above 1, ranks are faster. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gristmill.graph.machine import Machine
from gristmill.graph.progress import unreported
from gristmill.graph.ranks import cut
from gristmill.graph.step import StepContext, Watching
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.batch import Batch, positions_within
from gristmill.train.loss import next_token_loss, reports
from gristmill.train.optimizer import make_optimizer
from gristmill.train.optimizer_step import take_step
from gristmill.train.ranks.launch import run_on_ranks

SEQ_LEN, NOT_COUNTED = 512, 2
SHAPE = LlamaConfig(
    vocab_size=4096,
    hidden_size=224,
    intermediate_size=608,
    num_hidden_layers=8,
    num_attention_heads=7,
    num_key_value_heads=7,
    head_dim=32,
    max_position_embeddings=SEQ_LEN,
)
CASES = {"two ranks": (2, 1), "two threads": (1, 2), "one thread": (1, 1)}  # (ranks, threads)


def run(ctx: StepContext) -> dict[str, Any]:
    """What each rank does: so many steps, timed."""
    torch.set_num_threads(ctx.config["threads"])
    model = init_weights(Llama(SHAPE), 0)
    ctx.ranks.shard(model)
    optimizer = make_optimizer(model, lr=1e-4)
    sequences = ctx.config["sequences"]
    own = range(sequences)[cut(sequences, ctx.ranks)]
    seconds = []
    for step in range(ctx.config["steps"] + NOT_COUNTED):
        batch = _batch(len(own), seed=step * sequences + own.start)
        started = time.perf_counter()
        take_step(
            model,
            optimizer,
            batch,
            partial(next_token_loss, source_names=("random",)),
            lr=1e-4,
            micro_batch_tokens=4 * SEQ_LEN,
            max_grad_norm=1.0,
            ranks=ctx.ranks,
            reports=reports(("random",)),
        )
        seconds.append(time.perf_counter() - started)
    return {"tokens_per_second": sequences * SEQ_LEN / statistics.median(seconds[NOT_COUNTED:])}


def _batch(sequences: int, *, seed: int) -> Batch:
    lengths = np.full(sequences, SEQ_LEN)
    tokens = np.random.default_rng(seed).integers(0, SHAPE.vocab_size, sequences * SEQ_LEN + 1, dtype=np.int32)
    return Batch(
        tokens_N=tokens[:-1],
        targets_N=tokens[1:],
        positions_N=positions_within(lengths),
        document_lengths=lengths,
        loss_mask_N=np.ones(len(tokens) - 1, dtype=np.float32),
        source_N=np.zeros(len(tokens) - 1, dtype=np.int16),
    )


def measure(ranks: int, threads: int, *, steps: int, sequences: int) -> float:
    """Tokens per second."""
    with tempfile.TemporaryDirectory() as folder:
        nothing = Watching(config={}, inputs={}, files={})
        ctx = StepContext(
            name="benchmark", identity="0", config={"threads": threads, "steps": steps, "sequences": sequences}, inputs={}, files={}, watching=nothing,
            out=Path(folder), machine=Machine(ranks=ranks, device="cpu"), run=RunLinks(Store(Path(folder)), "benchmark"),
            say=print, progress=unreported, should_stop=lambda: False,
        )  # fmt: skip
        return float(run_on_ranks("ranks", ctx)["tokens_per_second"])


@contextlib.contextmanager
def busy_core(is_wanted: bool) -> Iterator[None]:
    """Another process that takes a core, inside the block."""
    if not is_wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            yield
        finally:
            child.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one turn of few steps of 2,048 tokens")
    parser.add_argument("--busy", action="store_true", help="beside a process that keeps a core busy")
    asked = parser.parse_args()
    turns, steps, sequences = (1, 3, 4) if asked.quick else (5, 20, 16)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    speeds: dict[str, list[float]] = {name: [] for name in CASES}
    with busy_core(asked.busy):
        for turn in range(turns):
            for name, (ranks, threads) in CASES.items():
                speeds[name].append(measure(ranks, threads, steps=steps, sequences=sequences))
                print(f"turn {turn + 1}: {name:<12} {speeds[name][-1]:9,.0f} tokens/s", flush=True)
    ratios = {
        name: [round(a / b, 3) for a, b in zip(found, speeds["two threads"], strict=True)]
        for name, found in speeds.items()
        if name != "two threads"
    }
    for name, found in ratios.items():
        print(f"{name} over two threads: median {statistics.median(found):.2f} ({min(found)} to {max(found)})")
    print(json.dumps({"busy": asked.busy, "tokens_per_second": speeds, "ratios": ratios}))


if __name__ == "__main__":
    main()
