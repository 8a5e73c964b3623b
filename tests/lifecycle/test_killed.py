"""Killed anywhere and run again gives the same artefacts as never stopped, file by file."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.store.artifact import MANIFEST, RECORD, is_committed, verify_manifest
from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_log

SCRIPT = Path(sys.executable).with_name("gristmill")
COMMAND = (SCRIPT, "run", "recipe.yaml", "--threads", "1", "--processes", "2")
SECONDS = 300.0  # no step of the tiny recipe takes a tenth of it
NUM_RANDOM_KILLS = 60


# ── what must be equal ───────────────────────────────────────────────────────────────────────────────────────────────


TIMINGS = {
    "seconds",
    "started_seconds",
    "wait_seconds",
    "training_seconds",
    "tokens_per_second",
    "pretraining_seconds",  # of the estimate, which a short measurement of the machine made
    "speed_source",
}
DURATION = re.compile(r"\d[\d.,]*\s*(?:ms|s|min|minutes|h|hours)\b")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:+]+")


def without_timings(value: Any) -> Any:
    """The value without what a clock has put in."""
    if isinstance(value, dict):
        return {
            key: without_timings(item)
            for key, item in value.items()
            if key not in TIMINGS and not key.startswith("throughput/")
        }
    return [without_timings(item) for item in value] if isinstance(value, list) else value


def page_without_timings(text: str) -> str:
    """A report without durations, and without its cost section, which says nothing but durations and memory."""
    cost = re.compile(r'<h2 id="cost">.*?(?=<h2 )', re.DOTALL)
    return DURATION.sub("", MOMENT.sub("", cost.sub("", text)))


def content(step: Path) -> dict[str, Any]:
    """File → what must be equal: its hash, or for the few files that a clock writes into, their content without that."""
    verify_manifest(step)
    found: dict[str, Any] = {}
    for name, entry in read_json(step / MANIFEST).items():
        path = step / name
        if name.endswith("metrics.jsonl"):
            found[name] = [without_timings(line) for line in read_log(path)]
        elif re.fullmatch(r"checkpoints/step-\d+/state.json", name):
            found[name] = without_timings(read_json(path))
        elif re.fullmatch(r"checkpoints/step-\d+/manifest.json", name):
            found[name] = {file: found for file, found in read_json(path).items() if file != "state.json"}
        elif name.endswith((".html", "README.md")):
            found[name] = page_without_timings(path.read_text(encoding="utf-8"))
        else:
            found[name] = entry["sha256"]
    return found


def assert_same_run(one: Path, other: Path, steps: list[str]) -> None:
    """Every artefact of two runs holds the same."""
    for name in steps:
        left, right = content(one / name), content(other / name)
        assert left.keys() == right.keys(), name
        different = [file for file in left if left[file] != right[file]]
        assert not different, f"{name}: {different}"
        records = [read_json(run / name / RECORD) for run in (one, other)]
        for key in ("fingerprint", "identity"):
            assert records[0][key] == records[1][key], f"{name}: {key}"
        counts = [without_timings(record["counts"]) for record in records]
        if name != "report":  # which counts its own bytes, durations among them
            assert counts[0] == counts[1], name


# ── a run that can be killed ─────────────────────────────────────────────────────────────────────────────────────────


class Running:
    """`gristmill run` as a process group of its own; what it prints can be waited for."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / "log.txt"
        self._out = self.log.open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )

    @property
    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, what: Callable[[], bool]) -> bool:
        """True as soon as it holds; False when the process ended before. Fails after SECONDS."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if what():
                return True
            if self.process.poll() is not None:
                return what()
            time.sleep(0.005)
        raise AssertionError(f"nothing happened in {SECONDS} s; it printed:\n{self.printed}")

    def wait_for_line(self, pattern: str) -> None:
        assert self.wait_for(lambda: re.search(pattern, self.printed, re.MULTILINE) is not None), self.printed

    def end(self) -> int:
        return self.process.wait(timeout=SECONDS)

    def kill(self) -> None:
        """SIGKILL to the main process alone, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._out.close()


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Running]:
    run = Running(folder, *arguments)
    try:
        yield run
    finally:
        run.close()


