"""python -m hostile [NAME FOLDER [SCALE]]: see hostile.py. Needs gristmill and the folder `tests` on the path."""

from __future__ import annotations

import json
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from accounting import num_bytes, settings
from gristmill.data.record import RawDocument
from gristmill.formats.format import format_named
from hostile.sets import SETS


def main(name: str, folder: Path, scale: float) -> None:
    """Makes a set and reads it as the child of a shard does: record by record, keeping none."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn")
    ) as other:  # what making takes is not what reading takes
        made = other.submit(SETS[name], folder, scale).result()
    format, read = format_named(made.kind), settings(made.kind, **made.keys)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    reasons: dict[str, int] = {}
    documents = total = 0
    for span in format.spans(made.path, name="x", limit=64_000_000):
        for record in format.read(span, read):
            total += num_bytes([record])
            documents += isinstance(record, RawDocument)
            if not isinstance(record, RawDocument):
                reasons[record.reason] = reasons.get(record.reason, 0) + 1
    seconds = time.monotonic() - began
    content = sum(format.content(span, read).num_bytes for span in format.spans(made.path, name="x", limit=64_000_000))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"documents": documents, "reasons": reasons, "num_bytes": total, "content": content}
    wanted = {"documents": made.documents, "reasons": made.reasons}
    print(json.dumps({**found, "wanted": wanted, "seconds": seconds, "peak_kb": peak, "peak_kb_before": before}))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print("\n".join(f"{name:34} {(maker.__doc__ or '').partition(chr(10))[0]}" for name, maker in SETS.items()))
    else:
        main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.01)
