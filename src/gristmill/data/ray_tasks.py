"""Shards on a Ray cluster: the same functions over the same files, as Ray tasks of one core each.

    this process                                      a node
    ────────────                                      ──────
    asks each node what it sees                ──►    the folder of the run, the files, the versions; or an error names the node
    twice as many tasks as cores in flight     ──►    the function reads and writes files, its guarded child beside it
    takes small results                        ◄──    a node or worker that dies: Ray starts the task again elsewhere

Only Ray's tasks are used. Documents never pass through Ray: all nodes mount the same files under the same paths. A task that is made
twice, because the first attempt was believed dead, writes the same bytes and publishes them by a rename. What a task raises is a
result like any other, and is never tried again.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gristmill.data.executor import STOP_POLL_SECONDS
from gristmill.data.libraries import set_library_defaults
from gristmill.errors import GristmillError, Interrupted, MissingExtra, RecipeError, ResourceError
from gristmill.graph.record import versions

LOCAL = "local"
AUTO = "auto"  # the cluster that RAY_ADDRESS names, or that runs on this machine
MAX_RETRIES = 3  # of a task whose worker or node died
TASKS_PER_CORE = 2
CONNECT_SECONDS = 5.0
HEALTH_SECONDS = 20.0  # the import of Ray included
NODE_SECONDS = 60.0  # to start a worker and answer
REPORT_SECONDS = 1.0
LOCAL_STORE_BYTES = 80_000_000  # Ray's own memory for objects, near its least; ours are small
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` uploads the current folder to the cluster
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Checks at once that the cluster can be reached, and leaves it at the end; it is joined when the first shards are mapped.

    Raises MissingExtra without Ray, RecipeError for what is no address, ResourceError when nobody answers there.
    """
    if address is None:
        yield
        return
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra('--ray needs Ray: pip install "gristmill[ray]"')
    if address not in (LOCAL, AUTO):
        _check_answers(address)
    try:
        yield
    finally:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


@dataclass(frozen=True, kw_only=True)
class RayTasks:
    """Runs functions as tasks of the cluster at `address`; "local" starts one on this machine with `processes` cores.

    must_see: files and folders that each node has to find as this machine does.
    """

    address: str
    processes: int
    must_see: Sequence[Path]
    should_stop: Callable[[], bool]

    def map(self, fn: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """As Executor.map, in the order in which items are done. A shard that Ray gives up on gives ResourceError."""
        ray = _join(self.address, self.processes)
        _check_nodes(ray, self.must_see)
        yield from self._map(ray, fn, items, lambda: None)

    def map_guarded(
        self, fn: Callable[..., Result], items: Sequence[Item], *, progress: Callable[[Item, Any], None]
    ) -> Iterator[tuple[Item, Result | Exception]]:
        """The same of a guarded function; progress gets an item and how far the function is with it."""
        ray = _join(self.address, self.processes)
        _check_nodes(ray, self.must_see)
        counts = ray.remote(num_cpus=0, scheduling_strategy=_on(ray.get_runtime_context().get_node_id()))(_Counts)
        counter = counts.remote()
        reported = time.monotonic()

        def report() -> None:
            nonlocal reported
            if time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                for number, behind in ray.get(counter.take.remote()).items():
                    progress(items[number], behind)

        numbered = self._map(ray, partial(_guarded, fn, counter), enumerate(items), report)
        try:
            for (_, item), outcome in numbered:
                yield item, outcome
        finally:
            numbered.close()  # before the counter, which they use
            ray.kill(counter)

    def _map(
        self, ray: Any, fn: Callable[[Item], Result], items: Iterable[Item], report: Callable[[], None]
    ) -> Generator[tuple[Item, Result | Exception], None, None]:
        task, function = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_run), ray.put(fn)
        waiting, running = iter(items), dict[Any, Item]()
        folder, more = os.getcwd(), True
        try:
            while True:
                most = TASKS_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while more and len(running) < most:
                    for item in waiting:
                        running[task.remote(folder, function, item)] = item
                        break
                    else:
                        more = False
                if not running:
                    return
                if self.should_stop():
                    raise Interrupted("stopped; shards that are done are kept, those under way start over.")
                ready, _ = ray.wait(list(running), num_returns=1, timeout=STOP_POLL_SECONDS)
                for reference in ready:
                    item = running.pop(reference)
                    yield item, _outcome(ray, reference, item)
                report()
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


# ── on a node ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _run(folder: str, fn: Callable[[Any], Any], item: Any) -> Any:
    """The task: what the function returns, or the exception it raised. Relative paths are those of the driver."""
    _prepare_worker(folder)
    try:
        return fn(item)
    except Exception as error:
        return error


