"""How fast this machine trains: real training steps that `doctor` or a pretraining measured, else a share of a short matmul.

The profile lies beside the runs, in `<runs_dir>/.profile.json`, and is used only on the machine that it was measured on.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gristmill.errors import ArtifactError
from gristmill.graph.cores import NOTABLE, load_words, times_as_long
from gristmill.graph.machine import Machine
from gristmill.store.durable import read_json, write_json
from gristmill.units import counted, in_units, scale

PROFILE = ".profile.json"
PROFILE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class SpeedPoint:
    """Real training steps of one shape. flops_per_second: by `flops_per_token`, so that shapes can be compared. busy_cores: those
    that other processes used meanwhile. is_by_cpu_time: one thread was measured by its CPU time, which a load hardly changes, and the
    speed of all threads is worked out from it."""

    parameters: int
    seq_len: int
    micro_batch_tokens: int
    tokens_per_second: float
    flops_per_second: float
    measured_by: Literal["doctor", "pretrain"]
    busy_cores: float = 0.0
    is_by_cpu_time: bool = False

    @property
    def is_of_idle_cores(self) -> bool:
        """Whether it is the speed that idle cores have."""
        return self.is_by_cpu_time or self.busy_cores < NOTABLE

    @property
    def trust(self) -> int:
        """2 for all threads on idle cores, 1 for what follows from the CPU time of one, 0 for all threads on busy cores."""
        return 1 if self.is_by_cpu_time else 2 * (self.busy_cores < NOTABLE)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How fast one machine trains. `device` is "cpu" or "cuda"; `hardware` names the processor or the GPU; matmul_flops: of a core."""

    hardware: str
    device: str
    threads: int
    matmul_flops: float
    points: tuple[SpeedPoint, ...]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Training operations per second, and in words how that is known. is_of_idle_cores: it is the speed that idle cores have."""

    flops_per_second: float
    how_known: str
    is_measured: bool
    is_of_idle_cores: bool = True


def read_profile(runs_dir: Path) -> Profile | None:
    """The profile of this runs folder, or None. Raises ArtifactError for a damaged one."""
    path = runs_dir / PROFILE
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        if data.pop("version") != PROFILE_VERSION:
            return None
        return Profile(**{**data, "points": tuple(SpeedPoint(**point) for point in data["points"])})
    except (AttributeError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is not a speed profile: {error}. Run `gristmill doctor` to make it anew."
        ) from error


def has_profile(runs_dir: Path) -> bool:
    """True when something measured a machine here."""
    return (runs_dir / PROFILE).is_file()


def write_profile(runs_dir: Path, profile: Profile) -> Path:
    """Write the profile beside the runs; returns its path."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    write_json(runs_dir / PROFILE, {"version": PROFILE_VERSION, **asdict(profile)})
    return runs_dir / PROFILE


def add_speed_point(profile: Profile, point: SpeedPoint) -> Profile:
    """The profile with the point in it; it replaces an older point of the same shape, unless that deserves more trust."""

    def is_same(old: SpeedPoint) -> bool:
        return (old.parameters, old.seq_len) == (point.parameters, point.seq_len)

    if any(is_same(old) and old.trust > point.trust for old in profile.points):
        return profile
    others = tuple(old for old in profile.points if not is_same(old))
    return replace(profile, points=(*others, point))


def training_speed(parameters: int, points: Sequence[SpeedPoint]) -> Speed:
    """Operations per second for a model of that size: between two measured sizes on a log scale, else the nearest one. Points of
    idle cores, where there are some."""
    idle = [point for point in points if point.is_of_idle_cores]
    ordered = sorted(idle or points, key=lambda point: point.parameters)
    speed = float(
        np.interp(
            math.log(parameters),
            [math.log(point.parameters) for point in ordered],
            [point.flops_per_second for point in ordered],
        )
    )
    sizes = ", ".join(scale(point.parameters) for point in ordered)
    words = f"measured with real training steps ({sizes} parameters)"
    if any(point.is_by_cpu_time for point in idle):
        words += ", by the CPU time of one thread"
    if not idle:
        words += f" while {load_words(max(point.busy_cores for point in ordered))}; idle cores are faster"
    return Speed(flops_per_second=speed, how_known=words, is_measured=True, is_of_idle_cores=bool(idle))


# Share of one core's fp32 matmul that training steps of this many parameters reach on one thread, by CPU time, with AVX-512.
SHARE_OF_MATMUL = ((0.25e6, 0.19), (0.69e6, 0.27), (1.6e6, 0.31), (12.5e6, 0.5))
# Two threads on idle cores do 1.63 times the work of one at 1.6M parameters, 1.85 at 5.8M and 1.91 at 32M: `benchmarks/train_step.py`.
THREADS_POWER = 0.7


def of_threads(of_one: float, threads: int) -> float:
    """The speed of training with so many threads, each on an idle core, by that of one."""
    return float(of_one * threads**THREADS_POWER)


def guessed_speed(parameters: int, matmul_flops: float, threads: int) -> Speed:
    """Operations per second without a profile: a share of a core's matmul speed that grows with the model."""
    share = float(
        np.interp(
            math.log10(parameters),
            [math.log10(size) for size, _ in SHARE_OF_MATMUL],
            [share for _, share in SHARE_OF_MATMUL],
        )
    )
    speed = of_threads(share * matmul_flops, threads)
    words = f"estimated from a matmul, {in_units(matmul_flops, 'FLOP/s')} on one core; `gristmill doctor` measures real training steps"
    return Speed(flops_per_second=speed, how_known=words, is_measured=False)


