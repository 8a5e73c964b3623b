"""COMMAND serve: models behind an OpenAI-compatible API, and a chat page for the browser.

The port is taken before the models are loaded, so that a port in use is reported at once. Ctrl-C and SIGTERM end the server: open
answers get a few seconds, then their connections are closed; a second Ctrl-C does not wait.
"""

from __future__ import annotations

import errno
import importlib.util
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gristmill.commands.model_folder import load_speakers
from gristmill.errors import MissingExtra, RecipeError, ResourceError
from gristmill.serve.engine import Engine

LOOPBACK = ("127.0.0.1", "localhost", "::1")
GRACE_SECONDS = 3


def serve(
    targets: Sequence[Path],
    *,
    host: str,
    port: int,
    token: str | None,
    max_tokens: int | None,
    max_seconds: float,
    max_active: int,
    max_waiting: int,
    threads: int,
    console: Console,
) -> None:
    """Answer until a signal ends it.

    Raises RecipeError for another host without a token, ResourceError for a port in use, MissingExtra without starlette and
    uvicorn, ArtifactError where a path holds no model.
    """
    if not all(map(importlib.util.find_spec, ("starlette", "uvicorn"))):
        raise MissingExtra('`gristmill serve` needs starlette and uvicorn: pip install "gristmill[serve]"')
    if host not in LOOPBACK and not token:
        raise RecipeError(
            f"--host {host} admits other machines, so a token is needed: --token TOKEN, or GRISTMILL_TOKEN in the environment."
        )
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise RecipeError("--token needs at least 8 printable ASCII characters without spaces.")
    listener = _listen(host, port)
    with listener:
        speakers = load_speakers(targets)
        engines = [
            Engine(speaker, max_active=max_active, max_waiting=max_waiting, threads=threads) for speaker in speakers
        ]
        address = _address(listener)
        for speaker in speakers:
            kind = "chat model" if speaker.is_chat else "base model"
            console.print(
                f"{speaker.name}: {kind}, {speaker.num_parameters:,} parameters", markup=False, highlight=False
            )
        console.print(f"chat page  {address}/\nOpenAI API {address}/v1\nCtrl-C ends it.", markup=False, highlight=False)
        try:
            _run(listener, engines, token=token, max_tokens=max_tokens, max_seconds=max_seconds)
        finally:
            for engine in engines:
                engine.close()
        console.print("The server has ended.")


def _run(
    listener: socket.socket, engines: Sequence[Engine], *, token: str | None, max_tokens: int | None, max_seconds: float
) -> None:
    import uvicorn

    from gristmill.serve.app import Limits, make_app

    largest = max(engine.speaker.context for engine in engines)
    app = make_app(engines, Limits(max_tokens=max_tokens or largest, max_seconds=max_seconds), token=token)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # uvicorn raises the signal that ended it again, for the handlers that were set before; there is nothing left to do
    before = {number: signal.signal(number, _ended) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(_number: int, _frame: object) -> None:
    """The server has ended by itself."""


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise RecipeError(
            f"--host {host} is not an address of this machine ({error}). Use 127.0.0.1, or 0.0.0.0 for all."
        ) from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ResourceError(
                f"port {port} of {host} is in use. Choose another: --port {port % 65535 + 1}, or 0 for any free one."
            ) from error
        if error.errno == errno.EACCES:
            raise ResourceError(f"port {port} of {host} is reserved for the system. Choose one above 1023.") from error
        raise RecipeError(
            f"--host {host} is not an address of this machine ({error.strerror}). Use 127.0.0.1, or 0.0.0.0 for all."
        ) from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
