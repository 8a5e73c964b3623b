"""Verbs that decide how a pretraining continues: interventions, rewinds, ablations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli.options import (
    Array,
    AsJson,
    Compiled,
    Device,
    Fork,
    MicroBatchTokens,
    Overrides,
    Processes,
    Reason,
    RecipePath,
    Recompute,
    Replicas,
    RunsDir,
    Threads,
    console,
    machine_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MayRemake = Annotated[
    list[str] | None,
    typer.Option(
        "--remake", help="pretrain: it may start from the beginning where no checkpoint fits", metavar="pretrain"
    ),
]


def intervene(
    recipe: RecipePath,
    why: Reason,
    stage: Annotated[str | None, typer.Option(help="the stage to come whose mixture changes")] = None,
    mix: Annotated[str | None, typer.Option(help="its new mixture", metavar="SOURCE=SHARE,...")] = None,
    peak_lr: Annotated[float | None, typer.Option(help="the new peak of the learning rate")] = None,
    after_step: Annotated[int | None, typer.Option(help="when it takes effect; now, if absent")] = None,
    fork: Fork = None,
    remake: MayRemake = None,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Change what is still to come of a pretraining: a later stage's mixture, or the learning rate."""
    if (stage is None) != (mix is None):
        raise typer.BadParameter("--stage and --mix go together.")
    if mix is None and peak_lr is None:
        raise typer.BadParameter("name --stage with --mix, or --peak-lr.")
    from gristmill.commands.intervene import settings_of

    settings = settings_of(stage=stage, mix=mix, peak_lr=peak_lr)
    _write_change(recipe, overrides, runs_dir, settings, after_step=after_step, why=why, fork=fork, remake=remake or [])


def rewind(
    recipe: RecipePath,
    to: Annotated[int, typer.Option("--to", help="the step to go back to")],
    skip: Annotated[int, typer.Option(help="how many steps of data to pass over from there")],
    why: Reason,
    fork: Fork = None,
    remake: MayRemake = None,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train again from an earlier step, past the data that did harm."""
    from gristmill.commands.intervene import settings_of

    settings = settings_of(skip=skip)
    _write_change(recipe, overrides, runs_dir, settings, after_step=to, why=why, fork=fork, remake=remake or [])


def _write_change(
    recipe: Path, overrides: list[str] | None, runs_dir: Path, settings: Mapping[str, Any], **options: Any
) -> None:
    from gristmill.commands.intervene import intervene as write_change
    from gristmill.recipe.load import load_recipe

    loaded, machine = load_recipe(recipe, overrides or []), machine_of(runs_dir, "auto", None, "auto", None)
    write_change(loaded, machine, settings=settings, overrides=overrides or [], console=console(), **options)


def ablate(
    recipe: RecipePath,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="the ablation, where the recipe has several")] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="tell the arms, the price and what can be seen")] = False,
    apply: Annotated[
        str | None, typer.Option(help="write the mixture of this arm into the run, as intervene does", metavar="ARM")
    ] = None,
    fork: Fork = None,
    yes: Annotated[bool, typer.Option("--yes", help="apply an arm that is worse, too")] = False,
    array: Array = None,
    runs_dir: RunsDir = Path("runs"),
    threads: Threads = "auto",
    processes: Processes = None,
    device: Device = "auto",
    micro_batch_tokens: MicroBatchTokens = None,
    ranks: Annotated[int, typer.Option(min=1, help="processes that train together on this machine")] = 1,
    replicas: Replicas = 1,
    recompute: Recompute = False,
    compiled: Compiled = False,
    as_json: AsJson = False,
) -> None:
    """Which data is worth it: train arms that differ in their data only, and tell them apart, or say that it cannot be told."""
    if apply is None and (fork is not None or yes):
        raise typer.BadParameter(f"{'--yes' if fork is None else '--fork'} goes with --apply.")
    from dataclasses import replace

    from gristmill.commands.ablate import ablate as make_ablation
    from gristmill.commands.ablate_apply import apply as apply_arm
    from gristmill.graph.share import read_share
    from gristmill.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    machine = machine_of(runs_dir, threads, processes, device, micro_batch_tokens)
    machine = replace(machine, ranks=ranks, replicas=replicas, recompute=recompute, compiled=compiled)
    if apply is not None:
        said = console()
        apply_arm(
            loaded, machine, name=name, arm=apply, fork=fork, overrides=overrides or [], console=said, is_sure=yes
        )
        return
    share = None if array is None else read_share(array, os.environ)
    make_ablation(loaded, machine, name=name, plan_only=plan_only, share=share, as_json=as_json, console=console())
