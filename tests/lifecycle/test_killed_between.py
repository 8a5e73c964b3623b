"""Killed right before any rename, link or removal of a training: the next attempt ends as if nothing had been.

A changed decay is trained in a finished project: what was made is withdrawn, a checkpoint of it is taken over, later ones are let
go, new ones are saved and old ones pruned, the model is committed and linked.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import ONE_THREAD, OPTIONS, Command, content, edit, forget, lines, links_of, remove_folder, running

from gristmill.store.artifact import MANIFEST, RECORD
from gristmill.store.durable import read_json
from gristmill.store.removal import removable, remove

pytestmark = pytest.mark.timeout(1200)  # the first test that asks for the finished run makes it

DIE = Path(__file__).with_name("die.py")
TRAINING = "pretrain|checkpoints"
LATER_AND_LATER = (
    33,
    87,
)  # of about 200 changes, fewer where a checkpoint is there already; the slow test dies at each


def die_at(project: Path, number: int) -> bool:
    """Runs the pretraining and is killed at that change; False when it came to its end before."""
    command = [sys.executable, DIE, TRAINING, str(number), "run", "recipe.yaml", "--until", "pretrain", *OPTIONS]
    found = subprocess.run(
        command, cwd=project, env={**os.environ, **ONE_THREAD}, check=False, capture_output=True, text=True
    )
    assert found.returncode in (0, -signal.SIGKILL), found.stderr
    return found.returncode != 0


def state_of(project: Path) -> dict[str, object]:
    """All that the training left: content, links, and the manifests of the checkpoints that the run links.

    Half-made links go with the next `clean`. The lock file of what was committed right before a kill may stay; nobody holds it.
    """
    links = links_of(project)
    remove(links.store, [])
    linked = {path.name: os.readlink(path) for path in sorted((links.folder / "checkpoints" / "pretrain").iterdir())}
    names = {
        path.relative_to(project).as_posix()
        for path in (project / "runs").rglob("*")
        if any(word in path.name for word in (".partial", ".unfinished", ".tmp"))
    }
    return {
        "content": content(links.folder / "pretrain"),
        "document": read_json(links.folder / "pretrain" / RECORD)["document"],
        "linked": {name: target.rpartition("/")[2] for name, target in linked.items()},
        "sound": [(links.folder / "checkpoints" / "pretrain" / name / MANIFEST).is_file() for name in linked],
        "leftovers": names,
        "trash": list((links.store.root / ".trash").glob("*")),
    }


def start(finished: Path, target: Path, how: str) -> Path:
    """A copy of the finished project in which the pretraining is to be made: anew, or for its end."""
    shutil.copytree(finished, target, symlinks=True)
    if how == "anew":
        forget(target, "pretrain")
    else:
        edit(target, "pretrain.decay_tokens", 8192)
    return target


def unbroken(finished: Path, target: Path, how: str) -> dict[str, object]:
    project = start(finished, target, how)
    assert not die_at(project, 0)
    return state_of(project)


def test_killed_again_and_again_at_later_and_later_changes(
    finished_project: Path, tmp_path: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = unbroken(finished_project, tmp_path / "unbroken", "changed decay")
    project = start(finished_project, tmp_path / "killed", "changed decay")
    kills = sum(die_at(project, number) for number in LATER_AND_LATER)
    assert kills == len(LATER_AND_LATER), "it was done before the last kill"
    assert not die_at(project, 0)
    assert state_of(project) == expected
    monkeypatch.chdir(project)
    edit(project, "pretrain.decay_tokens", 14_336)
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, []), "what was made before is lost"
    assert {item.kind for item in removable(links_of(project).store)} <= {"artefact", "checkpoint"}


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("how", ["anew", "changed decay"])
def test_killed_at_each_single_change(finished_project: Path, tmp_path: Path, how: str) -> None:
    expected = unbroken(finished_project, tmp_path / "unbroken", how)
    number, killed = 1, True
    while killed:
        project = start(finished_project, tmp_path / "killed", how)
        killed = die_at(project, number)
        if killed:
            with running(project, "--until", "pretrain") as run:
                assert run.end() == 0, f"after change {number}: {run.printed}"
        assert state_of(project) == expected, f"after change {number}"
        remove_folder(project)
        number += 1
    assert number > 20, "the changes are not counted"
