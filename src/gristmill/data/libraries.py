"""What libraries are told through the environment of this process and of those that it starts."""

from __future__ import annotations

import os
import sys


def set_library_defaults() -> None:
    """To be called before the libraries are loaded; what the user has set stays.

    One thread for rensa: shards are what runs side by side. Arrow takes memory by jemalloc, which is in its wheels for Linux: by mimalloc, its
    own choice, a process that reads and writes texts keeps some 50 MB more.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    if sys.platform == "linux":
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
