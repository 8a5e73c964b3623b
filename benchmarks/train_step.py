"""One optimizer step of ours against LlamaForCausalLM in a plain loop, alternating in one process.

    python benchmarks/train_step.py [--shape 1.6M 5.8M 32M] [--threads 1 2] [--quick]

Both train the same model on the same windows: ours with gristmill's model, chunked loss, norm and clipping, the peer with
transformers' model, F.cross_entropy, torch's clipping and AdamW. First without document boundaries, which is what the plain loop does;
then, only ours, with several documents in each window (a shape the plain loop does not handle). The ratio is peer seconds / our seconds,
pair by pair: above 1, ours is faster. The share of the peak is the operations of our step, counted as `plan` counts them, over those that
large matrix products do in the same time, measured between the pairs. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from model_shapes import SHAPES, config_of, section_of
from torch.nn import functional
from transformers import LlamaConfig as PeerConfig
from transformers import LlamaForCausalLM

from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.planning.cost import flops_per_token
from gristmill.tokens.batch import Batch, positions_within
from gristmill.train.loss import next_token_loss
from gristmill.train.optimizer import clip_, make_optimizer

MATMUL = 1536  # rows and columns of the products that the peak is measured with; larger ones are not faster here


def make_batch(lengths: list[int], vocab_size: int) -> Batch:
    total = sum(lengths)
    tokens = np.random.default_rng(0).integers(0, vocab_size, total + 1, dtype=np.int32)
    document_lengths = np.array(lengths, dtype=np.int64)
    return Batch(
        tokens_N=tokens[:-1],
        targets_N=tokens[1:],
        positions_N=positions_within(document_lengths),
        document_lengths=document_lengths,
        loss_mask_N=np.ones(total, dtype=np.float32),
        source_N=np.zeros(total, dtype=np.int16),
    )


def cut_windows(windows: int, window: int) -> list[int]:
    """Windows cut into documents of 30 to 150 tokens, as short texts would."""
    rng, lengths = np.random.default_rng(1), []
    for _ in range(windows):
        left = window
        while left:
            lengths.append(min(left, int(rng.integers(30, 150))))
            left -= lengths[-1]
    return lengths


def our_step(config: LlamaConfig, batch: Batch) -> Callable[[], float]:
    model = init_weights(Llama(config), 0)
    optimizer = make_optimizer(model, lr=1e-3)

    def step() -> float:
        output = next_token_loss(model, batch, ["text"])
        (output.loss_sum / batch.num_units).backward()
        clip_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return output.sums["loss"][0] / batch.num_units

    return step


def peer_step(config: LlamaConfig, batch: Batch, window: int) -> Callable[[], float]:
    settings = {key: value for key, value in config.to_dict().items() if key not in ("architectures", "model_type")}
    model = LlamaForCausalLM(PeerConfig(**settings))
    model.load_state_dict(init_weights(Llama(config), 0).state_dict(), strict=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    tokens = torch.from_numpy(batch.tokens_N).long().view(-1, window)
    targets = torch.from_numpy(batch.targets_N).long()

    def step() -> float:
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def seconds(step: Callable[[], float]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def matmul_flops(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
    """Operations per second of one large matrix product."""
    return 2.0 * MATMUL**3 / seconds(lambda: float(torch.mm(left, right, out=out)[0, 0]))


def measure(shape: str, windows: int, window: int, pairs: int, warmups: int) -> dict[str, Any]:
    """Medians over the pairs, for the number of threads that is set."""
    config = config_of(shape, window)
    whole = make_batch([window] * windows, config.vocab_size)
    cut = make_batch(cut_windows(windows, window), config.vocab_size)
    ours, peer, ours_cut = our_step(config, whole), peer_step(config, whole, window), our_step(config, cut)
    left, right, out = torch.rand(MATMUL, MATMUL), torch.rand(MATMUL, MATMUL), torch.empty(MATMUL, MATMUL)
    first = (ours(), peer())
    for _ in range(warmups):
        ours(), peer(), ours_cut(), matmul_flops(left, right, out)

    times: dict[str, list[float]] = {"ours": [], "peer": [], "ours_with_documents": []}
    peaks = []
    for pair in range(pairs):
        order = [("ours", ours), ("peer", peer)]
        for name, step in order if pair % 2 else reversed(order):
            times[name].append(seconds(step))
        times["ours_with_documents"].append(seconds(ours_cut))
        peaks.append(matmul_flops(left, right, out))

    ratios = [theirs / mine for theirs, mine in zip(times["peer"], times["ours"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    tokens = whole.num_tokens
    own_flops = (
        tokens
        * flops_per_token(section_of(shape, window), config.vocab_size, window)
        / statistics.median(times["ours"])
    )
    return {
        "shape": shape,
        "parameters": sum(parameter.numel() for parameter in Llama(config).parameters()),
        "threads": torch.get_num_threads(),
        "tokens_per_step": tokens,
        "documents_in_cut_batch": len(cut.document_lengths),
        "pairs": pairs,
        "loss_of_first_step": [round(float(value), 5) for value in first],
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(quartiles[0], 3), round(quartiles[2], 3)],
        "share_of_matmul_peak": round(own_flops / statistics.median(peaks), 3),
        "tokens_per_second": {name: round(tokens / statistics.median(values)) for name, values in times.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pairs: checks that it runs, not a figure to report")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["1.6M", "5.8M", "32M"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--window", type=int, default=256)
    arguments = parser.parse_args()
    pairs, warmups = (4, 1) if arguments.quick else (arguments.pairs, 3)

    if (
        len(arguments.shape) * len(arguments.threads) > 1
    ):  # each in a process of its own, whose memory no other model has cut up
        rest = ["--windows", str(arguments.windows), "--window", str(arguments.window), "--pairs", str(pairs)]
        found = [
            in_own_process(["--shape", shape, "--threads", str(threads), *rest])
            for shape in arguments.shape
            for threads in arguments.threads
        ]
        print(json.dumps({"benchmark": "train_step", "found": found, "target": "ratio_median >= 1.1"}))
        return
    [shape], [threads] = arguments.shape, arguments.threads
    torch.set_num_threads(threads)
    print(json.dumps(measure(shape, arguments.windows, arguments.window, pairs, warmups)))


def in_own_process(options: list[str]) -> dict[str, Any]:
    """What a process of this script found; also as a line for who waits."""
    answer = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    low, high = row["ratio_quartiles"]
    print(
        f"{row['shape']:>5}, threads {row['threads']}: peer / ours {row['ratio_median']:.3f} (quartiles {low:.3f} to {high:.3f}), "
        f"{row['share_of_matmul_peak']:.2f} of the matmul peak, {row['tokens_per_second']} tokens/s",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
