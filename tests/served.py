"""A real `gristmill serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

from gristmill.model.transformer import Llama
from gristmill.tokens.tokenizer import Tokenizer

CONTEXT = 2048
ENDLESS = 100_000  # an answer that fills this context takes minutes
TOKEN = "a-token-for-tests"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running `gristmill serve` and the models behind it."""

    url: str
    process: subprocess.Popen[str]
    chat: Llama
    tokenizer: Tokenizer


def start(*arguments: object) -> tuple[subprocess.Popen[str], str]:
    """The process and its address, once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gristmill", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"OpenAI API (\S+)/v1", line):
            return process, found[1]
    raise AssertionError(f"the server did not start: {said}")


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    try:
        return process.wait(15)
    finally:
        process.kill()
        process.wait()
