"""COMMAND launch: the batch script of a Slurm job that trains a recipe on many GPUs; it writes a script and starts nothing.

The script starts one rank a GPU by srun, and tells each its place in torchrun's words. Before its time is over, Slurm sends SIGUSR1: the
ranks save and leave, and the script queues the job again. So it does when the machine ran out of something or a rank was lost (exit
code 75). Any other failure needs a person and ends the job.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gristmill.errors import Interrupted, ResourceError
from gristmill.planning.ranks import check_ranks
from gristmill.recipe.load import LoadedRecipe

SAVE_SECONDS = 300  # before the end of the job's time: to finish a step and save
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={ranks_per_node}
#SBATCH --gpus-per-node={ranks_per_node}
#SBATCH --cpus-per-task={cores_per_rank}
#SBATCH --time={time}
#SBATCH --signal=USR1@{save_seconds}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.log

# Made by `gristmill launch --slurm`. Before this job, run the steps before pretraining where there is no GPU to wait:
#   {curation}

export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export WORLD_SIZE={ranks}

srun --kill-on-bad-exit=1 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec "$@"' rank \\
  {command}
code=$?

# {resource}: out of something, or a rank was lost. {asked}: asked to save and leave. Both resume from the last checkpoint.
if [ $code -eq {resource} ] || [ $code -eq {asked} ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked of Slurm. time: as sbatch takes it. replicas: groups of ranks that each hold the model; None for one a node."""

    nodes: int
    ranks_per_node: int
    cores_per_rank: int
    time: str
    replicas: int | None = None

    @property
    def ranks(self) -> int:
        """On all nodes."""
        return self.nodes * self.ranks_per_node


def slurm_script(loaded: LoadedRecipe, job: Job, *, overrides: Sequence[str], runs_dir: Path) -> str:
    """The script. Raises RecipeError for ranks that cannot share a step of the recipe evenly."""
    check_ranks(loaded.recipe.pretrain, job.ranks)
    replicas = job.nodes if job.replicas is None else job.replicas
    run = ["gristmill", "run", str(loaded.path), *overrides, "--runs-dir", str(runs_dir)]
    return SCRIPT.format(
        name=loaded.recipe.name,
        nodes=job.nodes,
        ranks_per_node=job.ranks_per_node,
        cores_per_rank=job.cores_per_rank,
        time=job.time,
        save_seconds=SAVE_SECONDS,
        ranks=job.ranks,
        curation=shlex.join([*run, "--until", "tokenize"]),
        command=shlex.join([*run, "--ranks", "torchrun", "--replicas", str(replicas)]),
        resource=ResourceError.exit_code,
        asked=Interrupted("", signal_number=signal.SIGUSR1).exit_code,
    )
