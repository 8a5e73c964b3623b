"""The search for repeated text at growing sizes: seconds, peak memory of each kind of worker, disk, and the fit against N log N.

    python benchmarks/repeated_text.py [--quick] [--documents 10000 50000 200000] [--processes 2] [--folder /tmp/repeated-bench]

A document has 4 paragraphs of 40 words drawn from 50,000. Of 20 documents, 5 have one of 50 notices besides, 2 a paragraph of another
document; every hundredth is validation text. Text depends on (seed, number) only. `find_repeated` runs as select runs it, in processes,
over what signatures left; those are not measured. CPU seconds, peak memory and disk are those of `duplicates.py`. At the smallest size what
is lost, and to which document, is compared with a walk over a dictionary of words.

Prints a table, the disk that `plan` tells beside what was taken, what --plan documents would take, and a JSON line at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from search_measures import DiskPeak, MeasuringExecutor, fit, run

from gristmill.data.document import Document, write_documents
from gristmill.graph.peak_memory import PeakMemory
from gristmill.select.corpus import Corpus, PrintedShard, corpus_of
from gristmill.select.repeated import Repeated, RepeatedRules, disk_bytes, find_repeated
from gristmill.select.repeated_text import WORKER_BYTES
from gristmill.select.rules import DuplicateRules
from gristmill.select.signatures import PrintShard
from gristmill.select.stages import Stage

RULES = RepeatedRules(unit="paragraph", min_words=13, min_documents=2)
SIGNED = DuplicateRules(num_bands=1, rows_per_band=1, ngram=5, min_jaccard=0.7, remove_near=True)
VOCABULARY = 50_000
PARAGRAPHS, WORDS = 4, 40
NOTICES = 50
SHARD_DOCUMENTS = 50_000
HELD_OUT_EVERY = 100
Lost = dict[
    tuple[int, int], tuple[int, bool]
]  # (document, unit) → the document that keeps it, and whether that is held out


def paragraphs_of(number: int, seed: int) -> list[str]:
    """What a document says that no notice does."""
    words = np.random.default_rng((seed, number)).integers(0, VOCABULARY, (PARAGRAPHS, WORDS)).tolist()
    return [" ".join(f"w{word}" for word in paragraph) for paragraph in words]


def text_of(number: int, total: int, seed: int) -> str:
    """The text of a document, with what is planted in it."""
    paragraphs, kind = paragraphs_of(number, seed), number % 20
    rng = np.random.default_rng((seed, 1, number))
    if kind < 5:
        paragraphs.insert(int(rng.integers(PARAGRAPHS + 1)), paragraphs_of(2**40 + int(rng.integers(NOTICES)), seed)[0])
    elif kind < 7:
        paragraphs.append(paragraphs_of(int(rng.integers(total)), seed)[int(rng.integers(PARAGRAPHS))])
    return "\n\n".join(paragraphs)


def name_of(number: int) -> str:
    """The id of a document."""
    return f"doc-{number:09d}"


@dataclass(frozen=True, kw_only=True)
class WriteShard:
    """The function over shards: generated documents and what signatures leave of them."""

    folder: Path
    total: int
    seed: int

    def path(self, k: int) -> Path:
        return self.folder / f"documents-{k:05d}.parquet"

    def printed(self, k: int) -> PrintedShard:
        return PrintedShard(documents=self.path(k), prints=self._sign.target(self.path(k)), source="web", priority=0)

    @property
    def _sign(self) -> PrintShard:
        return PrintShard(out=self.folder, bands=SIGNED.bands, seed=self.seed)

    def __call__(self, k: int) -> None:
        numbers = range(k * SHARD_DOCUMENTS, min((k + 1) * SHARD_DOCUMENTS, self.total))
        rows = ((name_of(n), text_of(n, self.total, self.seed)) for n in numbers)
        write_documents(
            self.path(k), (Document(id=id, source="web", text=text, origin="made#0", bytes_in=0) for id, text in rows)
        )
        self._sign(self.path(k))


def measure(total: int, folder: Path, *, processes: int, seed: int, check: bool) -> dict[str, Any]:
    """Generates and searches `total` documents. Raises AssertionError where `check` is asked for and the walk says otherwise."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "work").mkdir(parents=True)
    shards = range(math.ceil(total / SHARD_DOCUMENTS))
    write, executor = WriteShard(folder=folder, total=total, seed=seed), MeasuringExecutor(processes=processes)
    run(executor, write, shards)
    np.save(folder / "passed.npy", np.ones(total, dtype=bool))
    np.save(folder / "scores.npy", np.zeros(total, dtype=np.float32))
    np.save(folder / "held.npy", np.arange(total) % HELD_OUT_EVERY == 0)
    corpus = corpus_of([write.printed(k) for k in shards], turns=folder / "passed.npy", scores=folder / "scores.npy")
    stage = Stage(
        folder=folder / "work",
        texts=executor,
        columns=executor,
        array_bytes=WORKER_BYTES,
        should_stop=lambda: False,
        say=lambda _: None,
    )
    executor.kinds.clear()
    started, cpu_started = time.perf_counter(), time.process_time()
    with DiskPeak(folder / "work") as disk, PeakMemory() as peak:
        found = find_repeated(
            stage, corpus, rules=RULES, level_S=[0] * len(shards), held=folder / "held.npy", worker_bytes=WORKER_BYTES
        )
    ended, cpu_ended = time.perf_counter(), time.process_time()
    units = PARAGRAPHS * total + sum(number % 20 < 7 for number in range(total))
    lost = sum(len(found.lost_by(k)) for k in shards)
    if check:
        assert lost_in(found, corpus) == walked(total, seed), "a walk over a dictionary says otherwise"
    shutil.rmtree(folder)
    return {
        "documents": total,
        "units": units,
        "lost_units": lost,
        "ranges": len(found.files),
        "checked": check,
        "seconds": ended - started,
        "cpu_seconds": cpu_ended - cpu_started + sum(kind["cpu_seconds"] for kind in executor.kinds.values()),
        "driver_peak_mb": peak.process / 1e6,
        "workers": executor.kinds,
        "disk_mb": disk.num_bytes / 1e6,
        "estimated_mb": disk_bytes(total, units, share_lost=lost / units) / 1e6,
    }


