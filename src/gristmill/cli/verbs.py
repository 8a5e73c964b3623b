"""The verbs in the order in which help lists them, and how the program ends: message and exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from gristmill.cli.look import compare, diff, inspect, recipe, trace, why
from gristmill.cli.make import clean, launch, pull, push, run, status, verify
from gristmill.cli.prepare import doctor, import_packs, init, plan
from gristmill.cli.steer import ablate, intervene, rewind
from gristmill.cli.use import chat, export, serve
from gristmill.cli.words import Verbs
from gristmill.data.libraries import set_library_defaults
from gristmill.errors import GristmillError, ResourceError
from gristmill.store.durable import OUT_OF_SPACE

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
VERBS = (
    (init, plan, run, status, chat, serve, export),
    (inspect, why, diff, trace, recipe, compare),
    (ablate, intervene, rewind),
    (launch, push, pull, verify, clean, doctor),
)


def gristmill(
    version: Annotated[bool, typer.Option("-V", "--version", help="print the version and exit", is_eager=True)] = False,
) -> None:
    """From raw text to a small language model: one recipe, one command, every decision on the record."""
    if version:
        from importlib.metadata import version as installed_version

        print(installed_version("gristmill"))
        raise typer.Exit


def command_line() -> typer.Typer:
    """The root command with all verbs."""
    root = typer.Typer(
        name="gristmill",
        cls=Verbs,
        no_args_is_help=True,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    root.callback()(gristmill)
    for verbs in VERBS:
        for verb in verbs:
            root.command()(verb)
    packs = typer.Typer(no_args_is_help=True, help="Task packs: sets of evaluation items.")
    packs.command("import")(import_packs)
    root.add_typer(packs, name="packs")
    return root


app = command_line()


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
