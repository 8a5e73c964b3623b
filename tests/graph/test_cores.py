"""How busy others keep the cores: held against a process that is known to do so."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time

import pytest

from gristmill.graph import cores
from gristmill.graph.cores import CoreWatch, busy_cores, idle_threads, load_words, of_usable, times_as_long
from gristmill.graph.machine import allowed_cores, usable_cpus

SPIN = "while True: pass"


@pytest.mark.skipif(usable_cpus() < len(allowed_cores()), reason="others may use cores that this process may not")
def test_own_work_is_not_that_of_others_and_a_process_beside_is() -> None:
    begun = time.process_time()
    watch = CoreWatch()
    while time.process_time() - begun < 0.5:
        pass
    alone = watch.busy_cores()
    assert alone is not None
    assert watch.busy_cores() is None, "nothing can be told of no time"
    orphan = subprocess.check_output([f"'{sys.executable}' -c '{SPIN}' >/dev/null & echo $!"], shell=True)
    try:
        beside = busy_cores(1.0)
    finally:
        os.kill(int(orphan), signal.SIGKILL)
    assert beside >= 0.3, "another process had most of a core"
    assert max(alone, beside) <= usable_cpus()


@pytest.mark.skipif(usable_cpus() < len(allowed_cores()), reason="others may use cores that this process may not")
def test_a_child_at_work_is_not_another_process() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        try:
            before, watch = cores._used(), CoreWatch()
            time.sleep(0.5)
            busy, after = watch.busy_cores(), cores._used()
        finally:
            child.kill()
    others = (after[1] - before[1] - (after[2] - before[2])) / (after[0] - before[0])
    assert after[2] - before[2] > 0.1, "what the child uses is counted as own while it runs"
    assert busy == pytest.approx(max(0.0, others), abs=0.2)


@pytest.mark.parametrize(
    ("most", "busy", "threads"),
    [(2, 0.0, 2), (2, 0.4, 2), (2, 1.0, 1), (2, 2.0, 1), (8, 2.7, 5), (4, 0.0, 4), (1, 0.0, 1)],
)
def test_threads_find_a_core_each(monkeypatch: pytest.MonkeyPatch, most: int, busy: float, threads: int) -> None:
    monkeypatch.setattr(cores, "usable_cpus", lambda: max(most, 2))
    assert idle_threads(most, busy) == threads


@pytest.mark.parametrize(
    ("busy", "usable", "seconds"),
    [([1.0, 2.0, 4.0], [0, 2], 5.0), ([1.0, 2.0], [8, 9], 3.0), ([1.0, 2.0, 3.0, 2.0], [3, 4], 4.0)],
)
def test_cores_that_are_listed_by_other_numbers_are_counted_by_their_share(
    busy: list[float], usable: list[int], seconds: float
) -> None:
    assert of_usable(busy, usable) == seconds


def test_hours_grow_with_the_load_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cpus", lambda: 2)
    grown = [times_as_long(busy) for busy in (0.0, 0.5, 1.0, 1.5, 2.0)]
    assert grown == sorted(grown)
    assert grown[0] == 1.0
    assert math.isclose(times_as_long(1.0), 2.0)
    assert math.isclose(times_as_long(2.0), 3.0), "one thread has two thirds of a core beside two others on two cores"
    assert load_words(0.1) == ""
    assert load_words(1.44) == "other processes keep 1.4 of 2 cores busy"
