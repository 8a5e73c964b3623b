"""The search for duplicates at growing sizes: seconds, peak memory of each kind of worker, disk, and the fit against N log N.

    python benchmarks/duplicates.py [--quick] [--documents 10000 100000 1000000] [--processes 2] [--folder /tmp/select-bench]

Documents have about 120 words drawn from 50,000, and are planted as follows, in every 20: 14 fresh, 3 near copies of a fresh one
with 0 to 15 words replaced, 1 exact copy, 1 of a template (90 words in common, 30 of its own: Jaccard .59, so no copies), 1 that is the first half of a
fresh one. A template has a fiftieth of N / 20 members. Text depends on (seed, number) only.

Signatures and `find_duplicates` run as select runs them, in processes. CPU seconds (of this process and of the functions in workers,
without their start) say more than seconds on a machine that others use. Peak memory is the high-water mark of resident memory
of each process (VmHWM), pages of mapped files included; "walk" is the process that drives the search. Disk is sampled twice
a second. Prints a table, what --plan documents would take by the rows above, and a JSON line at the end.

The plan fits c × N log2 N to CPU seconds and c × N to disk, through the origin, so that large sizes count most, and says how far each
row lies from the curve. It is a plan for texts like these: longer ones cost in proportion to their words.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from search_measures import DiskPeak, MeasuringExecutor, fit, run

from gristmill.data.document import Document, write_documents
from gristmill.graph.peak_memory import PeakMemory
from gristmill.select.corpus import PrintedShard, corpus_of
from gristmill.select.dedup import SearchMemory, disk_bytes, find_duplicates
from gristmill.select.rules import DuplicateRules
from gristmill.select.signatures import PrintShard

RULES = DuplicateRules(num_bands=14, rows_per_band=8, ngram=5, min_jaccard=0.7, remove_near=True)
VOCABULARY = 50_000
WORDS = 120
SHARD_DOCUMENTS = 50_000
TEMPLATES = 50
FRESH, NEAR, EXACT, TEMPLATE, HALF = range(5)
KINDS = [FRESH] * 14 + [NEAR] * 3 + [EXACT, TEMPLATE, HALF]


def words_of(number: int, seed: int) -> list[str]:
    """The words of a fresh document."""
    rng = np.random.default_rng((seed, number))
    return [f"w{word}" for word in rng.integers(0, VOCABULARY, WORDS).tolist()]


def text_of(number: int, total: int, seed: int) -> str:
    """The text of any document."""
    kind = KINDS[number % len(KINDS)]
    if kind == FRESH:
        return " ".join(words_of(number, seed))
    rng = np.random.default_rng((seed, 1, number))
    if kind == TEMPLATE:
        frame = words_of(-1 - int(rng.integers(TEMPLATES)) + 2**40, seed)[:90]
        return " ".join([*frame, *words_of(number, seed)[:30]])
    original = int(rng.integers(math.ceil(total / len(KINDS)))) * len(KINDS) + int(rng.integers(14))
    words = words_of(min(original, total - 1) // len(KINDS) * len(KINDS) + original % len(KINDS), seed)
    if kind == HALF:
        words = words[: WORDS // 2]
    if kind == NEAR:
        for place in rng.choice(WORDS, int(rng.integers(0, 16)), replace=False).tolist():
            words[place] = f"x{rng.integers(VOCABULARY)}"
    return " ".join(words)


@dataclass(frozen=True, kw_only=True)
class WriteShard:
    """The function over shards: generated documents."""

    folder: Path
    total: int
    seed: int

    def path(self, k: int) -> Path:
        return self.folder / f"documents-{k:05d}.parquet"

    def __call__(self, k: int) -> int:
        numbers = range(k * SHARD_DOCUMENTS, min((k + 1) * SHARD_DOCUMENTS, self.total))
        rows = (
            Document(
                id=f"doc-{n:09d}", source="web", text=text_of(n, self.total, self.seed), origin="made#0", bytes_in=0
            )
            for n in numbers
        )
        return write_documents(self.path(k), rows)


def measure(total: int, folder: Path, *, processes: int, seed: int) -> dict[str, Any]:
    """Generates, signs and searches `total` documents."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "work").mkdir(parents=True)
    shards = range(math.ceil(total / SHARD_DOCUMENTS))
    write = WriteShard(folder=folder, total=total, seed=seed)
    executor = MeasuringExecutor(processes=processes)
    run(executor, write, shards)
    sign = PrintShard(out=folder, bands=RULES.bands, seed=seed)
    started, cpu_started = time.perf_counter(), time.process_time()
    run(executor, sign, [write.path(k) for k in shards])
    signed = time.perf_counter()
    np.save(folder / "passed.npy", np.ones(total, dtype=bool))
    np.save(folder / "scores.npy", np.zeros(total, dtype=np.float32))
    printed = [
        PrintedShard(documents=write.path(k), prints=sign.target(write.path(k)), source="web", priority=0)
        for k in shards
    ]
    corpus = corpus_of(printed, turns=folder / "passed.npy", scores=folder / "scores.npy")
    steps: list[tuple[str, float]] = []
    with DiskPeak(folder / "work") as disk, PeakMemory() as peak:
        counts = find_duplicates(
            corpus,
            rules=RULES,
            work=folder / "work",
            executor=executor,
            memory=SearchMemory(),
            should_stop=lambda: False,
            say=lambda line: steps.append((line, time.perf_counter() - signed)),
        )
    searched, cpu_ended = time.perf_counter(), time.process_time()
    in_workers = sum(kind["cpu_seconds"] for name, kind in executor.kinds.items() if name != "WriteShard")
    share = counts.with_candidates / total
    estimate = disk_bytes(total, num_bands=RULES.num_bands, ngrams_per_document=WORDS, share_with_candidates=share)
    prints = sum(shard.prints.stat().st_size for shard in printed)
    shutil.rmtree(folder)
    return {
        "documents": total,
        "signatures_seconds": signed - started,
        "search_seconds": searched - signed,
        "cpu_seconds": cpu_ended - cpu_started + in_workers,
        "walk_peak_mb": peak.process / 1e6,
        "workers": executor.kinds,
        "prints_mb": prints / 1e6,
        "search_disk_mb": disk.num_bytes / 1e6,
        "estimated_mb": {name: value / 1e6 for name, value in estimate.items()},
        "said": steps,
        "counts": asdict(counts),
    }


