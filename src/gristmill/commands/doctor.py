"""COMMAND doctor: what this machine can do, what will be slow and why, and what to do about it.

    processor, memory, disk, versions ─→ a short matmul ─→ real training steps in a child process ─→ <runs_dir>/.profile.json
                                                                                                 └→ findings, in words

The profile is what `plan` reads its hours from. The child (`measure_steps.py`) is a process of its own because it imports
torch, and so that it can be stopped when the time is over: what it measured until then counts.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.text import Text

from gristmill.graph.cores import NOTABLE, CoreWatch, busy_cores, load_words, times_as_long
from gristmill.graph.machine import Machine, UsableMemory, usable_cpus, usable_memory
from gristmill.planning.speed import (
    Profile,
    SpeedPoint,
    add_speed_point,
    hardware_name,
    measure_matmul,
    processor_line,
    read_profile,
    write_profile,
)
from gristmill.units import counted, in_units, scale, seconds

LIBRARIES = ("torch", "numpy", "pyarrow", "tokenizers", "safetensors", "pydantic")
STEPS_DEADLINE_SECONDS = 22.0  # the whole child, import of torch included
SECONDS_PER_SHAPE = 1.5
STEP_TOKENS = 1024
WRITE_BYTES = 64_000_000
_COMMON = {"initializer_range": 0.05, "max_position_embeddings": 1024}
SHAPES: tuple[dict[str, Any], ...] = (  # 0.25, 1.6, 12.5 and 52 million parameters; the quickstart's shape second
    {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "num_attention_heads": 2,
     "num_key_value_heads": 1, "vocab_size": 1024, "seq_len": 128, **_COMMON},
    {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "num_attention_heads": 4,
     "num_key_value_heads": 2, "vocab_size": 4096, "seq_len": 256, **_COMMON},
    {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 8, "num_attention_heads": 5,
     "num_key_value_heads": 5, "vocab_size": 8192, "seq_len": 512, **_COMMON},
    {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 9,
     "num_key_value_heads": 3, "vocab_size": 16_384, "seq_len": 512, **_COMMON},
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found. Disk in bytes; write_speed in bytes per second; matmul_flops: of one core; busy_cores: those that other
    processes use."""

    hardware: str
    instructions: str
    cores: int
    threads: int
    memory: UsableMemory
    free_disk: int
    write_speed: float
    file_system: str
    matmul_flops: float
    busy_cores: float
    gpu: str | None
    points: tuple[SpeedPoint, ...]


def doctor(machine: Machine, *, console: Console, quick: bool = False) -> Examination:
    """Examine the machine, write the speed profile, say in words what will be slow. Takes less than 30 seconds.

    quick: no training steps, and an existing profile stays as it is.
    """
    console.print(Text("machine", style="bold"))
    before = _examine(machine)
    _lines(console, _machine_lines(before, machine))
    points: tuple[SpeedPoint, ...] = ()
    found, device = before, "cpu"
    if not quick:
        console.print(Text("\ntraining steps", style="bold"))
        about, points = measure_training(machine, seconds=SECONDS_PER_SHAPE, deadline_seconds=STEPS_DEADLINE_SECONDS)
        device = about.get("device", "cpu")
        busy = max([before.busy_cores, *(point.busy_cores for point in points)])
        found = Examination(**{**vars(before), "gpu": about.get("gpu"), "points": points, "busy_cores": busy})
        _lines(console, _training_lines(found, device))
        if problem := about.get("problem"):
            _lines(console, [f"the training steps failed: {problem}"])
    if points:
        path = _write_profile(machine, found, device)
        _lines(console, [f"written to {path}; gristmill plan takes its hours from it"])
    console.print(Text("\nfindings", style="bold"))
    _lines(console, findings(found, machine) or ["nothing that would slow this machine down"])
    return found