def step_names(project: Path) -> list[str]:
    return [step.name for step in steps_of(load_recipe(project / "recipe.yaml").recipe)]


# When a step is in the middle: what lies in its working folder then. Steps that are not named are killed after a moment.
MIDDLE = {
    "extract/manuals": "shard-0000?.json",
    "score/manuals": "scores-00000.parquet",
    "select": "near_duplicates.json",
    "tokenize": "manuals/train.json",
    "pretrain": "checkpoints/step-0000010",
    "sft": "checkpoints/step-0000028",
    "pairs": "samples.jsonl",
    "dpo": "checkpoints/*",
    "evaluate": "models/pretrain.json",
    "export": "model/*",
}


def kill_in(project: Path, name: str, *, delay: float) -> None:
    """Runs until the step is under way, and kills the process there."""
    step = project / "runs" / "tiny" / name
    working = step.with_name(f"{step.name}.partial")
    for pause in (delay, 0.0):
        with running(project) as run:
            run.wait_for_line(rf"^running +{re.escape(name)} ")
            if name in MIDDLE and pause:
                run.wait_for(lambda: is_committed(step) or any(working.glob(MIDDLE[name])))
            else:
                time.sleep(pause)
            run.kill()
        if not is_committed(step):
            return
        shutil.rmtree(step)  # the step was done before the signal came
    raise AssertionError(f"{name} is done before it can be killed")


@pytest.mark.timeout(1200)
def test_killed_in_the_middle_of_every_step_and_resumed_gives_the_same_artefacts(
    project: Path, finished_run: Path
) -> None:
    steps = step_names(project)
    for number, name in enumerate(steps):
        kill_in(project, name, delay=0.02 * (number % 4 + 1))
    with running(project) as run:
        assert run.end() == 0, run.printed
    assert re.findall(r"^running +(\S+)", run.printed, re.MULTILINE) == [steps[-1]]
    assert_same_run(project / "runs" / "tiny", finished_run, steps)
    left = [path for path in (project / "runs").rglob("*") if ".partial" in path.name or path.name.endswith(".tmp")]
    assert not left


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_sixty_kills_at_random_moments_leave_the_same_artefacts(project: Path, finished_run: Path) -> None:
    steps = step_names(project)
    draw = random.Random(8)
    kills = 0
    while kills < NUM_RANDOM_KILLS:
        with running(project) as run:
            try:
                code = run.process.wait(timeout=draw.uniform(0.5, 12.0))
            except subprocess.TimeoutExpired:
                run.kill()
                kills += 1
                continue
            assert code == 0, run.printed
        assert_same_run(project / "runs" / "tiny", finished_run, steps)
        shutil.rmtree(project / "runs")
    with running(project) as run:
        assert run.end() == 0, run.printed
    assert_same_run(project / "runs" / "tiny", finished_run, steps)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sigterm_in_every_step_leaves_with_143_and_the_same_artefacts_in_the_end(
    project: Path, finished_run: Path
) -> None:
    steps = step_names(project)
    for name in steps[:-1]:
        shutil.rmtree(project / "runs" / "tiny" / name, ignore_errors=True)  # it was done before the last signal came
        with running(project) as run:
            run.wait_for_line(rf"^running +{re.escape(name)} ")
            time.sleep(0.1)
            run.process.send_signal(signal.SIGTERM)
            assert run.end() == 143, f"{name}: {run.printed}"
        assert "run the same command" in run.printed.lower()
        assert "Traceback" not in run.printed, f"{name}: {run.printed}"
    with running(project) as run:
        assert run.end() == 0, run.printed
    for name in steps:
        left, right = content(project / "runs" / "tiny" / name), content(finished_run / name)
        kept = [file for file in right if not file.startswith("checkpoints/")]  # a signal saves one more
        assert [file for file in kept if left[file] != right[file]] == [], name