def show(row: dict[str, Any]) -> None:
    total = row["documents"]
    per_step = 1e9 * row["cpu_seconds"] / (total * math.log2(total))
    print(
        f"{total:>9,} documents: signatures {row['signatures_seconds']:.1f} s, search {row['search_seconds']:.1f} s, "
        f"CPU {row['cpu_seconds']:.1f} s, {per_step:.0f} ns per N log2 N; walk {row['walk_peak_mb']:.0f} MB; disk: prints "
        f"{row['prints_mb']:.0f} MB, search {row['search_disk_mb']:.0f} MB (estimated {row['estimated_mb']['search']:.0f})"
    )
    for name, kind in row["workers"].items():
        print(
            f"    {name:<12} {kind['calls']:>5.0f} calls {kind['cpu_seconds']:>8.1f} s  peak {kind['peak_mb']:>5.0f} MB"
        )
    print("    " + ", ".join(f"{name} {value:,}" for name, value in row["counts"].items()), flush=True)


def plan(rows: Sequence[dict[str, Any]], total: int) -> None:
    """Prints what `total` documents would take, by curves fitted to the rows."""
    fit(rows, total, {"cpu_seconds": "s", "prints_mb": "MB", "search_disk_mb": "MB"})
    pairs, documents = rows[-1]["counts"]["compared_pairs"], rows[-1]["counts"]["with_candidates"]
    print(
        f"            compared pairs: {pairs / documents:.1f} for each document with candidates at {rows[-1]['documents']:,}; "
        f"at most {RULES.max_comparisons}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 and 5,000 documents: a check that it runs")
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--plan", type=int, default=10_000_000, help="documents to plan for from the rows")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/select-bench"))
    args = parser.parse_args()
    multiprocessing.get_context("forkserver").set_forkserver_preload(["gristmill.select.dedup"])
    rows = []
    for total in [1_000, 5_000] if args.quick else args.documents:
        rows.append(measure(total, args.folder, processes=args.processes, seed=args.seed))
        show(rows[-1])
    plan(rows, args.plan)
    print(json.dumps({"benchmark": "select", "processes": args.processes, "rows": rows}))


if __name__ == "__main__":
    main()
