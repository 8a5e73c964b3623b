"""Freed pages stay: what a batch frees is not cleared and handed out again by the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from gristmill.select.pages import keep_freed_pages

{first}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    arrays = [np.ones(100_000, dtype=np.uint64) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
def test_arrays_of_a_megabyte_are_made_of_pages_that_were_freed() -> None:
    def faults(first: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(first=first)], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("keep_freed_pages()") < faults("pass") / 3
