"""Documents of noise among regular ones, from their files to the report: when they alarm, and what each policy makes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spiky
import yaml
from whole_runs import OPTIONS, WEIGHTS, Command

from conftest import ONE_THREAD, copy_project, locked
from gristmill.recipe.interventions import FOLDER, NOTED
from gristmill.store.jsonl import read_jsonl, read_log
from gristmill.train.events import EVENTS, MixtureEvent, PassedOverEvent, SpikeEvent, read_events

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the tokens makes them
PRETRAIN = ("run", "recipe.yaml", "--until", "pretrain", *OPTIONS)
MOST_OF_A_SEQUENCE = 40  # tokens of noise
KILLED_AFTER_THE_FIRST_EVENT = """
import os, signal, sys
from gristmill import cli
from gristmill.train.monitor import Monitor

real = Monitor.event

def event(self, found):
    real(self, found)
    os.kill(os.getpid(), signal.SIGKILL)

Monitor.event = event
sys.argv = ["gristmill", *sys.argv[1:]]
cli.main()
"""


@pytest.fixture(scope="session")
def tokenized_project(shared_folder: Path) -> Path:
    """The project with all that pretraining reads."""
    project = shared_folder / "spiky-project"
    with locked(shared_folder / "spiky-project.lock"):
        if not project.exists():
            making = project.with_name("spiky-project.making")
            shutil.rmtree(making, ignore_errors=True)
            spiky.write_project(making)
            command = [sys.executable, "-m", "gristmill", "run", "recipe.yaml", "--until", "tokenize", *OPTIONS]
            subprocess.run(command, cwd=making, env={**os.environ, **ONE_THREAD}, check=True, stdout=subprocess.DEVNULL)
            making.rename(project)
    return project


@pytest.fixture
def spiky_project(tokenized_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is also the current folder."""
    copy_project(tokenized_project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def parts_of(gristmill: Command, step: int) -> list[dict[str, Any]]:
    answer = gristmill("trace", "runs/spiky", "--step", step, "--json")
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.out.splitlines()]


def noisy_steps(gristmill: Command) -> list[int]:
    """The steps that read most of a sequence of noise, by the order of training."""
    read: dict[int, int] = {}
    for number in range(len(spiky.NOISE_AT)):
        answer = gristmill("trace", "runs/spiky", "--document", f"noise-{number}", "--json")
        for reading in map(json.loads, answer.out.splitlines()):
            read[reading["step"]] = read.get(reading["step"], 0) + reading["end"] - reading["first"] + 1
    return sorted(step for step, tokens in read.items() if tokens >= MOST_OF_A_SEQUENCE)


def test_noise_alarms_in_its_steps_and_no_other_and_its_documents_are_named(
    spiky_project: Path, gristmill: Command
) -> None:
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert answer.code == 0, answer.err
    run = spiky_project / "runs" / "spiky"
    events = read_events(run / "pretrain" / EVENTS)
    spikes = [event for event in events if isinstance(event, SpikeEvent)]
    steps = [event.step for event in spikes]
    assert steps == noisy_steps(gristmill)
    assert len(steps) == 3
    for event in spikes:
        assert "loss" in event.exceeding
        assert "furthest above its own: tales" in str(event)
        assert f"{event} (applied). Its documents: runs/spiky/{event.text}." in " ".join(answer.out.split())
        assert event.text is not None
        _, *written = read_jsonl(run / event.text)
        assert written == parts_of(gristmill, event.step)
        assert sum(part["document"].startswith("noise-") for part in written) >= 3
    changes = [event for event in events if isinstance(event, MixtureEvent)]
    assert [event.since for event in changes] == [240, 300], "and the loss rises by a fifth at the first: no alarm"
    logged = {line["step"]: line["train/loss"] for line in read_log(run / "pretrain" / "metrics.jsonl") if line["kind"] == "train"}  # fmt: skip
    assert logged[250] > 1.15 * logged[240]
    told = " ".join(gristmill("status", "recipe.yaml").out.split())
    assert f"Spike at step {steps[-1]}: loss" in told
    rows = {row["step"]: row for row in json.loads(gristmill("status", "recipe.yaml", "--json").out)}
    assert [line["step"] for line in rows["pretrain"]["events"] if line["kind"] == "spike"] == steps
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count(f"<title>Spike at step {steps[0]}: loss") == 2, "a mark on the loss, one on the gradient norm"
    assert "What happened in training" in page


