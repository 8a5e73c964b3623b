"""Each piece of work shows its own peak, not that of what came before, and its children's beside it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from gristmill.graph import peak_memory as module
from gristmill.graph.peak_memory import PeakMemory

MB = 1_000_000


def touch(megabytes: int) -> None:
    """Allocate, write every page, free."""
    block = np.empty(megabytes * MB, dtype=np.uint8)
    block.fill(1)
    del block


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.fixture(autouse=True)
def _without_children_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork server or a server of other tests is a child of this process, too."""
    plain, others = module._descendants, {child.pid for child in psutil.Process().children(recursive=True)}
    children = psutil.Process.children
    monkeypatch.setattr(module, "_descendants", lambda process: [one for one in plain(process) if one not in others])
    monkeypatch.setattr(
        psutil.Process,
        "children",
        lambda this, recursive=False: [one for one in children(this, recursive=recursive) if one.pid not in others],
    )


@pytest.fixture(params=["high-water mark", "sampled"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Both ways; without the kernel's files it is the second."""
    if request.param == "sampled":
        monkeypatch.setattr(module, "PROC", str(tmp_path))
    elif not sys.platform.startswith("linux"):
        pytest.skip("high-water marks are Linux's")
    return str(request.param)


def test_a_second_peak_is_its_own_and_not_that_of_the_first() -> None:
    before = resident()
    with PeakMemory() as first:
        touch(300)
    with PeakMemory() as second:
        touch(50)
    assert first.process - before == pytest.approx(300 * MB, rel=0.1)
    assert second.process - before == pytest.approx(50 * MB, abs=20 * MB)
    assert first.largest_child < 100 * MB


def test_a_peak_shorter_than_the_interval_is_seen(how: str) -> None:
    before = resident()
    with PeakMemory(interval_seconds=60.0) as peak:
        touch(100)
    seen = peak.process - before
    assert peak.how == how
    assert seen > 90 * MB if how == "high-water mark" else seen < 50 * MB


def test_a_child_shows_as_a_child(how: str) -> None:
    before = resident()
    with PeakMemory(interval_seconds=0.05, max_share_of_a_core=1.0) as peak:
        subprocess.run([sys.executable, "-c", "import time; b = b'1' * 200_000_000; time.sleep(0.4)"], check=True)
    assert peak.how == how
    assert peak.largest_child == pytest.approx(200 * MB, rel=0.1)
    assert peak.process - before < 30 * MB


def work_in_a_child(megabytes: int) -> None:
    block = np.ones(megabytes * MB, dtype=np.uint8)
    time.sleep(0.4)
    del block


def test_what_a_fork_server_starts_is_seen_too(how: str) -> None:
    context = multiprocessing.get_context("forkserver")
    with PeakMemory(interval_seconds=0.05, max_share_of_a_core=1.0) as peak:
        process = context.Process(target=work_in_a_child, args=(400,))
        process.start()
        process.join()
    assert peak.largest_child > 400 * MB


def test_a_child_that_was_large_before_does_not_count_for_it() -> None:
    code = "b = b'1' * 500_000_000; del b; print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with PeakMemory(interval_seconds=0.05, max_share_of_a_core=1.0) as peak:
        time.sleep(0.2)
    child.communicate(b"\n")
    assert 0 < peak.largest_child < 100 * MB


def test_the_record_holds_bytes_and_how_they_were_found(how: str) -> None:
    with PeakMemory() as peak:
        pass
    assert peak.to_json() == {"process": peak.process, "largest_child": peak.largest_child, "how": how}
    assert peak.process == pytest.approx(resident(), rel=0.1)


def test_the_thread_ends_with_the_work_even_when_it_fails() -> None:
    with pytest.raises(ZeroDivisionError), PeakMemory():
        raise ZeroDivisionError
    assert "peak-memory" not in {thread.name for thread in threading.enumerate()}


def test_watching_takes_no_more_than_its_share_however_long_a_reading_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = []

    def slow() -> tuple[int, list[int]]:
        started = time.thread_time()
        while time.thread_time() - started < 0.02:
            pass
        readings.append(time.thread_time() - started)
        return 1, []

    monkeypatch.setattr(module, "_marks", slow)
    monkeypatch.setattr(module, "_resident", slow)
    started = time.monotonic()
    with PeakMemory(interval_seconds=0.01, max_share_of_a_core=0.1):
        time.sleep(1.0)
    seconds = time.monotonic() - started
    assert len(readings) >= 2
    assert sum(readings[:-2]) <= 0.1 * seconds  # the first follows a pause by guess, the last is the end's


def test_marks_of_processes_that_ended_count_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert module._mark(child.pid) == 0  # ended, not waited for
    child.wait()
    assert module._mark(child.pid) == 0
    assert module._descendants(child.pid) == []
