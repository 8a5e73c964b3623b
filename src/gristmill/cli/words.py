"""The words that people use elsewhere for the verbs, and what a wrong one was probably meant to be."""

from __future__ import annotations

import difflib
from typing import Any

from typer.core import TyperGroup

OTHER_WORDS = {
    "train": "run", "fit": "run", "start": "run", "resume": "run", "make": "run", "build": "run", "estimate": "plan",
    "check": "plan", "dry-run": "plan", "validate": "plan", "new": "init", "create": "init", "list": "status", "ls": "status",
    "show": "inspect", "look": "inspect", "query": "inspect", "sql": "inspect", "versus": "compare", "fork": "intervene", "branch": "intervene", "ablation": "ablate", "anneal": "ablate", "explain": "why", "talk": "chat", "generate": "chat", "ask": "chat", "remove": "clean", "prune": "clean",
    "gc": "clean", "convert": "export", "gguf": "export", "slurm": "launch", "sbatch": "launch", "torchrun": "launch", "upload": "push", "sync": "push", "download": "pull", "publish": "export", "server": "serve", "api": "serve", "import": "packs", "pack": "packs", "info": "doctor", "bench": "doctor", "benchmark": "doctor", "env": "doctor", "fsck": "verify", "scrub": "verify", "checksum": "verify",
}  # fmt: skip


class Verbs(TyperGroup):
    """The verbs, and what people call them elsewhere."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that `args` begin with; a usage error with the one that was probably meant."""
        if args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], [*self.commands, *OTHER_WORDS], n=1)
            for word in near:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {OTHER_WORDS.get(word, word)!r}?")
        return super().resolve_command(ctx, args)