# ── signals that ask ─────────────────────────────────────────────────────────────────────────────────────────────────


def forget(project: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(project / "runs" / "tiny" / name)


@pytest.mark.timeout(600)
def test_sigterm_saves_the_training_and_the_second_run_goes_on_from_there(
    done_project: Path, finished_run: Path
) -> None:
    forget(done_project, "pretrain")
    with running(done_project, "--until", "pretrain") as run:
        run.wait_for_line(r"^ +step 3: loss")
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 143, run.printed
    stopped = re.search(r"pretrain stopped after step (\d+); its state is saved", run.printed)
    assert stopped is not None, run.printed
    assert "Run the same command to go on." in run.printed
    assert "Traceback" not in run.printed
    checkpoint = f"step-{int(stopped[1]):07d}"
    assert (done_project / "runs/tiny/pretrain.partial/checkpoints" / checkpoint).is_dir()
    with running(done_project, "--until", "pretrain") as run:
        assert run.end() == 0, run.printed
    assert f"going on from {checkpoint}" in run.printed
    model = "pretrain/model/model.safetensors"
    assert (done_project / "runs/tiny" / model).read_bytes() == (finished_run / model).read_bytes()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["extract/manuals", "pretrain"])
def test_ctrl_c_reaches_the_whole_group_and_leaves_with_130_and_no_traceback(
    done_project: Path, finished_run: Path, name: str
) -> None:
    forget(done_project, name)
    for pause in (0.0, 0.4, 0.8):
        with running(done_project, "--until", name) as run:
            run.wait_for_line(rf"^running +{name}")
            time.sleep(pause)
            os.killpg(run.process.pid, signal.SIGINT)
            assert run.end() == 130 or is_committed(done_project / "runs/tiny" / name), run.printed
        assert "Traceback" not in run.printed, run.printed
        assert is_committed(done_project / "runs/tiny" / name) or "Run the same command to go on." in run.printed
    with running(done_project, "--until", name) as run:
        assert run.end() == 0, run.printed
    kept = [file for file in content(finished_run / name) if not file.startswith("checkpoints/")]
    assert [
        file for file in kept if content(done_project / "runs/tiny" / name)[file] != content(finished_run / name)[file]
    ] == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["extract/manuals", "export"])
def test_second_ctrl_c_leaves_at_once(done_project: Path, name: str) -> None:
    forget(done_project, name)
    with running(done_project, "--until", name) as run:
        run.wait_for_line(rf"^running +{name}")
        time.sleep(0.2)
        until = time.monotonic() + SECONDS
        while run.process.poll() is None and time.monotonic() < until:
            os.killpg(run.process.pid, signal.SIGINT)  # as an impatient person does
            time.sleep(0.1)
        assert run.end() == 130, run.printed
    assert "the same command" in run.printed
    assert "Traceback" not in run.printed
    with running(done_project, "--until", name) as run:
        assert run.end() == 0, run.printed


@pytest.mark.timeout(600)
def test_work_of_earlier_attempts_counts_in_the_record(done_project: Path) -> None:
    forget(done_project, "pretrain")
    with running(done_project, "--until", "pretrain") as run:
        run.wait_for_line(r"^running +pretrain")
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 143, run.printed
    note = done_project / "runs/tiny/pretrain.partial.json"
    noted = read_json(note)
    assert noted["seconds"] > 0
    note.write_text(json.dumps({**noted, "seconds": 1000.0}), encoding="utf-8")
    with running(done_project, "--until", "pretrain") as run:
        assert run.end() == 0, run.printed
    assert read_json(done_project / "runs/tiny/pretrain" / RECORD)["wall_seconds"] > 1000
