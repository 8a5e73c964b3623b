"""Ranks of an array: together they make the shards of a step, nobody commits, and the run that does leaves the bytes of any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whole_runs import ONE_THREAD, Command, links_of, step_names

from gristmill.errors import RecipeError
from gristmill.graph.share import Share, read_share
from gristmill.rank_notes import note_of_rank, take_in_ranks
from gristmill.store.durable import read_json, write_json

SLURM = {
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "3",
}
CURATION = ("extract", "classifier", "score", "signatures", "contamination", "duplicates", "select")


@given(st.integers(0, 50), st.integers(1, 60), st.text())
def test_every_shard_is_in_the_share_of_exactly_one_rank_and_shares_are_even(shards: int, size: int, step: str) -> None:
    shares = [Share(rank=rank, size=size).of(range(shards), step) for rank in range(size)]
    assert sorted(shard for share in shares for shard in share) == list(range(shards))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_is_read_from_the_option_or_from_slurm() -> None:
    assert read_share("63/64", {}) == Share(rank=63, size=64)
    assert read_share("slurm", SLURM) == Share(rank=2, size=4)


@pytest.mark.parametrize("text", ["", "3", "3/3", "-1/3", "0/0", "1/2/3", "a/b", "slurm"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="RANK/SIZE"):
        read_share(text, {})


def test_a_slurm_array_with_gaps_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"numbered 0-3, but found .*MIN=1"):
        read_share("slurm", {**SLURM, "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4"})


def test_the_run_takes_in_the_time_of_ranks_and_names_those_that_are_missing(tmp_path: Path) -> None:
    working = tmp_path / "x.partial"
    working.mkdir()
    write_json(tmp_path / "x.partial.json", {"fingerprint": "x", "seconds": 1.0})
    for rank, done in ((0, True), (2, False)):
        write_json(note_of_rank(working, Share(rank=rank, size=4)), {"seconds": 10.0, "done": done})
    assert take_in_ranks(working) == [
        "3 of 4 ranks did not finish their shares (1, 2, 3); what is missing is made here"
    ]
    assert read_json(tmp_path / "x.partial.json")["seconds"] == 21.0
    assert list(working.iterdir()) == []
    assert take_in_ranks(working) == []


def assert_same_curation(project: Path, other: Path) -> None:
    """Every curation step of two runs has the same identity and the same files."""
    one, two = links_of(project), links_of(other)
    names = [step for step in step_names(project) if step.partition("/")[0] in CURATION]
    for name in names:
        assert one.target(name) == two.target(name), name
        assert read_json(one.folder / name / "manifest.json") == read_json(two.folder / name / "manifest.json"), name


def test_ranks_and_a_run_that_names_the_missing_one_leave_the_bytes_of_a_plain_run(
    gristmill: Command, project: Path, finished_project: Path
) -> None:
    first = gristmill("run", "recipe.yaml", "--processes", 1, "--array", "0/2")
    assert first.code == 0, first.err
    assert "\n  gristmill run recipe.yaml --processes 1 --until extract\n" in first.out
    assert links_of(project).artefact("extract/manuals") is None
    committed = gristmill("run", "recipe.yaml", "--processes", 1, "--until", "extract")
    assert committed.code == 0, committed.err
    assert "1 of 2 ranks did not finish their shares (1); what is missing is made here" in committed.out
    assert gristmill("run", "recipe.yaml", "--processes", 1, "--until", "classifier").code == 0
    for rank in (1, 0):
        answer = gristmill("run", "recipe.yaml", "--processes", 1, f"--array={rank}/2")
        assert answer.code == 0, answer.err
        assert "this makes the rest:\n  gristmill run recipe.yaml --processes 1\n" in answer.out
    rest = gristmill("run", "recipe.yaml", "--processes", 1, "--until", "select")
    assert rest.code == 0, rest.err
    assert rest.out.count("all 2 ranks made their shares") == 9
    assert_same_curation(project, finished_project)


def test_ray_and_array_exclude_each_other(gristmill: Command, project: Path) -> None:
    answer = gristmill("run", "recipe.yaml", "--ray", "local", "--array", "0/2")
    assert (answer.code, "exclude each other" in answer.err) == (2, True)


@pytest.mark.slow
def test_ranks_at_the_same_time_one_of_them_killed_and_started_again(project: Path, finished_project: Path) -> None:
    def start(*options: str) -> subprocess.Popen[Any]:
        command = [sys.executable, "-m", "gristmill", "run", "recipe.yaml", "--processes", "1", *options]
        return subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD})

    store = project / "runs" / ".store"
    ranks = [start("--array", f"{rank}/3") for rank in range(3)]
    deadline = time.monotonic() + 60
    while not (found := [*store.glob("extract/manuals/*.partial/*.spool.*.tmp")]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found
    refused = subprocess.run(
        [sys.executable, "-m", "gristmill", "run", "recipe.yaml"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 75
    assert "a rank of an array" in refused.stderr
    killed = next((rank for rank in ranks if rank.poll() is None), None)
    assert killed is not None
    killed.send_signal(signal.SIGKILL)
    assert sorted(rank.wait(120) for rank in ranks)[1:] == [0, 0]
    again = [start("--array", f"{rank}/3") for rank in range(3)]
    assert [rank.wait(120) for rank in again] == [0, 0, 0]
    for until in ("extract", "classifier"):
        assert start("--until", until).wait(120) == 0
    ranks = [start("--array", f"{rank}/3") for rank in range(3)]
    assert [rank.wait(120) for rank in ranks] == [0, 0, 0]
    assert start("--until", "select").wait(120) == 0
    assert not list(store.rglob("*.tmp"))
    assert_same_curation(project, finished_project)
