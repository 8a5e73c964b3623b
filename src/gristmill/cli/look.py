"""Verbs that look at what was made: documents and what became of them, what a step read, which of two is better."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli.options import AsJson, Device, Threads, console, machine_of


def inspect(
    target: Annotated[
        Path, typer.Argument(help="a run's folder, a recipe, or a folder or file of raw text", metavar="TARGET")
    ],
    rejected: Annotated[bool, typer.Option("--rejected", help="what was dropped, with rule, value and limit")] = False,
    source: Annotated[str | None, typer.Option(help="only this source")] = None,
    reason: Annotated[str | None, typer.Option(help="only this reason")] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="with --rejected: a condition in SQL, such as \"reason = 'too_few_words' and value > 40\"",
            metavar="SQL",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", "--limit", min=0, help="how many samples: 10 of a run in all, else 1 of each format"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="with --rejected: a document a line, all of them unless --limit is given")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(help="write the page of a run as one HTML file, as far as the run is", metavar="FILE"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="with --page: write it again and again while the run trains, until it ends")
    ] = False,
) -> None:
    """Look at data: what a folder holds, or what a run kept and dropped and why."""
    if (where is not None or as_json) and not rejected:
        raise typer.BadParameter("--where and --json show what was dropped. Add --rejected.")
    if follow and page is None:
        raise typer.BadParameter("--follow writes a page. Add --page FILE.")
    if page is not None:
        if rejected or source or reason or samples is not None:
            raise typer.BadParameter("--page shows all of a run; give no other option with it but --follow.")
        from gristmill.commands.run_page import follow_page, write_page

        if follow:
            follow_page(target, page)
        else:
            write_page(target, page, console=console())
        return
    from gristmill.commands.inspect import inspect as show

    show(
        target,
        rejected=rejected,
        source=source,
        reason=reason,
        samples=samples,
        console=console(),
        where=where,
        as_json=as_json,
    )


def why(
    target: Annotated[Path, typer.Argument(help="a run's folder", metavar="RUN")],
    name: Annotated[str, typer.Argument(help="the id of a document, as `inspect` shows it", metavar="ID")],
) -> None:
    """What became of one document: the rule with its numbers, the copy that stayed, the span that matched."""
    from gristmill.commands.why import why as print_why

    print_why(target, name, console=console())


def diff(
    a: Annotated[Path, typer.Argument(help="a run's folder", metavar="RUN_A")],
    b: Annotated[Path, typer.Argument(help="another run's folder", metavar="RUN_B")],
    as_json: AsJson = False,
) -> None:
    """What a changed rule did: documents that one run kept and the other dropped, and why."""
    from gristmill.commands.diff import diff as print_diff

    print_diff(a, b, console=console(), as_json=as_json)


def recipe(target: Annotated[Path, typer.Argument(help="a run's folder", metavar="RUN")]) -> None:
    """Print the recipe of a run as it became: every value, with its origin, interventions included."""
    from gristmill.commands.recipe import recipe as print_recipe

    print_recipe(target, console=console())


def trace(
    target: Annotated[Path, typer.Argument(help="a run's folder", metavar="RUN")],
    step: Annotated[int | None, typer.Option(help="the documents of this step of pretraining, counted from 1")] = None,
    document: Annotated[
        str | None, typer.Option(help="the steps that read the document with this id", metavar="ID")
    ] = None,
    rank: Annotated[
        str | None, typer.Option("--rank", help="of the step, what one of several ranks reads", metavar="RANK/SIZE")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="all of the text, not its beginning")] = False,
    as_json: AsJson = False,
) -> None:
    """What a training step read, or when a document was read."""
    if (step is None) == (document is None):
        raise typer.BadParameter("name either --step or --document.")
    from gristmill.commands.trace import trace_document, trace_step

    if document is not None:
        trace_document(target, document, console=console(), as_json=as_json)
    elif step is not None:
        from gristmill.graph.share import read_share

        share = read_share(rank or "0/1", os.environ, option="--rank")
        trace_step(target, step, share=share, console=console(), as_json=as_json, whole=whole)


def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="a run's folder, RUN@STEP for a checkpoint, an export, or a Hugging Face Llama", metavar="A"
        ),
    ],
    b: Annotated[str, typer.Argument(help="another one", metavar="B")],
    model: Annotated[str | None, typer.Option(help="of a run: pretrain, sft or dpo; the last one, if absent")] = None,
    on: Annotated[
        Path | None,
        typer.Option(
            help="measure both on the packs and held-out text of this run, if they are not yet", metavar="RUN"
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=2, help="measure both on held-out text in windows of so many tokens")
    ] = None,
    threads: Threads = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Which of two models is better, on the packs and held-out text of a run, and whether that can be told."""
    from gristmill.commands.compare import compare_models

    machine = machine_of(Path("runs"), threads, device=device)
    compare_models(a, b, model=model, on=on, window=window, machine=machine, console=console(), as_json=as_json)
