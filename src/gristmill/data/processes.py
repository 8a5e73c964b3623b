"""Child processes: how they are started, and that none outlives the process that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from typing import Any

# What a child needs to be told its work, and pandas, which pyarrow imports at the first array that it makes, where it is installed.
ALWAYS_LOADED = ("multiprocessing.popen_forkserver", "multiprocessing.sharedctypes", "pandas")


def exit_with_parent() -> None:
    """Ends this child process as soon as the process that started it is gone, however that came about.

    An orphan would keep writing to files that the next attempt writes too.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def context_for(job: Any) -> ForkServerContext:
    """The forkserver context, its server running; one that starts now has loaded what each child would else import: the module
    of `job`, the formats in use, and the command line's, which it does when it prepares its main module.

    The server begins with SIGINT blocked, as do its children: Ctrl-C goes to the whole group and is the parent's to handle.
    """
    context = multiprocessing.get_context("forkserver")
    function = job.func if isinstance(job, partial) else job
    module = getattr(function, "__module__", None)
    wanted = {module, "gristmill.cli"} - {"__main__"}
    loaded = [name for name in list(sys.modules) if name in wanted or name.startswith("gristmill.formats.")]
    context.set_forkserver_preload([*ALWAYS_LOADED, *loaded])
    resource_tracker.ensure_running()  # which the server would start too, and which unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context
