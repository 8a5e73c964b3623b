"""The options that several verbs of the command line share, and the words that people use for the verbs."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

MAX_THREADS = 1024
OTHER_WORDS = {
    "train": "run", "fit": "run", "start": "run", "resume": "run", "make": "run", "build": "run", "estimate": "plan",
    "check": "plan", "dry-run": "plan", "validate": "plan", "new": "init", "create": "init", "list": "status", "ls": "status",
    "show": "inspect", "look": "inspect", "query": "inspect", "sql": "inspect", "versus": "compare", "fork": "intervene", "branch": "intervene", "ablation": "ablate", "anneal": "ablate", "explain": "why", "talk": "chat", "generate": "chat", "ask": "chat", "remove": "clean", "prune": "clean",
    "gc": "clean", "convert": "export", "gguf": "export", "slurm": "launch", "sbatch": "launch", "torchrun": "launch", "upload": "push", "sync": "push", "download": "pull", "publish": "export", "server": "serve", "api": "serve", "import": "packs", "pack": "packs", "info": "doctor", "bench": "doctor", "benchmark": "doctor", "env": "doctor",
}  # fmt: skip


class Verbs(TyperGroup):
    """The verbs, and what people call them elsewhere."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that `args` begin with; a usage error with the one that was probably meant."""
        if args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], [*self.commands, *OTHER_WORDS], n=1)
            for word in near:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {OTHER_WORDS.get(word, word)!r}?")
        return super().resolve_command(ctx, args)


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
