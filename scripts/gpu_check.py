#!/usr/bin/env python3
"""Everything that only a GPU can show, in ten minutes, on one page: the tests marked `gpu`, the quickstart trained, stopped and resumed,
speed, share of the peak and memory of two sizes.

    python scripts/gpu_check.py                     prints the page; --out FILE also writes it. Exit code 0 when all parts passed
    python scripts/gpu_check.py --device cpu        a rehearsal: the same parts on a processor, small, which show that this script works

Each part runs in processes of its own with an end to its time, so that one that fails or hangs leaves the others their turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gristmill.planning.devices import DEVICES, DeviceType
from gristmill.planning.fleet import device_memory
from gristmill.recipe.schema.training import ModelSection
from gristmill.units import in_units

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "train" / "test_gpu.py"
SECONDS = {"tests": 150.0, "quickstart": 220.0, "speed": 230.0}  # ten minutes together
POLL_SECONDS = 0.02
LAST_LINES = 12

SMOLLM2 = {"vocab_size": 49_152, "seq_len": 2048, "max_position_embeddings": 2048, "initializer_range": 0.02}
SHAPES: dict[str, dict[str, Any]] = {
    "135M": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, **SMOLLM2,
    },
    "1.7B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32, **SMOLLM2,
    },
    "rehearsal": {
        "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, **SMOLLM2,
        "vocab_size": 512, "seq_len": 64, "max_position_embeddings": 64,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the table of speeds: a shape, tokens of a step, and how it is computed."""

    shape: str
    tokens: int
    compiled: bool = False
    recompute: bool = False

    @property
    def how(self) -> str:
        """In words."""
        words = [word for word, is_so in (("compiled", self.compiled), ("recomputed", self.recompute)) if is_so]
        return ", ".join(words) or "plain"


MEASUREMENTS = (
    Measurement(shape="135M", tokens=65_536),
    Measurement(shape="135M", tokens=65_536, compiled=True),
    Measurement(shape="1.7B", tokens=16_384),
    Measurement(shape="1.7B", tokens=16_384, compiled=True),
    Measurement(shape="1.7B", tokens=32_768, recompute=True),
)
REHEARSED = (
    Measurement(shape="rehearsal", tokens=256),
    Measurement(shape="rehearsal", tokens=256, recompute=True),
    Measurement(shape="rehearsal", tokens=256, compiled=True),
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part of the page found: did it pass, one line about it, the lines under its title, its seconds."""

    name: str
    passed: bool
    summary: str
    lines: Sequence[str]
    seconds: float


def main() -> int:
    """Runs the parts one after another and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="a file that takes the page too")
    parser.add_argument("--work", type=Path, help="a folder for the run, which stays; else a temporary one")
    parser.add_argument("--only", choices=tuple(SECONDS), action="append", help="this part; may be given several times")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(**json.loads(arguments.child))
        return 0
    device: str = arguments.device
    facts = about(device)
    if device == "cuda" and facts["GPU"] == "none":
        print("torch finds no GPU here. --device cpu rehearses this script on the processor.", file=sys.stderr)
        return 2
    wanted = arguments.only or [*SECONDS]
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        run: Mapping[str, Callable[[], Part]] = {
            "tests": lambda: tests(device, work),
            "quickstart": lambda: quickstart(device, work),
            "speed": lambda: speed(device, facts["GPU"], int(facts["memory in bytes"])),
        }
        parts = []
        for name in wanted:
            print(f"{name} …", file=sys.stderr, flush=True)
            parts.append(run[name]())
    text = page(facts, parts, device)
    print(text, end="")
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    return 0 if all(part.passed for part in parts) else 1


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def environment(**more: str) -> dict[str, str]:
    """Of the processes: this package, one place for what cuBLAS needs to add in one order."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **more}


def call(command: Sequence[str | Path], *, seconds: float, **more: str) -> tuple[int | None, str]:
    """(exit code, or None when its time was over; all that it wrote)."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**more),
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return None, output
    return process.returncode, output


def last_lines(output: str) -> list[str]:
    """The end of what a process wrote, as a block of code."""
    return ["```", *output.strip().splitlines()[-LAST_LINES:], "```"]


