"""Shards on Ray: the same outcomes, the same bytes, whatever dies; and clear words for a cluster that is not there.

Two nodes on this machine (`ray.cluster_utils.Cluster`). Skipped where Ray is not installed: pip install "gristmill[ray]".
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from gristmill.data import ray_tasks
from gristmill.data.ray_tasks import RayTasks, ray_session
from gristmill.errors import Interrupted, RecipeError, ResourceError

pytest.importorskip("ray", reason='Ray is not installed: pip install "gristmill[ray]"')
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    try:
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import hostile_jobs

    return hostile_jobs


def tasks(cluster: Any, *must_see: Path, should_stop: Any = lambda: False) -> RayTasks:
    return RayTasks(address=cluster.address, processes=2, must_see=must_see, should_stop=should_stop)


def workers() -> list[psutil.Process]:
    """Ray's workers on this machine that are at a task."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if " ".join(process.info["cmdline"] or [""]).startswith("ray::_run"):
            found.append(process)
    return found


def guarded_children(folder: Path) -> list[psutil.Process]:
    """Those of hostile_jobs.Hanging that are at work."""
    found = []
    for path in folder.glob("pid-*"):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(path.name.removeprefix("pid-")))
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_each_item_has_one_outcome_and_what_is_raised_is_not_tried_again(
    cluster: Any, jobs: Any, tmp_path: Path
) -> None:
    with ray_session(cluster.address):
        outcomes = dict(tasks(cluster, tmp_path).map(partial(jobs.square_on, tmp_path), [0, 1, 2, 3, 4, 6]))
    assert isinstance(outcomes.pop(3), ValueError)
    assert outcomes == {n: n * n for n in (0, 1, 2, 4, 6)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3", "4", "6"]
    assert (tmp_path / "3").read_text() == "1"


@pytest.mark.slow
def test_a_node_that_does_not_see_the_files_is_named(
    cluster: Any, jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is gone when a node looks, as if it lay on this machine only."""
    path = tmp_path / "here-only"
    path.write_text("x")
    stamp = ray_tasks._stamp

    def stamp_and_remove(asked: Path) -> list[int] | None:
        found = stamp(asked)
        asked.unlink()
        return found

    monkeypatch.setattr(ray_tasks, "_stamp", stamp_and_remove)
    wanted = rf"[12] of 2 nodes of the Ray cluster cannot do the work:\n.*: {path} is not there"
    with ray_session(cluster.address), pytest.raises(ResourceError, match=wanted):
        list(tasks(cluster, path).map(jobs.square, [1]))


@pytest.mark.slow
def test_four_faults_in_one_shard_have_a_reason_each_and_the_rest_survives(
    cluster: Any, jobs: Any, tmp_path: Path
) -> None:
    bad = {7: "raise", 20: "segfault", 40: "hang_in_c", 41: "eat_memory", 42: "segfault"}
    reasons = {
        "raise": "error:ValueError",
        "segfault": "killed:SIGSEGV",
        "hang_in_c": "timeout",
        "eat_memory": "out_of_memory",
    }
    seen: list[int] = []
    with ray_session(cluster.address):
        outcomes = dict(
            tasks(cluster, tmp_path).map_guarded(
                partial(jobs.guarded, tmp_path, bad), [0, 1, 2], progress=lambda item, results: seen.append(results)
            )
        )
    wanted = [(n, reasons[bad[n]] if n in bad else "ok") for n in range(60)]
    assert outcomes == dict.fromkeys(range(3), wanted)
    assert seen
    assert max(seen) <= 60
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(cluster: Any, jobs: Any, tmp_path: Path) -> None:
    with ray_session(cluster.address):
        killed: list[int] = []

        def kill() -> None:
            while not killed:
                for process in workers()[:1]:
                    if list(tmp_path.iterdir()):
                        process.kill()
                        killed.append(process.pid)
                time.sleep(0.05)

        threading.Thread(target=kill, daemon=True).start()
        outcomes = dict(tasks(cluster, tmp_path).map(partial(jobs.square_slowly, tmp_path), range(6)))
    assert killed
    assert outcomes == {n: n * n for n in range(6)}


@pytest.mark.slow
def test_a_node_that_dies_costs_nothing(cluster: Any, jobs: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=2)
    with ray_session(cluster.address):
        found = tasks(cluster, tmp_path).map(partial(jobs.square_slowly, tmp_path), range(10))
        outcomes = dict([next(found)])
        cluster.remove_node(node, allow_graceful=False)
        outcomes |= dict(found)
    assert outcomes == {n: n * n for n in range(10)}


@pytest.mark.slow
def test_a_stop_leaves_nothing_running(cluster: Any, jobs: Any, tmp_path: Path) -> None:
    executor = tasks(cluster, tmp_path, should_stop=lambda: any(tmp_path.glob("pid-*")))
    with ray_session(cluster.address):
        outcomes = executor.map_guarded(partial(jobs.guarded_hanging, tmp_path), range(4), progress=lambda *_: None)
        with pytest.raises(Interrupted):
            list(outcomes)
    until = time.monotonic() + 15
    while (left := [*workers(), *guarded_children(tmp_path)]) and time.monotonic() < until:
        time.sleep(0.2)
    assert list(tmp_path.glob("pid-*"))
    assert left == []


@pytest.mark.slow
def test_a_port_where_no_ray_answers_is_said_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ResourceError, match=f"no Ray cluster answers at {address}"), ray_session(address):
            pass
        assert time.monotonic() - began < 40


def test_an_address_that_is_none_and_one_where_nobody_listens_are_said_at_once() -> None:
    for text in ("somewhere", "ray://head:10001", ":6379"):
        with pytest.raises(RecipeError, match=r"is no address; expected local, auto or HOST:PORT"), ray_session(text):
            pass
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ResourceError, match="no Ray cluster answers at"), ray_session(f"127.0.0.1:{port}"):
        pass


@pytest.mark.slow
def test_curation_on_two_nodes_leaves_the_bytes_of_one_process(
    cluster: Any, tiny_project: Path, tmp_path: Path
) -> None:
    """The command line, as a person starts it; killed once in the middle."""

    def run(name: str, *options: str, kill_after: float | None = None) -> int:
        command = [sys.executable, "-m", "gristmill", "run", str(tiny_project / "recipe.yaml"), "--until", "select"]
        process = subprocess.Popen(
            [*command, "--runs-dir", str(tmp_path / name), *options],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        return process.wait(300)

    assert run("plain", "--processes", "1") == 0
    assert run("ray", "--ray", cluster.address, kill_after=9.0) == -signal.SIGKILL
    assert run("ray", "--ray", cluster.address) == 0
    assert manifests(tmp_path / "ray") == manifests(tmp_path / "plain")


def manifests(runs: Path) -> dict[str, Any]:
    """Step and identity → name, size and hash of every file."""
    root = runs / ".store"
    return {str(path.relative_to(root)): json.loads(path.read_text()) for path in root.rglob("manifest.json")}
