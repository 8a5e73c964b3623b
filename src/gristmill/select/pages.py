"""Memory between batches: what NumPy frees stays in the process.

A batch makes dozens of arrays of about a megabyte and frees them. By default glibc gives such memory back to the system at each free,
and the system clears every page that it hands out again, which takes as long as the work on it.
"""

from __future__ import annotations

import numpy as np

KEPT_BYTES = 16_000_000  # the largest array that is kept; together twice as much


def keep_freed_pages() -> None:
    """From here on arrays up to KEPT_BYTES are made of memory that was freed before.

    An array that is freed raises the size from which glibc asks the system for memory (mallopt(3), M_MMAP_THRESHOLD); the pages
    of this one are never touched. Other allocators take no notice.
    """
    np.empty(KEPT_BYTES, dtype=np.uint8)