def _prepare_worker(folder: str) -> None:
    os.chdir(folder)
    set_library_defaults()
    # Children of multiprocessing prepare the main module, here Ray's worker, which would import Ray into each of them.
    vars(sys.modules["__main__"]).pop("__file__", None)


def _guarded(fn: Callable[..., Any], counter: Any, numbered: tuple[int, Any]) -> Any:
    number, item = numbered
    told: tuple[Any, float] = (None, time.monotonic())

    def progress(behind: Any) -> None:
        nonlocal told
        if behind != told[0] and time.monotonic() - told[1] >= REPORT_SECONDS:
            told = (behind, time.monotonic())
            counter.put.remote(number, behind)

    return fn(item, progress=progress)


class _Counts:
    """The actor that tasks tell how far they are. It lives on the driver's node."""

    def __init__(self) -> None:
        self._counts: dict[int, Any] = {}

    def put(self, number: int, behind: Any) -> None:
        """How far the function is with an item by now."""
        self._counts[number] = behind

    def take(self) -> dict[int, Any]:
        """What was told since the last time."""
        taken, self._counts = self._counts, {}
        return taken


# ── the cluster ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _outcome(ray: Any, reference: Any, item: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return ResourceError(
            f"Ray gave up on {item} after {MAX_RETRIES + 1} attempts: {_first_line(error)}.\n"
            "  Often a node ran out of memory: use fewer or larger nodes, then run the same command again."
        )


def _join(address: str, processes: int) -> Any:
    """The module `ray`, connected. Ray puts a handler of its own in place of ours for SIGTERM; ours comes back."""
    os.environ.update(ENVIRONMENT)
    import ray

    if ray.is_initialized():
        return ray
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"num_cpus": processes, "include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ResourceError(
            f"cannot join the Ray cluster {address!r}: {_first_line(error)}.\n"
            "  Start this command on a node of the cluster, with the Ray and Python that the cluster runs."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)
    return ray


def _check_answers(address: str) -> None:
    """Asks in a process that can be ended: Ray itself tries for minutes, then aborts."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise RecipeError(f"--ray {address!r} is no address; expected {LOCAL}, {AUTO} or HOST:PORT of the head node.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        subprocess.run(command, capture_output=True, check=True, timeout=HEALTH_SECONDS)
    except (OSError, OverflowError, subprocess.SubprocessError) as error:
        why = error if isinstance(error, OSError) else "it is not the head node of one"
        raise ResourceError(
            f"no Ray cluster answers at {address}: {why}.\n  Look whether its head node runs (`ray status --address {address}`)."
        ) from error


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _check_nodes(ray: Any, paths: Sequence[Path]) -> None:
    """Raises ResourceError that names the nodes which do not see the files as this machine does, or run other versions."""
    look = partial(_differences, os.getcwd(), {str(path): _stamp(path) for path in paths}, versions())
    task = ray.remote(num_cpus=0, max_retries=0)(look.func)
    asked = {
        task.options(scheduling_strategy=_on(node["NodeID"])).remote(*look.args): node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
    wrong = [f"{asked[reference]}: no answer within {NODE_SECONDS:.0f} s" for reference in silent]
    for reference in answered:
        try:
            found = ray.get(reference)
        except ray.exceptions.RayError as error:
            found = [_first_line(error)]
        wrong += [f"{asked[reference]}: {difference}" for difference in found]
    if wrong:
        raise ResourceError(
            f"{len({line.partition(':')[0] for line in wrong})} of {len(asked)} nodes of the Ray cluster cannot do the work:\n  "
            + "\n  ".join(sorted(wrong))
            + "\n  All nodes need the same files under the same paths, and the same gristmill."
        )


def _differences(folder: str, stamps: Mapping[str, Any], wanted: Mapping[str, str]) -> list[str]:
    """Runs on a node: what is otherwise there than on the driver's machine."""
    try:
        os.chdir(folder)
    except OSError as error:
        return [f"cannot work in {folder}: {error.strerror}"]
    found: list[str] = []
    for path, stamp in stamps.items():
        if (there := _stamp(Path(path))) != stamp:
            found.append(f"{path} is {'not there' if there is None else 'another file, or its stamp differs'}")
    here = versions()
    return found + [
        f"{name} is {here.get(name, 'not installed')}, here {version}"
        for name, version in wanted.items()
        if here.get(name) != version
    ]


def _stamp(path: Path) -> list[int] | None:
    """As extract stamps the files of a shard; of a folder without its times, which change as it fills."""
    try:
        status = path.stat()
    except OSError:
        return None
    if path.is_dir():
        return [status.st_ino]
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _first_line(error: BaseException) -> str:
    """What an error of Ray says: the last line of the remote traceback where it carries one."""
    if isinstance(error, GristmillError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    told = lines[-1] if len(lines) > 1 and "Traceback" in str(error) else lines[0]
    return told.rstrip(".")[:300]
