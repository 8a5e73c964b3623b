"""Peak memory of real training steps, each configuration in a fresh process, against what `plan` says of it.

    python benchmarks/training_memory.py [--quick]

A child imports what a pretraining imports, makes the model and AdamW, and takes three steps of the real loop on random tokens,
in documents of several lengths. The peak is the high-water mark of resident memory, which begins at zero with the process. The
table compares it with `gristmill.planning.cost.step_memory`. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
from model_shapes import section_of, vocabulary_of

from gristmill.planning.cost import count_parameters, step_memory

STEPS = 3
CONFIGURATIONS = (  # shape, seq_len, micro-batch, micro-batches in a step
    ("1.6M", 256, 2048, 1),
    ("1.6M", 1024, 2048, 4),
    ("1.6M", 512, 8192, 1),
    ("1.6M", 2048, 16_384, 1),
    ("5.8M", 256, 2048, 1),
    ("5.8M", 512, 4096, 2),
    ("5.8M", 2048, 8192, 1),
    ("5.8M", 1024, 16_384, 1),
    ("32M", 256, 2048, 1),
    ("32M", 512, 2048, 2),
    ("32M", 1024, 4096, 1),
    ("32M", 2048, 8192, 1),
)
QUICK = CONFIGURATIONS[:1]


def peak_bytes() -> int:
    """High-water mark of this process; getrusage would begin with the parent's."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def train(shape: str, seq_len: int, micro_batch_tokens: int, micro_batches: int, threads: int) -> int:
    """Peak bytes of this process after three steps."""
    importlib.import_module("gristmill.runner")
    importlib.import_module("gristmill.train.pretrain")
    import torch

    from gristmill.model.config import LlamaConfig
    from gristmill.model.transformer import Llama
    from gristmill.model.weights import init_weights
    from gristmill.tokens.batch import Batch, positions_within
    from gristmill.train.loss import next_token_loss
    from gristmill.train.optimizer import make_optimizer
    from gristmill.train.optimizer_step import take_step

    torch.set_num_threads(threads)
    vocab_size, model = vocabulary_of(shape), section_of(shape, seq_len)
    head_dim = model.hidden_size // model.num_attention_heads
    config = LlamaConfig(**model.model_dump(), vocab_size=vocab_size, head_dim=head_dim)
    llama = init_weights(Llama(config), 0)
    count = micro_batch_tokens * micro_batches
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, vocab_size, count + 1, dtype=np.int32)
    lengths = np.array(documents(generator, windows=count // seq_len, seq_len=seq_len))
    batch = Batch(
        tokens_N=tokens[:-1],
        targets_N=tokens[1:],
        positions_N=positions_within(lengths),
        document_lengths=lengths,
        loss_mask_N=np.ones(count, dtype=np.float32),
        source_N=np.zeros(count, dtype=np.int16),
    )
    step = partial(
        take_step, llama, make_optimizer(llama, lr=1e-4), batch, partial(next_token_loss, source_names=["text"])
    )
    for _ in range(STEPS):
        step(lr=1e-4, micro_batch_tokens=micro_batch_tokens, max_grad_norm=1.0)
    return peak_bytes()


def documents(generator: np.random.Generator, *, windows: int, seq_len: int) -> list[int]:
    """Each window is cut once, somewhere: documents of all lengths, and every micro-batch full."""
    cuts = generator.integers(1, seq_len, windows).tolist()
    return [length for cut in cuts for length in (cut, seq_len - cut)]


def measure(
    shape: str, seq_len: int, micro_batch_tokens: int, micro_batches: int, *, threads: int = 1
) -> dict[str, Any]:
    """One configuration in a fresh process: bytes measured, bytes planned."""
    arguments = map(str, (shape, seq_len, micro_batch_tokens, micro_batches, threads))
    done = subprocess.run([sys.executable, __file__, "--child", *arguments], check=True, capture_output=True, text=True)
    measured = int(done.stdout.splitlines()[-1])
    model, vocab_size = section_of(shape, seq_len), vocabulary_of(shape)
    planned = step_memory(model, vocab_size, tokens=micro_batch_tokens, accumulates=micro_batches > 1).total
    return {
        "parameters": count_parameters(model, vocab_size),
        "seq_len": seq_len,
        "micro_batch_tokens": micro_batch_tokens,
        "micro_batches": micro_batches,
        "measured_bytes": measured,
        "planned_bytes": planned,
        "ratio": round(planned / measured, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest configuration alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        shape, *numbers = arguments.child
        print(train(shape, *map(int, numbers)))
        return
    print(
        "| parameters | context | micro-batch | micro-batches | measured, MB | planned, MB | ratio |\n|---|---|---|---|---|---|---|"
    )
    rows = []
    for configuration in QUICK if arguments.quick else CONFIGURATIONS:
        row = measure(*configuration, threads=arguments.threads)
        rows.append(row)
        print(
            f"| {row['parameters'] / 1e6:.1f}M | {row['seq_len']:,} | {row['micro_batch_tokens']:,} | {row['micro_batches']} | "
            f"{row['measured_bytes'] / 1e6:,.0f} | {row['planned_bytes'] / 1e6:,.0f} | {row['ratio']:.2f} |",
            flush=True,
        )
    ratios = [row["ratio"] for row in rows]
    result = {
        "benchmark": "training_memory",
        "threads": arguments.threads,
        "ratio_least_to_most": [min(ratios), max(ratios)],
        "configurations": rows,
        "target": "every ratio of planned over measured from 0.8 to 1.2",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
