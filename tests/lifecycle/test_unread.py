"""A run whose output nobody reads any more: Ctrl-C in a pipeline ends the readers too, and `head` leaves early."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from whole_runs import ONE_THREAD, OPTIONS, SCRIPT, SECONDS, Command, checkpoints_of, run_here

from gristmill.store.artifact import verify_manifest
from gristmill.store.heartbeat import read_beat

ANEW = ("pretrain.optimizer.peak_lr=1e-3", "--until", "pretrain")


@pytest.mark.parametrize(("is_interrupted", "code"), [(True, 130), (False, 141)])
def test_a_run_whose_reader_leaves_saves_its_state_and_ends_as_it_would_have(
    gristmill: Command, done_project: Path, is_interrupted: bool, code: int
) -> None:
    with subprocess.Popen(
        [SCRIPT, "run", "recipe.yaml", *OPTIONS, *ANEW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD},
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert any(line.startswith("running  pretrain") for line in run.stdout)
        if is_interrupted:
            run.send_signal(signal.SIGINT)
        run.stdout.close()  # before "stage stable" is printed
        told = run.stderr.read()
        assert run.wait(timeout=SECONDS) == code, told
    assert told.startswith("Interrupted: pretrain: stopped after step 1; its state is saved.\n")
    assert len(told.splitlines()) == 2
    beat = read_beat(done_project / "runs" / "tiny")
    assert beat is not None
    assert beat.exit_code == code
    [saved] = [ref for ref in checkpoints_of(done_project) if ref.step == 1]
    verify_manifest(saved.folder)
    assert "Resuming from step 1." in run_here(gristmill, done_project, *ANEW)