def about(device: str) -> dict[str, str]:
    """What is here, asked of torch in a process of its own: this one never holds memory of the device."""
    code = (
        "import json, torch\n"
        "gpu = torch.cuda.is_available()\n"
        "import importlib.util\n"
        "print(json.dumps({'torch': torch.__version__, 'CUDA': str(torch.version.cuda or 'none'),\n"
        " 'GPU': torch.cuda.get_device_name() if gpu else 'none',\n"
        " 'GPUs': str(torch.cuda.device_count()),\n"
        " 'memory in bytes': str(torch.cuda.mem_get_info()[1] if gpu else 0),\n"
        " 'compute capability': '.'.join(map(str, torch.cuda.get_device_capability())) if gpu else 'none',\n"
        " 'Triton': 'yes' if importlib.util.find_spec('triton') else 'no'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return {"device": device, "Python": platform.python_version(), "cores": str(os.cpu_count()), **found}


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def tests(device: str, work: Path) -> Part:
    """The tests marked `gpu`."""
    started = time.monotonic()
    results = work / "tests.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-m",
        "gpu",
        TESTS,
        f"--junitxml={results}",
        f"--rootdir={ROOT}",
    ]
    code, output = call(command, seconds=SECONDS["tests"], GRISTMILL_GPU_TESTS_ON=device)
    rows = outcomes(results) if results.is_file() else []
    failed = [name for name, outcome in rows if outcome == "failed"]
    skipped = [name for name, outcome in rows if outcome == "skipped"]
    passed = code == 0 and bool(rows) and (device == "cpu" or not skipped)
    lines = [f"- {outcome}: {in_words(name)}" for name, outcome in rows]
    return Part(
        name="tests",
        passed=passed,
        summary=f"{len(rows) - len(failed) - len(skipped)} passed, {len(failed)} failed, {len(skipped)} skipped"
        + ("" if code is not None else "; their time was over"),
        lines=lines if passed else [*lines, "", *last_lines(output)],
        seconds=time.monotonic() - started,
    )


def outcomes(results: Path) -> list[tuple[str, str]]:
    """(test, passed, failed or skipped) of a file in the form of JUnit."""
    found = []
    for case in ElementTree.parse(results).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found.append((case.attrib["name"], outcome))
    return found


def in_words(test: str) -> str:
    """A test's name as a sentence."""
    name, _, parameters = test.partition("[")
    return name.removeprefix("test_").replace("_", " ") + (f" ({parameters.removesuffix(']')})" if parameters else "")


def quickstart(device: str, work: Path) -> Part:
    """Trains the quickstart up to the end of pretraining, stopped by SIGTERM at its first checkpoint and resumed."""
    started = time.monotonic()
    recipe = ROOT / "recipes" / "quickstart.yaml" if device == "cuda" else small_recipe(work / "project")
    runs = work / "runs"
    command = [
        sys.executable,
        "-m",
        "gristmill",
        "run",
        recipe,
        "--until",
        "pretrain",
        "--runs-dir",
        runs,
        "--device",
        device,
    ]
    stopped, first = stopped_at_checkpoint(command, runs, seconds=SECONDS["quickstart"])
    left = SECONDS["quickstart"] - (time.monotonic() - started)
    code, second = call(command, seconds=max(1.0, left))
    folder = next(iter(runs.glob("*/pretrain")), None)
    log = [] if folder is None else [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in log if line["kind"] == "train"]
    resumed = re.search(r"Resuming from step ([\d,]+)", second)
    passed = code == 0 and stopped == 143 and resumed is not None and bool(trained)
    lines = [
        f"- stopped by SIGTERM at its first checkpoint: exit code {stopped}, 143 expected",
        f"- run again: exit code {code}, {'resumed from step ' + resumed[1] if resumed else 'did not resume'}",
    ]
    if trained:
        speeds = sorted(line["throughput/tok_per_sec"] for line in trained if "throughput/tok_per_sec" in line)
        lines += [
            f"- {trained[-1]['step']:,} steps, {trained[-1]['tokens']:,} tokens; loss {trained[0]['train/loss']:.3f} → {trained[-1]['train/loss']:.3f}",
            f"- {speeds[len(speeds) // 2]:,.0f} tokens/s in the middle one of its log lines",
        ]
    return Part(
        name="quickstart",
        passed=passed,
        summary="trained, stopped and resumed" if passed else "see below",
        lines=lines if passed else [*lines, "", *last_lines(first), *last_lines(second)],
        seconds=time.monotonic() - started,
    )


