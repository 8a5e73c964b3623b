"""Killed anywhere and run again gives the same artefacts as never stopped, file by file."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from whole_runs import (
    SECONDS,
    WEIGHTS,
    Command,
    assert_same_run,
    checkpoints_of,
    content,
    forget,
    lines,
    links_of,
    run_here,
    running,
    step_names,
)

from gristmill.store.artifact import RECORD, is_committed
from gristmill.store.durable import read_json

NUM_RANDOM_KILLS = 60


# When a step is in the middle: what lies in its working folder then. Steps that are not named are killed after a moment.
MIDDLE = {
    "extract/manuals": "shard-0000?.json",
    "score/manuals": "scores-00000.parquet",
    "signatures/manuals": "prints-00000.parquet",
    "contamination/manuals": "matches-00000.parquet",
    "duplicates": "work/search/*",
    "select": "work/written/*.json",
    "tokenize": "manuals/train.json",
    "pretrain": "samples.jsonl",
    "sft": "metrics.jsonl",
    "pairs": "samples.jsonl",
    "dpo": "metrics.jsonl",
    "evaluate": "models/pretrain.json",
    "export": "model/*",
}
# One of each way to resume: by shards, by sides, by checkpoints, by rows, by models, and anew.
KILLED = ("extract/manuals", "select", "pretrain", "pairs", "dpo", "evaluate", "export", "report")


def kill_in(project: Path, name: str, *, delay: float) -> None:
    """Runs until the step is under way, and kills the process there."""
    step = project / "runs" / "tiny" / name
    working = step.with_name(f"{step.name}.unfinished")
    if is_committed(step):  # the signal for the step before came late
        forget(project, name)
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
        forget(project, name)  # the step was done before the signal came
    raise AssertionError(f"{name} is done before it can be killed")


def leftovers(project: Path) -> list[Path]:
    """What a finished run must not leave: unfinished work, its links, temporary files."""
    words = (".partial", ".unfinished", ".tmp")
    return [path for path in (project / "runs").rglob("*") if any(word in path.name for word in words)]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("killed", [KILLED, pytest.param(None, marks=pytest.mark.slow)])
def test_killed_in_the_middle_of_steps_and_resumed_gives_the_same_artefacts(
    project: Path, finished_run: Path, gristmill: Command, killed: tuple[str, ...] | None
) -> None:
    """killed: the steps; all for None."""
    steps = step_names(project)
    for number, name in enumerate(steps):
        if killed is None or name in killed:
            kill_in(project, name, delay=0.02 * (number % 4 + 1))
    assert lines(run_here(gristmill, project), "running") == [steps[-1]]
    assert_same_run(project / "runs" / "tiny", finished_run, steps)
    assert not leftovers(project)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_sixty_kills_at_random_moments_leave_the_same_artefacts(
    project: Path, finished_run: Path, gristmill: Command
) -> None:
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
    run_here(gristmill, project)
    assert_same_run(project / "runs" / "tiny", finished_run, steps)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sigterm_in_every_step_leaves_with_143_and_the_same_artefacts_in_the_end(
    project: Path, finished_run: Path, gristmill: Command
) -> None:
    steps = step_names(project)
    for name in steps[:-1]:
        if is_committed(project / "runs" / "tiny" / name):
            forget(project, name)  # it was done before the last signal came
        with running(project) as run:
            run.wait_for_line(rf"^running +{re.escape(name)} ")
            time.sleep(0.1)
            run.process.send_signal(signal.SIGTERM)
            assert run.end() == 143, f"{name}: {run.printed}"
        assert "run the same command" in run.printed.lower()
        assert "Traceback" not in run.printed, f"{name}: {run.printed}"
    run_here(gristmill, project)
    for name in steps:
        assert content(project / "runs" / "tiny" / name) == content(finished_run / name), name


# ── signals that ask ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(600)
def test_sigterm_saves_the_training_and_the_second_run_goes_on_from_there(
    done_project: Path, finished_run: Path, gristmill: Command
) -> None:
    forget(done_project, "pretrain")
    with running(done_project, "--until", "pretrain") as run:
        run.wait_for_line(r"^ +stage stable")
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 143, run.printed
    stopped = re.search(r"pretrain: stopped after step (\d+); its state is saved", run.printed)
    assert stopped is not None, run.printed
    assert "Run the same command to resume." in run.printed
    assert "Traceback" not in run.printed
    assert checkpoints_of(done_project)[0].step == int(stopped[1])
    assert f"Resuming from step {stopped[1]}." in run_here(gristmill, done_project, "--until", "pretrain")
    model = f"pretrain/{WEIGHTS}"
    assert (done_project / "runs/tiny" / model).read_bytes() == (finished_run / model).read_bytes()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["extract/manuals", "pretrain"])
def test_ctrl_c_reaches_the_whole_group_and_leaves_with_130_and_no_traceback(
    done_project: Path, finished_run: Path, gristmill: Command, name: str
) -> None:
    forget(done_project, name)
    for pause in (0.0, 0.6):
        with running(done_project, "--until", name) as run:
            run.wait_for_line(rf"^running +{name}")
            time.sleep(pause)
            os.killpg(run.process.pid, signal.SIGINT)
            assert run.end() == 130 or is_committed(done_project / "runs/tiny" / name), run.printed
        assert "Traceback" not in run.printed, run.printed
        assert is_committed(done_project / "runs/tiny" / name) or "Run the same command to resume." in run.printed
    run_here(gristmill, done_project, "--until", name)
    assert content(done_project / "runs/tiny" / name) == content(finished_run / name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["extract/manuals", "export"])
def test_second_ctrl_c_leaves_at_once(done_project: Path, name: str, gristmill: Command) -> None:
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
    run_here(gristmill, done_project, "--until", name)


@pytest.mark.timeout(600)
def test_work_of_earlier_attempts_counts_in_the_record(done_project: Path, gristmill: Command) -> None:
    forget(done_project, "pretrain")
    with running(done_project, "--until", "pretrain") as run:
        run.wait_for_line(r"^running +pretrain")
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 143, run.printed
    unfinished = links_of(done_project).unfinished("pretrain")
    assert unfinished is not None
    note = unfinished.resolve().with_name(f"{unfinished.resolve().name}.json")
    noted = read_json(note)
    assert noted["seconds"] > 0
    note.write_text(json.dumps({**noted, "seconds": 1000.0}), encoding="utf-8")
    run_here(gristmill, done_project, "--until", "pretrain")
    assert read_json(done_project / "runs/tiny/pretrain" / RECORD)["wall_seconds"] > 1000
