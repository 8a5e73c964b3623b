"""The options that several verbs share, the machine that they describe, and where verbs print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from gristmill.graph.machine import Machine

MAX_THREADS = 1024
RecipePath = Annotated[Path, typer.Argument(help="the recipe: a YAML file, or its folder", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="dotted overrides, such as pretrain.optimizer.peak_lr=1e-3 or pretrain.stages.decay.tokens=204800",
        metavar="KEY=VALUE",
    ),
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="where artefacts are kept", envvar="GRISTMILL_RUNS")]


def threads(value: str) -> str:
    """auto, or a number of at least one; kept as text, for typer calls this twice."""
    if value != "auto" and not (value.isdecimal() and len(value) <= 4 and 0 < int(value) <= MAX_THREADS):
        raise typer.BadParameter(f"{value!r} is neither auto nor a number from 1 to {MAX_THREADS}.")
    return value


Threads = Annotated[
    str,
    typer.Option(
        help="threads of training; auto: all cores, fewer while other processes use them",
        metavar="auto|N",
        callback=threads,
    ),
]
Only = Annotated[list[str] | None, typer.Option(help="a step or kind of step to copy, such as sft; all if absent")]
Processes = Annotated[int | None, typer.Option(min=1, help="worker processes for curation; all cores if absent")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="map shards on a Ray cluster: local starts one here, auto finds the one of this machine",
        metavar="local|auto|HOST:PORT",
    ),
]
Array = Annotated[
    str | None,
    typer.Option(
        "--array",
        help="make only this rank's share of the shards, from 0/SIZE to SIZE-1/SIZE; slurm: as the job array says",
        metavar="RANK/SIZE|slurm",
    ),
]


def ranks(value: str) -> str:
    """torchrun, or a number of at least one; kept as text, for typer calls this twice."""
    if value != "torchrun" and not (value.isdecimal() and len(value) <= 6 and int(value) > 0):
        raise typer.BadParameter(f"{value!r} is neither torchrun nor a number from 1.")
    return value


Ranks = Annotated[
    str,
    typer.Option(
        "--ranks",
        help="processes that train together, one GPU each where there are GPUs; torchrun: those that it started",
        metavar="N|torchrun",
        callback=ranks,
    ),
]
Replicas = Annotated[
    int,
    typer.Option("--replicas", min=1, help="with --ranks: groups of ranks, each of which holds the model", metavar="N"),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="ask nothing of the network: what was fetched is used, the rest refused")
]
MetricsTo = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics-to",
        help="a program that draws the metrics of training as it goes",
        metavar="tensorboard|trackio|wandb",
    ),
]
Recompute = Annotated[
    bool, typer.Option("--recompute", help="compute activations of training twice: less memory, a third more time")
]
Compiled = Annotated[
    bool, typer.Option("--compile", help="compile feed-forward layers and norms of training: fewer kernels on a GPU")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
MicroBatchTokens = Annotated[int | None, typer.Option(min=1, help="tokens in one forward pass")]


def format_of_export(value: str | None) -> str | None:
    """gguf, the one there is."""
    if value not in (None, "gguf"):
        from gristmill.recipe.schema.section import did_you_mean

        raise typer.BadParameter(f"{value!r} is not an export format; {did_you_mean(str(value), ['gguf'])}use gguf.")
    return value


Models = Annotated[
    list[Path],
    typer.Argument(help="recipes, folders of runs, exported models or Hugging Face Llamas", metavar="MODEL..."),
]
Reason = Annotated[str, typer.Option("--why", help="for the record; at least ten letters")]
Fork = Annotated[str | None, typer.Option(help="write another recipe instead, which branches off", metavar="NAME")]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def console() -> Console:
    from gristmill.display import Output

    return Output(soft_wrap=not sys.stdout.isatty())


def machine_of(
    runs_dir: Path,
    threads: str = "auto",
    processes: int | None = None,
    device: str = "auto",
    micro_batch_tokens: int | None = None,
) -> Machine:
    from gristmill.graph.machine import Machine

    usual = Machine()
    return Machine(
        runs_dir=runs_dir,
        device=device,
        threads="auto" if threads == "auto" else int(threads),
        processes=processes or usual.processes,
        micro_batch_tokens=micro_batch_tokens or usual.micro_batch_tokens,
    )
