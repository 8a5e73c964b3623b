"""The command line: parse, call, print. Heavy imports happen inside the verb that needs them."""

from gristmill.cli.verbs import app, main

__all__ = ["app", "main"]