def load_note(busy: float, speed: Speed) -> str:
    """What a load on the cores means for hours by that speed, in a sentence without its full stop; empty where there is none. busy:
    cores that other processes use now."""
    if not (words := load_words(busy)):
        return ""
    if speed.is_of_idle_cores:
        return f"{words} now; the times are those of idle cores, and about {times_as_long(busy):.1f} times as long while they do"
    return f"{words} now, and did while the speed of training was measured: the times are uncertain, and shorter on idle cores"


def measure_matmul(cpu_seconds: float = 0.5, size: int = 64, count: int = 64) -> float:
    """FLOP/s of fp32 matrix products in numpy on one core, by CPU time, so that a load on the cores hardly changes it: the best of
    as many stacks of `count` products as fit into the time. BLAS computes products of that size on one thread."""
    left, right = np.ones((count, size, size), np.float32), np.ones((size, size), np.float32)
    product = np.empty_like(left)
    np.matmul(left, right, out=product)
    best, end = math.inf, time.process_time() + cpu_seconds
    while best == math.inf or time.process_time() < end:
        start = time.process_time()
        np.matmul(left, right, out=product)
        elapsed = time.process_time() - start
        best = (
            min(best, elapsed) if elapsed else best
        )  # where the kernel counts CPU time in ticks, a short product takes none
    return 2.0 * count * size**3 / best


def machine_speed(parameters: int, machine: Machine) -> tuple[Speed, list[str]]:
    """Speed for a model of that size: by the profile in the runs folder when it is of this machine, else by a short matmul.

    Returns the speed, and notes for the reader.
    """
    profile, notes = _profile_of(machine)
    if profile is not None and profile.points:
        return training_speed(parameters, profile.points), notes
    if machine.device.startswith("cuda"):
        notes.append(
            "the hours are those of the processor: run `gristmill doctor` where the GPU is, and plan reads its speed"
        )
    matmul_flops = measure_matmul() if profile is None else profile.matmul_flops
    return guessed_speed(parameters, matmul_flops, machine.most_threads), notes


def measured_speed(parameters: int, machine: Machine) -> Speed | None:
    """Speed for a model of that size by real training steps in the profile of this machine; None without them."""
    profile, _ = _profile_of(machine)
    return training_speed(parameters, profile.points) if profile is not None and profile.points else None


def trains_on_gpu(machine: Machine) -> bool:
    """Whether the speed of training is that of a GPU: one is asked for, or the profile in the runs folder is of one."""
    profile, _ = _profile_of(machine)
    return machine.device.startswith("cuda") or (profile is not None and profile.device == "cuda")


def _profile_of(machine: Machine) -> tuple[Profile | None, list[str]]:
    """The profile in the runs folder; None, and perhaps a note, where none is of this machine."""
    profile = read_profile(machine.runs_dir)
    if profile is not None and (reason := _does_not_apply(profile, machine)):
        return None, [f"the speed profile in {machine.runs_dir} was left aside: {reason}"]
    return profile, []


def keep_matmul(machine: Machine) -> None:
    """Measures a matmul for all who guess a speed from it later, so that they say the same, unless a profile of this machine is
    there, or real steps in that of another, which are worth more."""
    kept = read_profile(machine.runs_dir)
    if machine.device != "cuda" and _profile_of(machine)[0] is None and not (kept is not None and kept.points):
        found = measure_matmul()
        hardware, threads = hardware_name(), machine.most_threads
        profile = Profile(hardware=hardware, device="cpu", threads=threads, matmul_flops=found, points=())
        write_profile(machine.runs_dir, profile)


def keep_speed(point: SpeedPoint, machine: Machine, *, device: str, hardware: str) -> None:
    """Add real training steps to the profile of this machine; a profile of another machine is replaced."""
    profile = read_profile(machine.runs_dir)
    if profile is None or (profile.device, profile.hardware, profile.threads) != (
        device,
        hardware,
        machine.most_threads,
    ):
        profile = Profile(
            hardware=hardware, device=device, threads=machine.most_threads, matmul_flops=measure_matmul(), points=()
        )
    write_profile(machine.runs_dir, add_speed_point(profile, point))


def _does_not_apply(profile: Profile, machine: Machine) -> str | None:
    if machine.device not in ("auto", profile.device):
        return f"it was measured on {profile.device}, this plan is for {machine.device}"
    if profile.device == "cpu" and profile.hardware != hardware_name():
        return f"it was measured on {profile.hardware}"
    if profile.device == "cpu" and profile.threads != machine.most_threads:
        return f"it was measured with {counted(profile.threads, 'thread')}, this plan is for {machine.most_threads}"
    return None


def hardware_name() -> str:
    """The processor's name, by which a profile is known to be of this machine."""
    return processor_line("model name") or platform.processor() or platform.machine()


def processor_line(key: str) -> str:
    """What Linux says of the first core under that key, such as "model name" or "flags"; empty where it says nothing.

    Read by hand, for neither platform nor psutil tells these two.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
