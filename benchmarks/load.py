"""Training steps beside a process that keeps one core busy: two threads, one thread, and threads that follow the load.

    python benchmarks/load.py [--seconds 60] [--quick]

Each way trains the quickstart's model in a process of its own: a third of the time alone, a third beside a busy process pinned
to one core, a third alone again. The busy process runs this file too. Figures mean something on cores that are otherwise idle, so
the load of the minute before is printed. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time

import psutil
import torch
from model_shapes import config_of, vocabulary_of
from train_step import make_batch, our_step

from gristmill.graph.machine import usable_cpus
from gristmill.train.threads import ThreadChoice

WAYS = ("all", "one", "auto")
PHASES = ("alone", "beside a busy process", "alone again")
SHAPE, WINDOWS, WINDOW = "1.6M", 8, 256


def keep_busy(seconds: float) -> None:
    """Computes on one core."""
    process = psutil.Process()
    process.cpu_affinity(process.cpu_affinity()[:1])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(10_000))


def train(way: str, seconds: float) -> list[dict[str, float]]:
    """Steps for so long, with their phase, threads and tokens per second."""
    choice = ThreadChoice(most=1 if way == "one" else usable_cpus(), may_change=way == "auto")
    torch.set_num_threads(choice.threads)
    step = our_step(
        config_of(SHAPE, WINDOW),
        make_batch([WINDOW] * WINDOWS, vocabulary_of(SHAPE)),
    )
    step()
    found: list[dict[str, float]] = []
    start, busy, phase = time.monotonic(), None, 0
    while (now := time.monotonic() - start) < seconds:
        phase = int(len(PHASES) * now / seconds)
        if phase == 1 and busy is None:
            busy = subprocess.Popen([sys.executable, __file__, "--busy", str(seconds / len(PHASES))])
        began, cpu_began = time.perf_counter(), time.process_time()
        step()
        took = time.perf_counter() - began
        found.append({"phase": phase, "threads": choice.threads, "seconds": took, "at": now})
        choice.after_step(WINDOWS * WINDOW, took, time.process_time() - cpu_began)
        torch.set_num_threads(choice.threads)
    if busy is not None:
        busy.wait()
    return found


def summary(steps: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """By phase: tokens per second of all steps and of the median step, the threads at the end, and the changes."""
    found = {}
    for number, name in enumerate(PHASES):
        own = [step for step in steps if step["phase"] == number]
        took = [step["seconds"] for step in own]
        threads = [int(step["threads"]) for step in own]
        found[name] = {
            "tokens_per_second": round(len(own) * WINDOWS * WINDOW / sum(took)) if own else 0,
            "median": round(WINDOWS * WINDOW / statistics.median(took)) if own else 0,
            "threads_at_end": threads[-1] if own else 0,
            "changes": sum(a != b for a, b in itertools.pairwise(threads)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="of each way")
    parser.add_argument("--quick", action="store_true", help="a few steps: checks that it runs, not a figure to report")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--busy", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.busy is not None:
        keep_busy(arguments.busy)
        return
    seconds = 6.0 if arguments.quick else arguments.seconds
    if arguments.way is not None:
        print(json.dumps(summary(train(arguments.way, seconds))))
        return
    result: dict[str, object] = {
        "benchmark": "load",
        "cores": usable_cpus(),
        "load_before": round(os.getloadavg()[0], 2),
        "tokens_per_step": WINDOWS * WINDOW,
    }
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--seconds", str(seconds)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result[way] = json.loads(answer.stdout.splitlines()[-1])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
