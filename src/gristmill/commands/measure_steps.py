"""Real training steps of small shapes, timed: what `doctor` runs in a child process, because it imports torch.

    python -m gristmill.commands.measure_steps  < request.json      one JSON line about torch, then one for each shape

Request: {"shapes": [model keys, with vocab_size and seq_len], "threads": 2, "device": "auto", "tokens": 2048, "seconds": 5.0,
"is_busy": false}. Where other processes use the cores, one thread is timed by its CPU time instead.
Each line is written as soon as it is known, so a child that is stopped has still told what it measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from gristmill.model.compiled import compile_parts
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.planning.cost import flops_per_token
from gristmill.planning.speed import of_threads
from gristmill.recipe.schema.training import ModelSection
from gristmill.tokens.batch import Batch
from gristmill.train.loss import next_token_loss
from gristmill.train.optimizer import make_optimizer
from gristmill.train.optimizer_step import take_step

SPEEDS = ("tokens_per_second", "flops_per_second")


def main() -> None:
    """Read the request, measure, write."""
    request = json.load(sys.stdin)
    device = request["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    by_cpu_time = request["is_busy"] and device == "cpu"
    torch.set_num_threads(1 if by_cpu_time else request["threads"])
    options = {"device": device, "num_tokens": request["tokens"], "seconds": request["seconds"]}
    _write(
        device=device,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        instructions=torch.backends.cpu.get_cpu_capability(),
    )
    for shape in request["shapes"]:
        if by_cpu_time:
            of_one = measure(shape, **options, clock=time.process_time)
            speeds = {key: of_threads(of_one[key], request["threads"]) for key in SPEEDS}
            _write(**{**of_one, **speeds, "is_by_cpu_time": True})
        else:
            _write(**measure(shape, **options))


def measure(
    shape: dict[str, Any],
    *,
    device: str,
    num_tokens: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    micro_batch_tokens: int | None = None,
    recompute: bool = False,
    compiled: bool = False,
) -> dict[str, Any]:
    """One shape: parameters, tokens and operations per second of that clock (median step of at least two), and what the micro-batches
    were cut to, which is less than asked for where a device has too little memory."""
    keys = dict(shape)
    vocab_size, seq_len = keys.pop("vocab_size"), keys.pop("seq_len")
    section = ModelSection(**keys)
    config = LlamaConfig(
        **section.model_dump(), vocab_size=vocab_size, head_dim=section.hidden_size // section.num_attention_heads
    )
    model = init_weights(Llama(config), seed=0).to(device)
    model.recompute = recompute
    if compiled:
        compile_parts(model)
    step = partial(
        take_step,
        model,
        make_optimizer(model, lr=1e-4),
        _batch(vocab_size, seq_len, num_tokens),
        partial(next_token_loss, source_names=["text"]),
        lr=1e-4,
        max_grad_norm=1.0,
    )
    # The first one allocates the optimizer's state, and tells what fits.
    fits = step(micro_batch_tokens=micro_batch_tokens or num_tokens).micro_batch_tokens
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = clock()
        step(micro_batch_tokens=fits)  # ends with the gradient norm on the host, so the device is done
        times.append(clock() - start)
    tokens_per_second = num_tokens / float(np.median(times))
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seq_len": seq_len,
        "micro_batch_tokens": min(fits, num_tokens),
        "tokens_per_second": tokens_per_second,
        "flops_per_second": tokens_per_second * flops_per_token(section, vocab_size, seq_len),
    }


def _batch(vocab_size: int, seq_len: int, num_tokens: int) -> Batch:
    """Whole windows of random tokens."""
    tokens = np.random.default_rng(0).integers(0, vocab_size, num_tokens, dtype=np.int32)
    return Batch(
        tokens_N=tokens,
        targets_N=np.roll(tokens, -1),
        positions_N=np.arange(num_tokens, dtype=np.int32) % seq_len,
        document_lengths=np.full(num_tokens // seq_len, seq_len, dtype=np.int64),
        loss_mask_N=np.ones(num_tokens, dtype=np.float32),
        source_N=np.zeros(num_tokens, dtype=np.int16),
    )


def _write(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
