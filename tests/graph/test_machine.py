"""What this process may use: cores, and memory within the limits of control groups, read from trees as Linux lays them out."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import pytest

from gristmill.graph.machine import UsableMemory, allowed_cores, give_freed_memory_back, usable_cpus, usable_memory

MB = 10**6
PHYSICAL = psutil.virtual_memory().total
NO_LIMIT = "9223372036854771712"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n", encoding="utf-8")
    return root


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    found = usable_memory(tmp_path)
    assert (found.total, found.installed) == (PHYSICAL, PHYSICAL)
    assert 0 < found.available <= found.total


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cgroup.controllers": "memory"},
        {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.max": "max", "sys/fs/cgroup/a/memory.current": "5"},
        {
            "proc/self/cgroup": "4:memory:/a\n3:cpuset:/\n0::/",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": NO_LIMIT,
            "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "5",
        },
    ],
    ids=["version 2 without files", "version 2 without limit", "version 1 without limit"],
)
def test_groups_that_do_not_limit_change_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_memory(tree(tmp_path, files)).total == PHYSICAL


def test_a_limit_of_version_2_counts_with_what_the_group_uses_and_cannot_drop(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/",  # as a container sees itself
        "sys/fs/cgroup/memory.max": str(100 * MB),
        "sys/fs/cgroup/memory.current": str(70 * MB),
        "sys/fs/cgroup/memory.stat": f"anon {30 * MB}\ninactive_file {40 * MB}\nactive_file 0",
    }
    assert usable_memory(tree(tmp_path, files)) == UsableMemory(total=100 * MB, available=70 * MB, installed=PHYSICAL)


def test_the_tightest_of_the_groups_around_counts_for_each_of_the_two(tmp_path: Path) -> None:
    outer, inner = "sys/fs/cgroup/batch.slice", "sys/fs/cgroup/batch.slice/job"
    files = {
        "proc/self/cgroup": "0::/batch.slice/job",
        f"{outer}/memory.max": str(300 * MB),
        f"{outer}/memory.current": str(290 * MB),
        f"{inner}/memory.max": str(200 * MB),
        f"{inner}/memory.current": str(20 * MB),
    }
    found = usable_memory(tree(tmp_path, files))
    assert (found.total, found.available) == (200 * MB, 10 * MB)


@pytest.mark.parametrize("group", ["/jobs/7", "/docker/an-id-that-the-container-does-not-see"])
def test_a_limit_of_version_1_is_found_in_its_group_or_at_the_top_of_what_is_mounted(
    tmp_path: Path, group: str
) -> None:
    folder = "sys/fs/cgroup/memory" + (group if group == "/jobs/7" else "")
    files = {
        "proc/self/cgroup": f"9:name=systemd:/\n4:cpu,memory:{group}\n0::/",
        f"{folder}/memory.limit_in_bytes": str(100 * MB),
        f"{folder}/memory.usage_in_bytes": str(60 * MB),
        f"{folder}/memory.stat": f"inactive_file 0\ntotal_inactive_file {20 * MB}",
    }
    found = usable_memory(tree(tmp_path, files))
    assert (found.total, found.available) == (100 * MB, 60 * MB)


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/memory.max": str(100 * MB),
        "sys/fs/cgroup/memory.current": str(101 * MB),
    }
    assert usable_memory(tree(tmp_path, files)).available == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores of a process can be set on Linux alone")
def test_cores_are_those_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cpus() == len(allowed)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "100000 100000",
          "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 1),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/a\n0::/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/\n0::/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, len(allowed_cores())),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, len(allowed_cores())),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1000000000 100000"}, len(allowed_cores())),
    ],
)  # fmt: skip
def test_time_on_cores_that_a_group_limits_counts_as_fewer_cores(
    tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    assert usable_cpus(tree(tmp_path, files)) == cores


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back themselves, or never")
def test_freed_memory_below_what_is_still_used_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(psutil.Process().memory_info().rss)

    blocks = [bytes(2_000) for _ in range(50_000)]
    kept = blocks[-1]  # at the top of the heap: without being told, the C library keeps all that lies below
    del blocks
    before = resident()
    give_freed_memory_back()
    assert before - resident() > 80 * MB
    assert len(kept) == 2_000