def lost_in(found: Repeated, corpus: Corpus) -> Lost:
    """What was found, by document and unit."""
    return {
        (first + row, unit): (owner, held)
        for k, first in enumerate(corpus.firsts_S1[:-1].tolist())
        for row, unit, owner, held in found.lost_by(k).tolist()
    }


def walked(total: int, seed: int) -> Lost:
    """The rule over a dictionary: validation text first, then training text, each by size and id; who comes first keeps a unit."""
    units = [text_of(number, total, seed).split("\n\n") for number in range(total)]
    order = sorted(
        range(total), key=lambda n: (n % HELD_OUT_EVERY != 0, -len("\n\n".join(units[n]).encode()), name_of(n))
    )
    keeper: dict[str, int] = {}
    for number in order:
        for unit in units[number]:
            keeper.setdefault(unit, number)
    return {
        (number, place): (keeper[unit], keeper[unit] % HELD_OUT_EVERY == 0)
        for number in order
        if number % HELD_OUT_EVERY
        for place, unit in enumerate(units[number])
        if keeper[unit] != number
    }


def show(row: dict[str, Any]) -> None:
    """Prints one row."""
    total = row["documents"]
    per_step = 1e9 * row["cpu_seconds"] / (total * math.log2(total))
    print(
        f"{total:>9,} documents: {row['seconds']:.1f} s, CPU {row['cpu_seconds']:.1f} s, {per_step:.0f} ns per N log2 N; "
        f"{row['units']:,} units, {row['lost_units']:,} go; driver {row['driver_peak_mb']:.0f} MB; disk {row['disk_mb']:.0f} MB "
        f"(estimated {row['estimated_mb']:.0f}){'; a walk over a dictionary says the same' if row['checked'] else ''}"
    )
    for name, kind in row["workers"].items():
        print(
            f"    {name:<12} {kind['calls']:>5.0f} calls {kind['cpu_seconds']:>8.1f} s  peak {kind['peak_mb']:>5.0f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 and 5,000 documents: a check that it runs")
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    parser.add_argument("--plan", type=int, default=10_000_000, help="documents to plan for from the rows")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/repeated-bench"))
    args = parser.parse_args()
    multiprocessing.get_context("forkserver").set_forkserver_preload(["gristmill.select.repeated"])
    sizes = sorted([1_000, 5_000] if args.quick else args.documents)
    rows = []
    for total in sizes:
        rows.append(measure(total, args.folder, processes=args.processes, seed=args.seed, check=total == sizes[0]))
        show(rows[-1])
    fit(rows, args.plan, {"cpu_seconds": "s", "disk_mb": "MB"})
    print(json.dumps({"benchmark": "repeated text", "processes": args.processes, "rows": rows}))


if __name__ == "__main__":
    main()
