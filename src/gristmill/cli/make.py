"""Verbs that make what a recipe asks for, and keep it: run, on one machine or many, its state, copies of it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.cli.options import (
    Array,
    AsJson,
    Compiled,
    Device,
    MetricsTo,
    MicroBatchTokens,
    Offline,
    Only,
    Overrides,
    Processes,
    Ranks,
    Ray,
    RecipePath,
    Recompute,
    Replicas,
    RunsDir,
    Threads,
    console,
    machine_of,
)

if TYPE_CHECKING:
    from gristmill.graph.rank_place import RankPlace


def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    until: Annotated[
        str | None, typer.Option(help="stop after this step or kind of step, as listed by `plan` and `status`")
    ] = None,
    remake: Annotated[
        list[str] | None, typer.Option(help="a step with over 10 minutes of work that may be remade, or all")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    threads: Threads = "auto",
    processes: Processes = None,
    device: Device = "auto",
    micro_batch_tokens: MicroBatchTokens = None,
    ranks: Ranks = "1",
    replicas: Replicas = 1,
    ray: Ray = None,
    array: Array = None,
    offline: Offline = False,
    metrics_to: MetricsTo = None,
    recompute: Recompute = False,
    compiled: Compiled = False,
) -> None:
    """Make everything the recipe asks for; resume where it stopped; skip what is done and unchanged."""
    from dataclasses import replace

    from gristmill.graph.rank_place import read_ranks
    from gristmill.recipe.load import load_recipe

    machine = machine_of(runs_dir, threads, processes, device, micro_batch_tokens)
    size, place = read_ranks(ranks, os.environ)
    machine = replace(
        machine,
        ranks=size,
        place=place,
        replicas=replicas,
        ray=ray,
        offline=offline,
        metrics_to=tuple(metrics_to or ()),
        recompute=recompute,
        compiled=compiled,
    )
    if array is not None:
        from gristmill.array import run_rank
        from gristmill.graph.share import read_share

        machine = replace(machine, share=read_share(array, os.environ))
        run_rank(load_recipe(recipe, overrides or []), machine, console=console(), until=until, remake=remake or [])
        return
    from gristmill.runner import run as run_recipe

    loaded = load_recipe(recipe, overrides or [])
    if place is not None and place.rank > 0:
        from gristmill.train.ranks.service import serve

        serve(place, runs_dir / loaded.recipe.name, say=console().print)
        return
    with _leading(place):
        folder = run_recipe(loaded, machine, console=console(), until=until, remake=remake or [])
    if until is None:
        from gristmill.pipeline import steps_of
        from gristmill.report.summary import print_summary

        print_summary(folder, [step.name for step in steps_of(loaded.recipe)], console())


def launch(
    recipe: RecipePath,
    overrides: Overrides = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="print the batch script of a Slurm job; submit it by sbatch")
    ] = False,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="ranks on each node; one for each GPU of this machine, if absent")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="with --slurm: nodes of the job")] = 1,
    cores: Annotated[int, typer.Option(min=1, help="with --slurm: processor cores of each rank")] = 8,
    time: Annotated[
        str, typer.Option(help="with --slurm: the time of one job, which queues itself again until all is made")
    ] = "24:00:00",
    replicas: Annotated[
        int | None,
        typer.Option(min=1, help="groups of ranks, each of which holds the model; one on each node, if absent"),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train on all GPUs of this machine, or write the batch script that trains on many machines."""
    from gristmill.train.runtime import num_gpus

    ranks = ranks or max(1, num_gpus())
    if not slurm:
        run(recipe, overrides, ranks=str(ranks), replicas=replicas or 1, runs_dir=runs_dir)
        return
    from gristmill.commands.launch import Job, slurm_script
    from gristmill.recipe.load import load_recipe

    job = Job(nodes=nodes, ranks_per_node=ranks, cores_per_rank=cores, time=time, replicas=replicas)
    print(slurm_script(load_recipe(recipe, overrides or []), job, overrides=overrides or [], runs_dir=runs_dir), end="")


def _leading(place: RankPlace | None) -> AbstractContextManager[None]:
    if place is None:
        return nullcontext()
    from gristmill.train.ranks.service import leading

    return leading(place)


def status(
    recipe: RecipePath,
    overrides: Overrides = None,
    as_json: AsJson = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="show progress until the run ends, and exit with its exit code")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    threads: Threads = "auto",
    processes: Processes = None,
    device: Device = "auto",
    micro_batch_tokens: MicroBatchTokens = None,
) -> None:
    """Where a run is, what looks wrong, what comes next, what would be remade and why."""
    if follow and as_json:
        raise typer.BadParameter("--follow and --json exclude each other. Use one of them.")
    from gristmill.commands.status import status as print_status
    from gristmill.recipe.load import load_recipe

    machine = machine_of(runs_dir, threads, processes, device, micro_batch_tokens)
    code = print_status(
        load_recipe(recipe, overrides or []), machine, console=console(), as_json=as_json, follows=follow
    )
    raise typer.Exit(code)


def verify(
    target: Annotated[Path, typer.Argument(help="a run's folder, or a recipe", metavar="RUN|RECIPE")],
    as_json: AsJson = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Read every file that a run uses, and say which are not what was written."""
    from gristmill.commands.verify import verify as verify_files

    raise typer.Exit(verify_files(target, runs_dir=runs_dir, console=console(), as_json=as_json))


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="unfinished work that no run points to as well")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Remove from the store what no run uses, on consent."""
    from gristmill.commands.clean import clean as clean_store

    clean_store(runs_dir, console=console(), yes=yes, unfinished=unfinished)


def push(
    run: Annotated[Path, typer.Argument(help="a run's folder, or its recipe", metavar="RUN")],
    address: Annotated[str, typer.Argument(help="a folder elsewhere, such as s3://bucket/folder", metavar="ADDRESS")],
    only: Only = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Copy a run's artefacts to another place: an object store, a mounted disk. `pull` copies them back."""
    from gristmill.commands.copies import push as push_run

    push_run(run, address, runs_dir=runs_dir, only=only or [], console=console())


def pull(
    address: Annotated[str, typer.Argument(help="where `push` put a run, with its name", metavar="ADDRESS/RUN")],
    only: Only = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Copy a pushed run into the runs folder; what is there already is not fetched again."""
    from gristmill.commands.copies import pull as pull_run

    pull_run(address, runs_dir=runs_dir, only=only or [], console=console())