def measure_training(
    machine: Machine,
    *,
    seconds: float,
    deadline_seconds: float,
    shapes: Sequence[dict[str, Any]] = SHAPES,
) -> tuple[dict[str, Any], tuple[SpeedPoint, ...]]:
    """Real training steps in a child: what torch says of itself, and a point for each shape that was done in time. On busy cores
    one thread is measured by its CPU time."""
    is_busy = busy_cores() >= NOTABLE
    request = {
        "shapes": list(shapes),
        "threads": machine.most_threads,
        "device": machine.device,
        "tokens": STEP_TOKENS,
        "seconds": seconds,
        "is_busy": is_busy,
    }
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(machine.most_threads),
        "MKL_NUM_THREADS": str(machine.most_threads),
    }
    cores = CoreWatch()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "gristmill.commands.measure_steps"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            text=True,
            env=environment,
        )
        try:
            child.communicate(json.dumps(request), timeout=deadline_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        busy = cores.busy_cores() or 0.0  # the child has ended, so what it used is ours
        output.seek(0)
        lines = [json.loads(line) for line in output if line.endswith("\n")]
        errors.seek(0)
        problem = errors.read().strip().splitlines()[-1:] if child.returncode not in (0, -9) else []
    about: dict[str, Any] = lines[0] if lines else {}
    if problem:
        about["problem"] = problem[0]
    return about, tuple(SpeedPoint(**line, measured_by="doctor", busy_cores=busy) for line in lines[1:])


# ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────────


def _examine(machine: Machine) -> Examination:
    folder = _existing(machine.runs_dir)
    return Examination(
        hardware=hardware_name(),
        instructions=_instructions(),
        cores=usable_cpus(),
        threads=machine.most_threads,
        memory=usable_memory(),
        free_disk=shutil.disk_usage(folder).free,
        write_speed=_write_speed(folder),
        file_system=_file_system(folder),
        matmul_flops=measure_matmul(),
        busy_cores=busy_cores(),
        gpu=None,
        points=(),
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(candidate for candidate in (folder, *folder.parents) if candidate.is_dir())


def _write_speed(folder: Path) -> float:
    """Bytes per second of one durable write of 64 MB, in a file that is gone afterwards."""
    block = os.urandom(1_000_000)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(WRITE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return WRITE_BYTES / (time.perf_counter() - start)


def _instructions() -> str:
    """The widest vector instructions that Linux names."""
    flags = set(processor_line("flags").split())
    known = (("amx_bf16", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON"))
    return next((name for flag, name in known if flag in flags), "unknown")


def _file_system(folder: Path) -> str:
    """The type of the file system that holds the folder, such as ext4 or nfs4."""
    mounts = {
        Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)
    }  # the last one is on top
    return next((mounts[place] for place in (folder, *folder.parents) if place in mounts), "unknown")


def _write_profile(machine: Machine, found: Examination, device: str) -> Path:
    """The new points beside those that pretraining measured on the same machine, and those of idle cores if these are busy."""
    hardware = found.gpu if device == "cuda" and found.gpu else found.hardware
    old = read_profile(machine.runs_dir)
    kept: tuple[SpeedPoint, ...] = ()
    if old is not None and (old.hardware, old.device, old.threads) == (hardware, device, machine.most_threads):
        is_quiet = all(point.trust == 2 for point in found.points)
        kept = tuple(point for point in old.points if point.measured_by == "pretrain" or not is_quiet)
    profile = Profile(
        hardware=hardware, device=device, threads=machine.most_threads, matmul_flops=found.matmul_flops, points=kept
    )
    for point in found.points:
        profile = add_speed_point(profile, point)
    return write_profile(machine.runs_dir, profile)


# ── in words ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def findings(found: Examination, machine: Machine) -> list[str]:
    """What will be slow, why, and what to do; an empty list when nothing is notable."""
    said = []
    if words := load_words(found.busy_cores):
        said.append(
            f"{words}: {_speeds_under_load(found.points)}training takes about {times_as_long(found.busy_cores):.1f} times as long "
            "while they do. Run doctor again when they have ended; a speed of idle cores that it measured before is kept."
        )
    if found.threads < found.cores:
        said.append(f"training uses {found.threads} of {found.cores} cores; --threads {found.cores} uses them all.")
    if found.instructions not in ("AMX", "AVX-512", "AVX2", "NEON"):
        said.append(
            "no AVX2 is seen: matrix products, which are nearly all of training, take several times as long here. "
            "Train on a newer processor or a GPU; curation is not affected."
        )
    if found.gpu is None and found.points:
        largest = max(found.points, key=lambda point: point.parameters)
        hours = 20 * largest.parameters / largest.tokens_per_second / 3600
        said.append(
            f"no GPU: a model of {scale(largest.parameters)} parameters reads {largest.tokens_per_second:,.0f} tokens/s, so "
            f"20 tokens for each parameter take {seconds(hours * 3600)}. Hours grow with the square of the size: stay near 10M "
            "parameters here, and use a GPU for the published sizes."
        )
    if found.memory.total < 4e9:
        said.append(
            f"{in_units(found.memory.total, 'B')} of memory: lower micro_batch_tokens (now {machine.micro_batch_tokens:,}) and "
            "processes if a run is killed."
        )
    if found.write_speed < 50e6:
        said.append(
            f"the disk under {machine.runs_dir} writes {in_units(found.write_speed, 'B')}/s: each checkpoint of 135M parameters "
            f"(1.6 GB) takes {1.6e9 / found.write_speed:.0f} s. Use a local disk, or raise checkpoint_every_tokens."
        )
    if found.file_system.startswith(("nfs", "cifs", "smb", "fuse", "lustre", "9p")):
        said.append(
            f"{machine.runs_dir} lies on {found.file_system}, a file system that is not local: shards are read at random, which "
            "is slow there. --runs-dir on a local disk helps."
        )
    if found.free_disk < 5e9:
        said.append(
            f"{in_units(found.free_disk, 'B')} are free under {machine.runs_dir}; gristmill plan says what a recipe needs."
        )
    return said


def _speeds_under_load(points: Sequence[SpeedPoint]) -> str:
    if not points:
        return ""
    if all(point.is_of_idle_cores for point in points):
        return "the speeds above are those of idle cores, worked out from the CPU time of one thread, and "
    return "the speeds above are too low, and "


def _machine_lines(found: Examination, machine: Machine) -> list[str]:
    return [
        f"processor: {found.hardware}, {found.cores} cores usable, {found.instructions}",
        f"memory: {_memory_words(found.memory)}",
        f"disk of {machine.runs_dir}: {in_units(found.free_disk, 'B')} free, {found.file_system}, writes "
        f"{in_units(found.write_speed, 'B')}/s",
        f"Python {platform.python_version()} on {platform.system()}; "
        + ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        f"matmul: {in_units(found.matmul_flops, 'FLOP/s')} on one core (numpy, fp32)",
    ]


def _memory_words(memory: UsableMemory) -> str:
    limited = (
        ""
        if memory.total == memory.installed
        else f" (its control group's limit; {in_units(memory.installed, 'B')} installed)"
    )
    return f"{in_units(memory.total, 'B')}{limited}, {in_units(memory.available, 'B')} available"


def _training_lines(found: Examination, device: str) -> list[str]:
    processor = f"cpu, {counted(found.threads, 'thread')}"
    lines = [f"device: {found.gpu if device == 'cuda' else processor}"]
    lines += [
        f"{scale(point.parameters)} parameters, {point.seq_len} tokens of context: {point.tokens_per_second:,.0f} tokens/s, "
        f"{in_units(point.flops_per_second, 'FLOP/s')}"
        + (
            f", {point.flops_per_second / found.matmul_flops / found.threads:.0%} of the matmul"
            if device == "cpu"
            else ""
        )
        for point in found.points
    ]
    if missing := len(SHAPES) - len(found.points):
        lines.append(f"not done within {STEPS_DEADLINE_SECONDS:.0f} s: {missing} of {len(SHAPES)} shapes")
    return lines


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _lines(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
