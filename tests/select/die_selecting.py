"""Steps of selection that are killed right before one of their changes to the file system: die_selecting.py FOLDER STEP MODULE SECTION

MODULE is one of the tests, SECTION the name of the section `select` in it.

Each line of the input, "NAME NUMBER", runs the step of the run NAME in a process of its own and is answered by that process's exit
status: 0 when it came to its end, -9 when it was killed before change NUMBER; 0 kills never. Counted are renames, links, removals
and new folders.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selecting import context, recipe_of

from gristmill.graph.step import StepContext

CHANGES = ("rename", "replace", "link", "unlink", "rmdir", "mkdir")


def main() -> None:
    """Loads what the step needs once, then forks for every line."""
    folder, step = Path(sys.argv[1]), sys.argv[2]
    section = getattr(importlib.import_module(sys.argv[3]), sys.argv[4])
    module = importlib.import_module(f"gristmill.select.{step.partition('/')[0]}")
    for line in sys.stdin:
        name, number = line.split()
        child = os.fork()
        if not child:
            _run(module, context(folder, recipe_of(section, ("manuals", "web"), ()), step, name=name), int(number))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(module: Any, ctx: StepContext, number: int) -> None:
    counted = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*paths: Any, **named: Any) -> Any:
            nonlocal counted
            counted += 1
            if counted == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*paths, **named)

        return change

    status = 1
    try:
        for change in CHANGES:
            setattr(os, change, dying(getattr(os, change)))
        module.run(ctx)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
