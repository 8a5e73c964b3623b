"""Peak memory that head and loss add, forward and backward: chunked against plain cross-entropy.

    python benchmarks/head_loss_memory.py [--quick]

Each is run in its own child process, because the peak of a process never falls. The figure is the growth of the peak
resident size over the process with inputs, weights and libraries already in memory; the gradients are part of it.
Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch.nn import functional

from gristmill.train.loss import chunked_cross_entropy


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def run_once(kind: str, tokens: int, vocabulary: int, hidden: int) -> float:
    """Loss of one forward and backward pass of head and loss."""
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(tokens, hidden, generator=generator, requires_grad=True)
    weight_VD = torch.empty(vocabulary, hidden).normal_(0.0, 0.04, generator=generator).requires_grad_()
    targets_N = torch.randint(0, vocabulary, (tokens,), generator=generator)
    if kind == "chunked":
        loss, _ = chunked_cross_entropy(x_ND, weight_VD, targets_N, torch.ones(tokens))
    else:
        loss = functional.cross_entropy(x_ND @ weight_VD.T, targets_N, reduction="sum")
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()) / tokens


def child(kind: str, tokens: int, vocabulary: int, hidden: int) -> None:
    run_once(kind, 8, 64, hidden)  # loads the libraries
    inputs_mib = (tokens + vocabulary) * hidden * 4 / 2**20
    before, start = peak_mib(), time.perf_counter()
    loss = run_once(kind, tokens, vocabulary, hidden)
    seconds = time.perf_counter() - start
    print(json.dumps({"peak_mib": peak_mib() - before - inputs_mib, "seconds": seconds, "loss": loss}))


def measure(kind: str, tokens: int, vocabulary: int, hidden: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", kind, *map(str, ("--tokens", tokens, "--vocabulary", vocabulary))]
    done = subprocess.run([*command, "--hidden", str(hidden)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the tokens: checks that it runs")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--child", choices=["chunked", "plain"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tokens = arguments.tokens // 4 if arguments.quick else arguments.tokens
    if arguments.child:
        child(arguments.child, arguments.tokens, arguments.vocabulary, arguments.hidden)
        return
    chunked, plain = (measure(kind, tokens, arguments.vocabulary, arguments.hidden) for kind in ("chunked", "plain"))
    result = {
        "benchmark": "head_loss_memory",
        "tokens": tokens,
        "vocabulary": arguments.vocabulary,
        "hidden": arguments.hidden,
        "chunked_peak_mib": round(chunked["peak_mib"]),
        "plain_peak_mib": round(plain["peak_mib"]),
        "chunked_seconds": round(chunked["seconds"], 2),
        "plain_seconds": round(plain["seconds"], 2),
        "loss": [round(chunked["loss"], 5), round(plain["loss"], 5)],
        "target": "chunked_peak_mib <= 1024",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