def stopped_at_checkpoint(command: Sequence[str | Path], runs: Path, *, seconds: float) -> tuple[int, str]:
    """(exit code, output) of a run that gets SIGTERM when its first checkpoint is there, or when its time is over."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, env=environment()
        )
        while (
            process.poll() is None
            and time.monotonic() < end
            and not any(runs.glob(".store/checkpoints/*/manifest.json"))
        ):
            time.sleep(POLL_SECONDS)
        process.terminate()
        code = process.wait()
        output.seek(0)
        return code, output.read()


def small_recipe(folder: Path) -> Path:
    """The quickstart, cut down to seconds: the project of the tests, its pretraining long enough to be stopped in."""
    sys.path.insert(0, str(ROOT / "tests" / "lifecycle"))
    import tiny

    folder.mkdir(parents=True, exist_ok=True)
    recipe = tiny.tiny_recipe()
    pretrain = recipe["pretrain"]
    for stage in pretrain["stages"]:
        stage["tokens"] *= 8
    pretrain["decay_tokens"] *= 8
    pretrain["allow_epochs"] = {name: {"max": 1000, "reason": "a rehearsal"} for name in tiny.SOURCES}
    path: Path = tiny.write_project(folder, recipe)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def speed(device: str, gpu: str, memory_bytes: int) -> Part:
    """Tokens per second, share of the peak and memory; each measurement in a process of its own, while there is time."""
    started = time.monotonic()
    peak = device_of(gpu, memory_bytes)
    lines = [
        "| shape | computed | tokens of a step | micro-batch | tokens/s | operations/s | of the peak | memory | planned |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    failed: list[str] = []
    wanted = MEASUREMENTS if device == "cuda" else REHEARSED
    done = 0
    for one in wanted:
        left = SECONDS["speed"] - (time.monotonic() - started)
        if left < 20:
            lines.append(f"| {one.shape} | {one.how} | {one.tokens:,} | no time was left | | | | | |")
            continue
        request = json.dumps({"shape": one.shape, "tokens": one.tokens, "device": device, "compiled": one.compiled,
                              "recompute": one.recompute})  # fmt: skip
        code, output = call([sys.executable, __file__, "--child", request], seconds=left)
        if code == 0:
            lines.append(row(one, json.loads(output.strip().splitlines()[-1]), peak))
            done += 1
        else:
            lines.append(
                f"| {one.shape} | {one.how} | {one.tokens:,} | {'failed' if code else 'no time was left'} | | | | | |"
            )
            if code:
                failed += [f"{one.shape}, {one.how}:", *last_lines(output)]
    named = "The peak is that of no device in the table of `plan --devices`." if peak is None else f"Peak: {peak}."
    return Part(
        name="speed",
        passed=not failed and done > 0,
        summary=f"{done} of {len(wanted)} measured",
        lines=[*lines, "", named, *failed],
        seconds=time.monotonic() - started,
    )


def row(one: Measurement, found: Mapping[str, Any], peak: DeviceType | None) -> str:
    """A line of the table."""
    share = "" if peak is None else f"{found['flops_per_second'] / peak.peak_flops:.1%}"
    measured = in_units(found["peak_bytes"], "B") if found["peak_bytes"] else ""
    return (
        f"| {one.shape} ({in_units(found['parameters'], '')}) | {one.how} | {one.tokens:,} | {found['micro_batch_tokens']:,} "
        f"| {found['tokens_per_second']:,.0f} | {in_units(found['flops_per_second'], 'FLOP/s')} | {share} | {measured} "
        f"| {in_units(planned_bytes(one, found['micro_batch_tokens']), 'B')} |"
    )


def planned_bytes(one: Measurement, micro_batch_tokens: int) -> float:
    """What `plan` says of the same step on one device."""
    keys = dict(SHAPES[one.shape])
    vocab_size = keys.pop("vocab_size")
    del keys["seq_len"]
    planned = device_memory(
        ModelSection(**keys), vocab_size, tokens=micro_batch_tokens, num_shards=1, recomputes=one.recompute
    )
    return planned.total


def device_of(gpu: str, memory_bytes: int) -> DeviceType | None:
    """The device of the table that torch's name of a GPU means; of several that fit, the nearest in memory."""
    key = re.sub(r"[^a-z0-9]", "", gpu.lower())
    fitting = [
        one for one in DEVICES if all(part.lower() in key for part in one.name.split("-") if not part.endswith("GB"))
    ]
    longest = max((len(one.name.split("-")[0]) for one in fitting), default=0)
    best = [one for one in fitting if len(one.name.split("-")[0]) == longest]
    named = [one for one in best if "-" in one.name and not one.name.endswith("GB")] or best
    return min(named, key=lambda one: abs(one.memory_bytes - memory_bytes), default=None)


def measure(*, shape: str, tokens: int, device: str, compiled: bool, recompute: bool) -> None:
    """In a child process: one measurement, as one line of JSON."""
    import torch

    from gristmill.commands.measure_steps import measure as measured

    found = measured(
        SHAPES[shape], device=device, num_tokens=tokens, seconds=5.0 if device == "cuda" else 0.2, recompute=recompute,
        compiled=compiled,
    )  # fmt: skip
    peak_bytes = torch.cuda.max_memory_reserved() if device == "cuda" else 0
    print(json.dumps({**found, "peak_bytes": peak_bytes}))


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def page(facts: Mapping[str, str], parts: Sequence[Part], device: str) -> str:
    """Markdown: what was found, and of what."""
    title = (
        "# On a GPU" if device == "cuda" else "# Rehearsal on a processor\n\nNothing here says anything about a GPU."
    )
    where = [f"- {name}: {value}" for name, value in facts.items()]
    table = ["| part | | | seconds |", "|---|---|---|---|"]
    table += [
        f"| {part.name} | {'passed' if part.passed else '**failed**'} | {part.summary} | {part.seconds:.0f} |"
        for part in parts
    ]
    sections = [line for part in parts for line in ("", f"## {part.name.capitalize()}", "", *part.lines)]
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return "\n".join([title, "", f"{when}, {commit()}.", "", *where, "", *table, *sections]) + "\n"


def commit() -> str:
    """Of this checkout, if it is one."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "no commit"


if __name__ == "__main__":
    sys.exit(main())
