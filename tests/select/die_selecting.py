"""One step of selection that is killed right before one of its changes to the file system: die_selecting.py FOLDER NAME STEP NUMBER

Counted are renames, links, removals and new folders below FOLDER; 0 kills never. Leaves with 0 when it came to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = ("rename", "replace", "link", "unlink", "rmdir", "mkdir")


def main() -> None:
    """Wraps the changes, then runs the step."""
    folder, name, step, number = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    counted = [0]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*paths: Any, **named: Any) -> Any:
            counted[0] += 1
            if counted[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*paths, **named)

        return change

    import importlib

    from selecting import context, recipe_of
    from test_select import SELECT

    ctx = context(folder, recipe_of(SELECT, ("manuals", "web"), ()), step, name=name)
    module = importlib.import_module(f"gristmill.select.{step.partition('/')[0]}")
    for change in CHANGES:
        setattr(os, change, dying(getattr(os, change)))
    module.run(ctx)
    print(counted[0])


if __name__ == "__main__":
    main()
