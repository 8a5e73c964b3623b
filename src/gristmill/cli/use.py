"""Verbs that use a model: chat, server, export."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli.options import Models, RunsDir, console, format_of_export


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
        console=console(),
        stdin=sys.stdin,
        history=Path(state) / "gristmill" / "chat_history",
    )


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
        console=console(),
    )


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
        console=console(),
    )
