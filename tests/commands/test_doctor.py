"""`gristmill doctor`: real training steps become the profile that plan reads; what is slow is said in words."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from gristmill.commands import doctor as module
from gristmill.commands.doctor import Examination, doctor, findings, measure_training
from gristmill.graph.machine import Machine, UsableMemory
from gristmill.planning.cost import count_parameters
from gristmill.planning.speed import Profile, SpeedPoint, hardware_name, read_profile, write_profile
from gristmill.recipe.schema.training import ModelSection

TINY: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "initializer_range": 0.05, "max_position_embeddings": 64, "vocab_size": 300, "seq_len": 64,
}  # fmt: skip


def point(parameters: int, measured_by: Any) -> SpeedPoint:
    return SpeedPoint(
        parameters=parameters,
        seq_len=64,
        micro_batch_tokens=1024,
        tokens_per_second=1000.0,
        flops_per_second=1e9,
        measured_by=measured_by,
    )


def memory(gigabytes: int, *, installed: int = 16) -> UsableMemory:
    return UsableMemory(total=gigabytes * 10**9, available=10**9, installed=installed * 10**9)


def healthy(**changes: Any) -> Examination:
    values = {
        "hardware": "cpu", "instructions": "AVX2", "cores": 2, "threads": 2, "memory": memory(16),
        "free_disk": 1e12, "write_speed": 5e8, "file_system": "ext4", "matmul_flops": 1e11, "busy_cores": 0.1, "gpu": None,
        "points": (),
    }  # fmt: skip
    return Examination(**(values | changes))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(processes=1, threads=1, device="cpu", runs_dir=tmp_path / "runs")


def test_real_steps_are_measured_and_written_for_plan(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CoreWatch", lambda: SimpleNamespace(busy_cores=lambda: 0.0))
    monkeypatch.setattr(module, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(module, "measure_training", lambda *_, **__: measure_training(
        machine, seconds=0.05, deadline_seconds=60.0, shapes=[TINY]
    ))  # fmt: skip
    write_profile(
        machine.runs_dir,
        Profile(
            hardware=hardware_name(),
            device="cpu",
            threads=1,
            matmul_flops=1.0,
            points=(point(5, "pretrain"), point(7, "doctor")),
        ),
    )
    console = Console(file=StringIO(), width=160)
    found = doctor(machine, console=console)
    parameters = count_parameters(
        ModelSection(**{k: v for k, v in TINY.items() if k not in ("vocab_size", "seq_len")}), 300
    )
    assert [item.parameters for item in found.points] == [parameters]
    profile = read_profile(machine.runs_dir)
    assert profile is not None
    assert [(item.parameters, item.measured_by) for item in profile.points] == [(5, "pretrain"), (parameters, "doctor")]
    assert all(item.flops_per_second > 0 for item in profile.points)


def test_quick_measures_no_steps_and_leaves_the_profile_alone(machine: Machine) -> None:
    console = Console(file=StringIO(), width=160)
    doctor(machine, console=console, quick=True)
    assert read_profile(machine.runs_dir) is None
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "training steps" not in text
    for word in ("processor: ", "memory: ", "disk of ", "Python 3.", "torch ", "matmul: "):
        assert word in text


def test_on_busy_cores_one_thread_is_measured_by_its_cpu_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CoreWatch", lambda: SimpleNamespace(busy_cores=lambda: 1.8))
    monkeypatch.setattr(module, "busy_cores", lambda: 1.8)
    _, [found] = measure_training(machine, seconds=0.05, deadline_seconds=60.0, shapes=[TINY])
    assert found.is_by_cpu_time
    assert found.is_of_idle_cores
    said = findings(healthy(points=(found,), busy_cores=1.8), machine)
    assert "are those of idle cores, worked out from the CPU time of one thread" in said[0]


def test_a_child_that_takes_too_long_is_stopped_and_costs_nothing(machine: Machine) -> None:
    about, points = measure_training(machine, seconds=60.0, deadline_seconds=0.2, shapes=[TINY])
    assert points == ()
    assert "problem" not in about


def test_a_child_that_fails_says_why(machine: Machine) -> None:
    about, points = measure_training(machine, seconds=0.05, deadline_seconds=60.0, shapes=[{**TINY, "hidden_size": 15}])
    assert points == ()
    assert about["problem"]


def test_memory_below_what_is_installed_says_why(machine: Machine) -> None:
    words = [module._machine_lines(healthy(memory=memory(size)), machine)[1] for size in (16, 2)]
    assert words == [
        "memory: 16 GB, 1 GB available",
        "memory: 2 GB (its control group's limit; 16 GB installed), 1 GB available",
    ]


def test_a_folder_lies_on_the_file_system_of_the_nearest_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [("/", "ext4"), ("/data", "ext4"), ("/data", "nfs4"), ("/data2", "xfs")]
    found = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts]
    monkeypatch.setattr(module.psutil, "disk_partitions", lambda all: found)
    folders = ("/data/runs", "/data", "/data2/x", "/data3", "/")
    assert [module._file_system(Path(folder)) for folder in folders] == ["nfs4", "nfs4", "xfs", "ext4", "ext4"]


def test_a_healthy_machine_has_no_findings(machine: Machine) -> None:
    assert findings(healthy(), machine) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"busy_cores": 1.0}, "other processes keep 1.0 of"),
        ({"threads": 1}, "training uses 1 of 2 cores; --threads 2 uses them all"),
        ({"instructions": "unknown"}, "no AVX2 is seen"),
        ({"memory": memory(2)}, "2 GB of memory: lower micro_batch_tokens"),
        ({"write_speed": 1e7}, "(1.6 GB) takes 160 s"),
        ({"file_system": "nfs4"}, "a file system that is not local"),
        ({"free_disk": 1e9}, "1 GB are free"),
        ({"points": (point(10**7, "doctor"),)}, "no GPU: a model of 10M parameters reads 1,000 tokens/s"),
    ],
)
def test_each_thing_that_is_slow_is_said_in_words(machine: Machine, changes: dict[str, Any], words: str) -> None:
    said = findings(healthy(**changes), machine)
    assert len(said) == 1
    assert words in said[0]
