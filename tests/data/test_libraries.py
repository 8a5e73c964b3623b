"""What libraries are told before they are loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest

SCRIPT = """
from gristmill.data.libraries import set_library_defaults
set_library_defaults()
import os, pyarrow
print(pyarrow.default_memory_pool().backend_name, os.environ["RAYON_NUM_THREADS"])
"""


def told(**environment: str) -> str:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("ARROW_DEFAULT_MEMORY_POOL", "RAYON_NUM_THREADS")
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env={**kept, **environment}
    )
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.skipif("jemalloc" not in pa.supported_memory_backends(), reason="this Arrow has no jemalloc")
def test_arrow_and_rensa_are_told_unless_the_user_told_them() -> None:
    assert told() == "jemalloc 1"
    assert told(ARROW_DEFAULT_MEMORY_POOL="system", RAYON_NUM_THREADS="3") == "system 3"
