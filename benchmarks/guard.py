"""What a crash costs: a shard of which many documents end their process, against the same shard without them.

    python benchmarks/guard.py [--quick] [--documents 5000] [--crashes 500]

A document that crashes raises SIGSEGV while it is processed. Plain: JSON Lines, which a new process enters at the place of the
crash. Packed: the same lines in one gzip member, which it must unpack from the beginning; that part is measured apart, by reading
the file so often without any crash. Each crash is tried twice before it is believed. Prints a table and a JSON line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from pathlib import Path

from crashing_job import MARK, CrashingJob

from gristmill.data.guard import run_guarded
from gristmill.data.job import Place
from gristmill.extract.curate import Settings
from gristmill.extract.shard import Shard
from gristmill.formats.format import Span
from gristmill.recipe.schema.formats import READERS

TEXT = "The miller walked down to the river, where the great wheel had stood still since autumn. " * 12


def write_lines(path: Path, *, documents: int, crashes: int) -> None:
    """JSON Lines with crashing documents evenly spread among the others."""
    every = documents // crashes if crashes else documents + 1
    lines = []
    for number in range(documents):
        lines.append(json.dumps({"text": f"{number} {TEXT}"}))
        if number % every == 0:
            lines.append(json.dumps({"text": MARK if crashes else "this one does not"}))
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def settings() -> Settings:
    """Settings that do nothing to a document."""
    return Settings(
        source="s", read=READERS["jsonl"].model_validate({"format": "jsonl", "paths": ["x"]}), extractor=None,
        keep_maths=False, deadline_seconds=10.0, max_memory_mb=1024, max_failed=1.0, min_language_scores=None, packs=(),
        off=frozenset(), limits={}, redact=frozenset(),
    )  # fmt: skip


def curate(path: Path) -> tuple[float, int]:
    """(seconds, documents kept)."""
    shard = Shard(number=0, spans=(Span(path=path, name=path.name, size=path.stat().st_size),), out=path.parent)
    start = time.perf_counter()
    kept = run_guarded(
        CrashingJob(settings(), shard), spool=path.parent / "spool", deadline_seconds=10.0, max_memory_mb=1024
    )
    return time.perf_counter() - start, kept


def seconds_to_read(path: Path, *, times: int = 10) -> float:
    """Reading a packed file from its beginning to its end: the mean, as the machine's speed changes from one to the next."""
    shard = Shard(number=0, spans=(Span(path=path, name=path.name, size=path.stat().st_size),), out=path.parent)
    start = time.perf_counter()
    for _ in range(times):
        for _ in CrashingJob(settings(), shard).items(Place(), alone=False):
            pass
    return (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--crashes", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="a tenth")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # the fork server loads crashing_job before it forks
    documents, crashes = options.documents, options.crashes
    if options.quick:
        documents, crashes = documents // 10, crashes // 10
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for kind, suffix in (("plain", ".jsonl"), ("packed", ".jsonl.gz")):
            folder = Path(name) / kind
            folder.mkdir()
            calm, wild = folder / f"calm{suffix}", folder / f"wild{suffix}"
            write_lines(calm, documents=documents, crashes=0)
            write_lines(wild, documents=documents, crashes=crashes)
            curate(calm)  # the fork server starts once
            unbroken, _ = curate(calm)
            before = seconds_to_read(wild)
            broken, kept = curate(wild)
            assert kept == documents, f"{kept} of {documents} kept"
            to_read = (before + seconds_to_read(wild)) / 2
            again = (
                crashes * to_read if kind == "packed" else 0.0
            )  # twice to the place of each crash: on average half of it
            per_crash = (broken - unbroken - again) / crashes
            rows.append(
                {
                    "file": kind, "seconds_unbroken": round(unbroken, 2), "seconds_broken": round(broken, 2),
                    "seconds_rereading": round(again, 2), "seconds_per_crash": round(per_crash, 4),
                }
            )  # fmt: skip
    print(f"{documents:,} documents, {crashes:,} crashes")
    for row in rows:
        print("  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    print(json.dumps({"documents": documents, "crashes": crashes, "rows": rows}))


if __name__ == "__main__":
    main()