def test_a_rewind_is_an_intervention_and_leaves_what_a_run_with_the_change_from_the_beginning_leaves(
    spiky_project: Path, gristmill: Command
) -> None:
    answer = gristmill(*PRETRAIN, "pretrain.on_spike=rewind")
    assert answer.code == 0, answer.err
    run = spiky_project / "runs" / "spiky"
    kept = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((run / FOLDER).iterdir())]
    assert len(kept) == 3
    for change in kept:
        spike = SpikeEvent.from_json(change[NOTED]["spike"], where="an intervention")
        assert (change["after_step"], change["set"]) == (spike.step - 1, {"skip_steps": 1})
        assert change["why"] == str(spike)
        assert change[NOTED]["measured"].keys() >= {"eval/tales/bits_per_byte"}
        assert spike.text is not None
        parts = read_jsonl(run / spike.text)[1:]
        assert sum(part["document"].startswith("noise-") for part in parts) >= 3
    assert kept[0]["why"] in gristmill("recipe", "runs/spiky").out
    assert "nothing to do" in gristmill("status", "recipe.yaml", "pretrain.on_spike=rewind").out

    recipe = yaml.safe_load((spiky_project / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["name"] = "straight"
    recipe["pretrain"]["changes"] = [{key: value for key, value in change.items() if key != NOTED} for change in kept]
    (spiky_project / "straight.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    elsewhere = spiky_project / "elsewhere"  # where no checkpoint of the other run is
    answer = gristmill(
        "run", "straight.yaml", "--until", "pretrain", *OPTIONS, "--runs-dir", elsewhere, "pretrain.on_spike=stop"
    )
    assert answer.code == 0, answer.err
    straight = elsewhere / "straight"
    assert (straight / "pretrain" / WEIGHTS).read_bytes() == (run / "pretrain" / WEIGHTS).read_bytes()
    passed = [event for event in read_events(straight / "pretrain" / EVENTS) if isinstance(event, PassedOverEvent)]
    assert [event.step - 1 for event in passed] == [change["after_step"] for change in kept]


def test_killed_right_after_a_spike_and_resumed_tells_the_same(
    spiky_project: Path, tokenized_project: Path, gristmill: Command, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED_AFTER_THE_FIRST_EVENT, *PRETRAIN]
    killed = subprocess.run(
        command, cwd=spiky_project, env={**os.environ, **ONE_THREAD}, check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    answer = gristmill(*PRETRAIN)
    assert answer.code == 0, answer.err
    assert re.search(r"Discarding \d+ log lines? written after this checkpoint", answer.out)
    resumed = spiky_project / "runs" / "spiky"
    copy_project(tokenized_project, tmp_path / "unbroken")
    answer = gristmill("run", tmp_path / "unbroken" / "recipe.yaml", "--until", "pretrain", *OPTIONS, "--runs-dir",
                       tmp_path / "unbroken" / "runs")  # fmt: skip
    assert answer.code == 0, answer.err
    unbroken = tmp_path / "unbroken" / "runs" / "spiky"
    for name in (f"pretrain/{EVENTS}", f"pretrain/{WEIGHTS}"):
        assert (resumed / name).read_bytes() == (unbroken / name).read_bytes(), name
    texts = [{path.name: path.read_bytes() for path in (run / "spikes").iterdir()} for run in (resumed, unbroken)]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_a_stop_ends_with_one_and_the_advice_works(spiky_project: Path, gristmill: Command) -> None:
    for _ in range(2):
        answer = gristmill(*PRETRAIN, "pretrain.on_spike=stop")
        assert answer.code == 1
        assert "Spike at step 187: loss" in answer.err
    why = ("--why", "noise among the documents")
    assert gristmill("rewind", "recipe.yaml", "--to", "186", "--skip", "1", *why).code == 0
    answer = gristmill(*PRETRAIN, "pretrain.on_spike=stop")
    assert (answer.code, "Spike at step 191" in answer.err) == (1, True), answer.err
    answer = gristmill(*PRETRAIN, "pretrain.on_spike=skip")
    assert answer.code == 0, answer.err
    found = [event for event in read_events(Path("runs/spiky/pretrain") / EVENTS) if isinstance(event, SpikeEvent)]
    assert [event.applied for event in found] == [False] * len(found)
