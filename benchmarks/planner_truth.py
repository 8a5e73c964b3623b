"""What `plan` says of training at three sizes, by a profile of other sizes, against what is then measured: tokens/s and peak memory.

    python benchmarks/planner_truth.py [--threads 1] [--seconds 4] [--quick]

The profile is `doctor`'s: real steps of its shapes, of which those within a fifth of the judged size are left out. The judged steps are
real ones too, at other context lengths and micro-batches, in turns with the profile so that a slow minute meets both. On busy cores one
thread is timed by its CPU time on either side. Memory is that of `training_memory.py`: a fresh process for each. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median
from typing import Any

from model_shapes import section_of, vocabulary_of
from training_memory import measure

from gristmill.commands import doctor
from gristmill.graph.cores import NOTABLE, busy_cores
from gristmill.planning.cost import count_parameters, flops_per_token
from gristmill.planning.speed import SpeedPoint, guessed_speed, measure_matmul, training_speed

JUDGED = (("1.6M", 256, 2048), ("5.8M", 512, 4096), ("32M", 1024, 4096))  # shape, context, micro-batch
NEAR = 0.2  # a profile's size that is this near to the judged one is left out
ROUNDS = 3


def judged_shape(name: str, seq_len: int) -> dict[str, Any]:
    """The shape as measure_steps takes it."""
    return {**section_of(name, seq_len).model_dump(), "vocab_size": vocabulary_of(name), "seq_len": seq_len}


def steps(
    shapes: list[dict[str, Any]], tokens: int, *, threads: int, seconds: float, is_busy: bool
) -> list[dict[str, Any]]:
    """What measure_steps says of these shapes, in a fresh process."""
    request = {
        "shapes": shapes,
        "threads": threads,
        "device": "cpu",
        "tokens": tokens,
        "seconds": seconds,
        "is_busy": is_busy,
    }
    done = subprocess.run(
        [sys.executable, "-m", "gristmill.commands.measure_steps"],
        input=json.dumps(request),
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()[1:]]


def as_point(found: list[dict[str, Any]]) -> SpeedPoint:
    """The median of several measurements of one shape."""
    speeds = {key: median(one[key] for one in found) for key in ("tokens_per_second", "flops_per_second")}
    return SpeedPoint(**{**found[0], **speeds, "measured_by": "doctor"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="of steps of one shape in one round")
    parser.add_argument("--quick", action="store_true", help="the smallest size, one round")
    arguments = parser.parse_args()
    judged = JUDGED[:1] if arguments.quick else JUDGED
    is_busy = (busy_cores() or 0.0) >= NOTABLE
    options = {"threads": arguments.threads, "seconds": arguments.seconds, "is_busy": is_busy}
    profile: dict[int, list[dict[str, Any]]] = {}
    measured: dict[str, list[dict[str, Any]]] = {}
    for _ in range(1 if arguments.quick else ROUNDS):
        for found in steps(list(doctor.SHAPES), doctor.STEP_TOKENS, **options):
            profile.setdefault(found["parameters"], []).append(found)
        for name, seq_len, tokens in judged:
            measured.setdefault(name, []).extend(steps([judged_shape(name, seq_len)], tokens, **options))
    points, matmul = [as_point(found) for found in profile.values()], measure_matmul()
    print(
        "| parameters | context | micro-batch | tokens/s measured | planned | ratio | planned without a profile | ratio | MB measured | planned | ratio |"
    )
    print("|---" * 11 + "|")
    rows = []
    for name, seq_len, tokens in judged:
        shape, vocab_size = section_of(name, seq_len), vocabulary_of(name)
        parameters, per_token = count_parameters(shape, vocab_size), flops_per_token(shape, vocab_size, seq_len)
        others = [point for point in points if abs(point.parameters / parameters - 1) > NEAR]
        speed = as_point(measured[name]).tokens_per_second
        planned = training_speed(parameters, others).flops_per_second / per_token
        guessed = guessed_speed(parameters, matmul, arguments.threads).flops_per_second / per_token
        memory = measure(name, seq_len, tokens, 1)
        row = {
            "parameters": parameters,
            "profile": [point.parameters for point in others],
            "tokens_per_second": speed,
            "planned_tokens_per_second": planned,
            "ratio": round(planned / speed, 3),
            "ratio_without_profile": round(guessed / speed, 3),
            "memory_ratio": memory["ratio"],
        }
        rows.append(row)
        print(
            f"| {parameters / 1e6:.1f}M | {seq_len:,} | {tokens:,} | {speed:,.0f} | {planned:,.0f} | {row['ratio']:.2f} | {guessed:,.0f} | "
            f"{row['ratio_without_profile']:.2f} | {memory['measured_bytes'] / 1e6:,.0f} | {memory['planned_bytes'] / 1e6:,.0f} | "
            f"{memory['ratio']:.2f} |",
            flush=True,
        )
    print(
        json.dumps(
            {
                "benchmark": "planner_truth",
                "threads": arguments.threads,
                "by_cpu_time": is_busy,
                "rows": rows,
                "target": "ratios of planned over measured tokens/s and memory from 0.8 to 1.2",
            }
        )
    )


if __name__ == "__main__":
    main()
