"""A job for guard.py that child processes load by name: documents with a mark end their process."""

from __future__ import annotations

import os
import signal
from typing import Any

from gristmill.data.record import RawDocument
from gristmill.extract.shard import CurateJob

MARK = "this one crashes"


class CrashingJob(CurateJob):
    """As CurateJob, but a marked document ends the process."""

    def process(self, item: Any) -> Any:
        if isinstance(item, RawDocument) and item.text == MARK:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().process(item)
