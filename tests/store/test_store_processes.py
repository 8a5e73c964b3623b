"""Several runs on one store, each a process, killed at random: no link dangles, nothing linked is lost, nothing is left behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gristmill.store.artifact import is_committed, verify_manifest
from gristmill.store.durable import read_json
from gristmill.store.removal import removable, remove
from gristmill.store.store import Store

WORKER = Path(__file__).with_name("store_worker.py")
RUNS = ("a", "b", "c")


def start(runs_dir: Path, run: str, seed: int, operations: int) -> subprocess.Popen[str]:
    command = [sys.executable, WORKER, runs_dir, run, str(seed), str(operations)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def held_links(runs_dir: Path) -> list[Path]:
    """Every link that was handed out: of steps and of checkpoints; not marks, which may name work that is not begun."""
    links = [path for run in RUNS for path in (runs_dir / run).rglob("*") if path.is_symlink()]
    return [path for path in links if path.suffix not in (".unfinished", ".tmp")]


def assert_no_link_dangles(runs_dir: Path) -> None:
    """Seen from outside, without a lock: what a link names before and after a look is there in between."""
    for link in held_links(runs_dir):
        try:
            before = link.readlink()
            is_there = (link.parent / before / "manifest.json").is_file()
            if not is_there and link.readlink() == before:
                assert (link.parent / before / "manifest.json").is_file(), f"{link} leads nowhere: {before}"
        except FileNotFoundError:
            continue  # withdrawn just now


def assert_all_is_well(runs_dir: Path) -> None:
    """With nobody at work: links are good, the rest can be removed, and then only what is held is there."""
    links = held_links(runs_dir)
    for link in links:
        verify_manifest(link)
    store = Store(runs_dir)
    remove(store, removable(store))
    assert removable(store) == []
    for link in links:
        verify_manifest(link)
    assert list((store.root / ".trash").iterdir()) == []
    assert not [path for path in runs_dir.rglob("*.tmp") if path.is_symlink()]
    folders = [path for path in (store.root / "select").iterdir() if path.is_dir() and ".partial" not in path.name]
    assert all(is_committed(folder) for folder in folders)
    for step in ("select", "extract/manuals"):
        kept = (store.root / "records" / step).glob("*.json")
        assert all(read_json(path)["wall_seconds"] == 1.0 for path in kept)


def kill_and_start_again(runs_dir: Path, *, kills: int, seed: int) -> None:
    """Three runs at work; one at a time is killed and begun again, `kills` times; then all may finish."""
    chance = random.Random(seed)
    at_work = {run: start(runs_dir, run, seed, 1_000_000) for run in RUNS}
    try:
        for kill in range(kills):
            run = chance.choice(RUNS)
            ready = at_work[run].stdout
            assert ready is not None
            ready.readline()
            time.sleep(chance.random() * 0.5)
            assert_no_link_dangles(runs_dir)
            stop(at_work.pop(run))
            at_work[run] = start(runs_dir, run, seed + kill + 1, 1_000_000)
    finally:
        for process in at_work.values():
            stop(process)
    assert_all_is_well(runs_dir)
    for process in [start(runs_dir, run, -seed, 5) for run in RUNS]:  # whatever was left, work goes on
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert_all_is_well(runs_dir)


def stop(process: subprocess.Popen[str]) -> None:
    """Kill -9. A worker never ends by itself, unless something was wrong."""
    process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -9, errors


def test_runs_that_link_prune_and_clean_at_the_same_time_never_lose_what_they_link(tmp_path: Path) -> None:
    processes = [start(tmp_path, run, 1, 40) for run in RUNS]
    while any(process.poll() is None for process in processes):
        assert_no_link_dangles(tmp_path)
        time.sleep(0.01)
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert_all_is_well(tmp_path)


def test_a_few_kills_at_random(tmp_path: Path) -> None:
    kill_and_start_again(tmp_path, kills=6, seed=os.getpid())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_hundreds_of_kills_at_random(tmp_path: Path, seed: int) -> None:
    kill_and_start_again(tmp_path, kills=50, seed=seed)
