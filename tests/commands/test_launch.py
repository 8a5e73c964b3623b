"""The batch script, run with stand-ins for Slurm's commands: what each rank is told, and when the job is queued again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import Command
from gristmill.commands.launch import Job, slurm_script
from gristmill.errors import RecipeError, ResourceError
from gristmill.graph.machine import Machine
from gristmill.recipe.load import LoadedRecipe, load_recipe

SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=1 ] && shift
for rank in 0 3; do SLURM_PROCID=$rank SLURM_LOCALID=$((rank % 2)) "$@" || code=$?; done
exit ${code:-0}
"""
GRISTMILL = """#!/bin/bash
echo "rank $RANK of $WORLD_SIZE, here $LOCAL_RANK, at $MASTER_ADDR:$MASTER_PORT: $*"
exit ${CODE:-0}
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then printf 'node-7\\nnode-8\\n'; else echo "scontrol $*"; fi
"""
JOB = Job(nodes=2, ranks_per_node=2, cores_per_rank=8, time="24:00:00")


@pytest.fixture
def loaded(tiny_project: Path) -> LoadedRecipe:
    return load_recipe(tiny_project / "recipe.yaml", [])


def run_script(script: str, folder: Path, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs it as Slurm would, with commands that only tell."""
    for name, text in {"srun": SRUN, "gristmill": GRISTMILL, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment: Mapping[str, str] = {
        "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "20007", "SLURM_JOB_NODELIST": "node-[7-8]", "CODE": str(code)
    }  # fmt: skip
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)


def test_each_rank_is_told_its_place_and_runs_the_recipe(loaded: LoadedRecipe, tmp_path: Path) -> None:
    script = slurm_script(loaded, JOB, overrides=["seed=7", "name=a b"], runs_dir=Path("my runs"))
    done = run_script(script, tmp_path)
    rest = f"at node-7:20007: run {loaded.path} seed=7 name=a b --runs-dir my runs --ranks torchrun --replicas 2"
    assert done.stdout.splitlines() == [f"rank 0 of 4, here 0, {rest}", f"rank 3 of 4, here 1, {rest}"]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("code", "queued_again"), [(0, False), (1, False), (2, False), (75, True), (138, True)])
def test_the_job_is_queued_again_where_the_same_command_resumes(
    loaded: LoadedRecipe, tmp_path: Path, code: int, queued_again: bool
) -> None:
    """138: SIGUSR1, before the time of the job is over."""
    done = run_script(slurm_script(loaded, JOB, overrides=[], runs_dir=Path("runs")), tmp_path, code=code)
    assert done.returncode == code
    assert ("scontrol requeue 20007" in done.stdout) == queued_again


def test_slurm_is_asked_for_a_gpu_a_rank_and_a_signal_in_time(loaded: LoadedRecipe) -> None:
    script = slurm_script(loaded, JOB, overrides=[], runs_dir=Path("runs"))
    asked = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert asked >= {"nodes=2", "ntasks-per-node=2", "gpus-per-node=2", "cpus-per-task=8", "time=24:00:00"}
    assert asked >= {"signal=USR1@300", "requeue", "open-mode=append"}


def test_ranks_that_cannot_share_a_step_are_refused_before_anything_is_submitted(loaded: LoadedRecipe) -> None:
    job = Job(nodes=7, ranks_per_node=1, cores_per_rank=1, time="1:00:00")
    with pytest.raises(RecipeError, match="--ranks is 7"):
        slurm_script(loaded, job, overrides=[], runs_dir=Path("runs"))


def test_without_slurm_the_recipe_is_run_here_by_so_many_ranks(
    gristmill: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Machine] = []

    def refuse(loaded: object, machine: Machine, **named: object) -> None:
        seen.append(machine)
        raise ResourceError("seen")

    monkeypatch.setattr("gristmill.runner.run", refuse)
    for command in (("launch", "recipe.yaml"), ("run", "recipe.yaml")):
        assert gristmill(*command, "--ranks", "4", "--replicas", "2").code == 75
    assert [(machine.ranks, machine.replicas, machine.place) for machine in seen] == [(4, 2, None)] * 2


def test_the_script_goes_to_standard_output(gristmill: Command, project: Path) -> None:
    answer = gristmill("launch", "recipe.yaml", "--slurm", "--nodes", "2", "--ranks", "2", "--time", "1:00:00")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("#!/bin/bash\n#SBATCH --job-name=")
    assert "#SBATCH --nodes=2\n" in answer.out


@pytest.mark.parametrize("command", ["run", "plan"])
def test_ranks_that_cannot_share_a_step_are_refused_before_anything_is_made(
    gristmill: Command, project: Path, command: str
) -> None:
    answer = gristmill(command, "recipe.yaml", "--ranks", "3")
    assert answer.code == 2
    assert "--ranks is 3, but a step has 8 sequences of 128 tokens" in answer.err
    assert "Use 2 or 4 ranks" in answer.err


@pytest.mark.parametrize("wrong", ["0", "many", "-1"])
def test_ranks_are_a_number_or_torchrun(gristmill: Command, project: Path, wrong: str) -> None:
    answer = gristmill("run", "recipe.yaml", f"--ranks={wrong}")
    assert answer.code == 2
    assert "is neither torchrun nor a number from 1" in answer.err
