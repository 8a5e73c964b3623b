"""The command line with several ranks: pretraining of the tiny recipe by two, against the finished run of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_log

pytestmark = pytest.mark.slow


def test_a_run_of_two_ranks_pretrains_as_the_run_of_one_process_did(project: Path, finished_project: Path) -> None:
    command = [sys.executable, "-m", "gristmill", "run", "recipe.yaml", "--until", "pretrain", "--ranks", "2"]
    subprocess.run([*command, "--threads", "1", "--processes", "2"], check=True, cwd=project, timeout=170)
    one, two = (
        read_log(folder / "runs" / "tiny" / "pretrain" / "metrics.jsonl") for folder in (finished_project, project)
    )
    assert [(line["step"], line["tokens"], line["kind"]) for line in one] == [
        (line["step"], line["tokens"], line["kind"]) for line in two
    ]
    losses = [[line["train/loss"] for line in lines if line["kind"] == "train"] for lines in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    records = [
        read_json(folder / "runs" / "tiny" / "pretrain" / "record.json") for folder in (finished_project, project)
    ]
    assert records[0]["identity"] == records[1]["identity"]
    assert records[0]["counts"]["tokens_by_source"] == records[1]["counts"]["tokens_by_source"]
    assert (records[1]["machine"]["ranks"], "ranks" in records[0]["machine"]) == (2, False)
