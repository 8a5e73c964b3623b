"""gristmill that is killed right before one of its changes to the file system: die.py PATTERN NUMBER run recipe.yaml …

Counted are renames, links, removals, new folders and changed modes of paths in which PATTERN is found; 0 kills never. The number
of them stands in counted.txt at the end of a process that was not killed.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = ("rename", "replace", "symlink", "unlink", "rmdir", "mkdir", "chmod")


def main() -> None:
    """Wraps the changes, then is the command line."""
    pattern, number = re.compile(sys.argv[1]), int(sys.argv[2])
    counted = [0]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*paths: Any, **named: Any) -> Any:
            if any(pattern.search(os.fspath(path)) for path in paths if isinstance(path, str | Path)):
                counted[0] += 1
                if counted[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*paths, **named)

        return change

    for name in CHANGES:
        setattr(os, name, dying(getattr(os, name)))
    sys.argv = ["gristmill", *sys.argv[3:]]
    from gristmill import cli

    try:
        cli.main()
    finally:
        Path("counted.txt").write_text(str(counted[0]), encoding="utf-8")


if __name__ == "__main__":
    main()
