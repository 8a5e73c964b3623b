"""Near-duplicate removal and rules against named peers, each in its own process and environment, on the same documents and cores.

    python benchmarks/curation_peers.py --datatrove PYTHON --daft PYTHON [--documents 50000] [--texts TEXTS.jsonl] [--cores 0] [--rounds 3]

PYTHON is the interpreter of an environment with datatrove 0.10 (and spacy, nltk), or with daft 0.7; a side without one is left out.

Near-duplicates, end to end: from documents in Parquet to the documents that are kept, in Parquet; 14 bands of 8 rows, word 5-grams,
lower case. The documents are those of duplicates.py, of 500 words. The peers remove whatever shares a band; ours compares each such pair on its full
text before it removes anything. So it runs twice: as it is, with the seconds of the comparison apart, and "not verified", with the
same signatures and groups as the peers. datatrove: its four steps, one task each, words by `str.split`, for
its own tokenizer takes several times as long. Daft: the native runner, its `minhash` and hashes of bands as expressions, groups by
union-find in Python.

Rules: the packs gopher_repetition, gopher_quality, c4, fineweb in this order on the texts of --texts (a "text" a line), with datatrove's
default tokenizer and with `str.split`; ours with its own words. What a rule drops goes no further. Reading the texts does not count.

Sides take turns, `--rounds` times. Prints seconds (median, all), documents a second, peak memory, kept documents, and the ratios. CPU
seconds (median) count where others use the machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

BANDS, ROWS, NGRAM, LEAST = 14, 8, 5, 0.7
WORDS = 500  # of a document, about a web page


# ── near-duplicates ──────────────────────────────────────────────────────────────────────────────────────────────────


def ours_near(documents: Path, work: Path, cores: int) -> dict[str, Any]:
    """Signatures, search with verification, kept documents; in this process where there is one core, as a run does it."""
    import numpy as np
    import pyarrow.parquet as pq

    from gristmill.data.executor import InProcess, LocalProcesses
    from gristmill.select.copies import COPIES
    from gristmill.select.corpus import PrintedShard, corpus_of
    from gristmill.select.dedup import find_duplicates
    from gristmill.select.rules import DuplicateRules

    rules = DuplicateRules(num_bands=BANDS, rows_per_band=ROWS, ngram=NGRAM, min_jaccard=LEAST, remove_near=True)
    shards = sorted(documents.glob("*.parquet"))
    prints = signed(shards, work, cores)
    total = sum(pq.read_metadata(shard).num_rows for shard in shards)
    np.save(work / "passed.npy", np.ones(total, dtype=bool))
    np.save(work / "scores.npy", np.zeros(total, dtype=np.float32))
    printed = [
        PrintedShard(documents=shard, prints=path, source="web", priority=0)
        for shard, path in zip(shards, prints, strict=True)
    ]
    at: dict[str, float] = {"begun": time.perf_counter()}
    find_duplicates(
        corpus_of(printed, turns=work / "passed.npy", scores=work / "scores.npy"),
        rules=rules,
        work=work,
        executor=InProcess() if cores == 1 else LocalProcesses(processes=cores),
        should_stop=lambda: False,
        say=lambda line: at.update({"grouped" if "share a band key" in line else "sorted": time.perf_counter()}),
        progress=lambda position: at.update(compared=time.perf_counter()),
    )
    at["found"] = time.perf_counter()
    is_kept = np.ones(total, dtype=bool)
    is_kept[pq.read_table(work / COPIES, columns=["document"]).column(0).to_numpy()] = False
    return {
        "kept": write_kept(shards, work, is_kept),
        "search_seconds": at["found"] - at["begun"],
        "verification_seconds": at["compared"] - at["grouped"],
    }


def ours_near_not_verified(documents: Path, work: Path, cores: int) -> dict[str, Any]:
    """The same signatures; of all that is joined by equal keys of a band, the first document is kept, as the peers do it."""
    import numpy as np
    import pyarrow.parquet as pq

    from gristmill.select.minhash import candidate_edges
    from gristmill.select.signatures import keys_column

    shards = sorted(documents.glob("*.parquet"))
    tables = [pq.read_table(path, columns=["keys", "num_ngrams"]) for path in signed(shards, work, cores)]
    keys_DB = np.concatenate([keys_column(table.column("keys"), num_bands=BANDS) for table in tables])
    eligible_D = np.concatenate([table.column("num_ngrams").to_numpy() for table in tables]) > 0
    lefts, rights = candidate_edges(keys_DB, eligible_D)
    edges = np.unique(np.stack((lefts, rights)), axis=1)
    first = joined_first(len(keys_DB), zip(*edges.tolist(), strict=True))
    return {"kept": write_kept(shards, work, np.array(first) == np.arange(len(first)))}


def signed(shards: Sequence[Path], work: Path, cores: int) -> list[Path]:
    """The prints of all shards."""
    from gristmill.data.executor import InProcess, LocalProcesses
    from gristmill.select.signatures import Bands, PrintShard

    multiprocessing.get_context("forkserver").set_forkserver_preload(["gristmill.select.dedup"])
    sign = PrintShard(out=work, bands=Bands(num_bands=BANDS, rows_per_band=ROWS, ngram=NGRAM), seed=0)
    for _, outcome in (InProcess() if cores == 1 else LocalProcesses(processes=cores)).map(sign, shards):
        if isinstance(outcome, Exception):
            raise outcome
    return [sign.target(shard) for shard in shards]


def write_kept(shards: Sequence[Path], work: Path, is_kept: Any) -> int:
    """Writes the kept documents of each shard; returns how many there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gristmill.data.document import read_batches

    first = 0
    for shard in shards:
        schema = pq.read_schema(shard)
        with pq.ParquetWriter(work / f"kept-{shard.name}", schema, use_dictionary=["source"]) as writer:
            for batch in read_batches(shard, columns=schema.names):
                writer.write_batch(batch.filter(pa.array(is_kept[first : first + len(batch)])))
                first += len(batch)
    return int(is_kept.sum())


def joined_first(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """The first of all documents that each is joined with, by union-find."""
    parent = list(range(count))

    def find(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    for left, right in edges:
        one, other = find(left), find(right)
        parent[max(one, other)] = min(one, other)
    return [find(at) for at in range(count)]


def datatrove_near(documents: Path, work: Path, cores: int) -> dict[str, Any]:
    """Its four steps, `cores` tasks at once in the first and last."""
    import pyarrow.parquet as pq
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(
        n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS, hash_config=HashConfig(precision=64)
    )
    tasks = len(list(documents.glob("*.parquet")))
    folder = {name: str(work / name) for name in ("signatures", "buckets", "remove", "kept")}

    def step(name: str, *pipeline: Any, tasks: int = 1) -> None:
        LocalPipelineExecutor(
            list(pipeline), tasks=tasks, workers=cores, logging_dir=str(work / f"log-{name}"), skip_completed=False
        ).run()

    signature = MinhashDedupSignature(output_folder=folder["signatures"], config=config)
    signature.word_tokenizer = Split()
    step("1", ParquetReader(str(documents)), signature, tasks=tasks)
    step("2", MinhashDedupBuckets(folder["signatures"], folder["buckets"], config=config), tasks=BANDS)
    step("3", MinhashDedupCluster(folder["buckets"], folder["remove"], config=config))
    step(
        "4",
        ParquetReader(str(documents)),
        MinhashDedupFilter(folder["remove"]),
        ParquetWriter(folder["kept"]),
        tasks=tasks,
    )
    return {"kept": sum(pq.read_metadata(path).num_rows for path in Path(folder["kept"]).glob("*.parquet"))}


class Split:
    """Words of datatrove's signatures by `str.split`."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


def daft_near(documents: Path, work: Path, cores: int) -> dict[str, Any]:
    """Native runner; hashes of bands by expressions, groups by union-find in Python."""
    import daft
    from daft import col
    from daft import functions as F

    daft.set_runner_native(num_threads=cores)
    texts = daft.read_parquet(str(documents / "*.parquet")).select("id", "text")
    hashes = col("text").lower().minhash(num_hashes=BANDS * ROWS, ngram_size=NGRAM, seed=1, hash_function="xxhash64")
    signed = texts.select(col("id"), hashes.alias("hashes"))
    bands = signed.select(
        col("id"),
        *[
            F.hash(F.get(F.chunk(col("hashes"), ROWS), band), seed=daft.lit(band)).alias(f"b{band}")
            for band in range(BANDS)
        ],
    ).to_arrow()
    ids = bands.column("id").to_pylist()
    edges = (edge for band in range(BANDS) for edge in _equal(bands.column(f"b{band}").to_pylist()))
    first = joined_first(len(ids), edges)
    kept = [name for at, name in enumerate(ids) if first[at] == at]
    table = daft.from_pydict({"id": kept})
    daft.read_parquet(str(documents / "*.parquet")).join(table, on="id").write_parquet(str(work / "kept"))
    return {"kept": len(kept)}


def _equal(keys: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each place whose key was there before, and the first place with that key."""
    first: dict[int, int] = {}
    return ((first[key], at) for at, key in enumerate(keys) if first.setdefault(key, at) != at)


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def texts_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def ours_rules(texts: Path, work: Path, cores: int) -> dict[str, Any]:
    """judge() with all four packs, as a worker of extract calls it."""
    from gristmill.extract.judge import judge

    packs = ("gopher_repetition@1", "gopher_quality@1", "c4@1", "fineweb@1")
    return _judged(texts, lambda text: judge(text, packs).drop is None)


def datatrove_rules(texts: Path, work: Path, cores: int, *, split: bool = False) -> dict[str, Any]:
    """Its four filters, each asked of what the one before kept."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.utils import text as of_text

    if split:
        theirs = of_text.split_into_words
        for module in [one for one in sys.modules.values() if getattr(one, "split_into_words", None) is theirs]:
            module.split_into_words = lambda text, language="eng": text.split()  # type: ignore[attr-defined]
    filters = [
        GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter(),
    ]  # fmt: skip

    def keeps(text: str) -> bool:
        document = Document(text=text, id="x")
        return all(
            (found if isinstance(found, bool) else found[0]) for found in (one.filter(document) for one in filters)
        )

    return _judged(texts, keeps)


def _judged(texts: Path, keeps: Callable[[str], bool]) -> dict[str, Any]:
    read = texts_of(texts)
    keeps(read[0])  # what is loaded once
    started = time.perf_counter()
    kept = sum(map(keeps, read))
    return {"kept": kept, "seconds": time.perf_counter() - started, "documents": len(read)}


# ── sides, by turns ──────────────────────────────────────────────────────────────────────────────────────────────────

SIDES: dict[str, Callable[..., dict[str, Any]]] = {
    "near: ours": ours_near,
    "near: ours, not verified": ours_near_not_verified,
    "near: datatrove, str.split": datatrove_near,
    "near: daft": daft_near,
    "rules: ours": ours_rules,
    "rules: datatrove": datatrove_rules,
    "rules: datatrove, str.split": lambda *given: datatrove_rules(*given, split=True),
}


def run_side(name: str, given: Path, cores: int) -> None:
    """In a process of its own: prints what the side did, its seconds and its peak memory as JSON."""
    if "ours" in name:
        from gristmill.data.libraries import set_library_defaults

        set_library_defaults()  # as the command line does it
    work = Path(f"/tmp/curation-peers-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        started = time.perf_counter()
        found = SIDES[name](given, work, cores)
        found = {"seconds": time.perf_counter() - started, **found}
    finally:
        shutil.rmtree(work)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found["cpu_seconds"] = sum(one.ru_utime + one.ru_stime for one in used)
    print(json.dumps({**found, "peak_mb": max(one.ru_maxrss for one in used) / 1e3}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datatrove", type=Path)
    parser.add_argument("--daft", type=Path)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run_side(args.side[0], Path(args.side[1]), args.cores)
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    documents = Path("/tmp/curation-peers-documents")
    make_documents(documents, args.documents)
    pythons = {"ours": Path(sys.executable), "datatrove": args.datatrove, "daft": args.daft}
    sides = {
        name: (python, documents if name.startswith("near") else args.texts)
        for name in SIDES
        for python in [next(path for who, path in pythons.items() if who in name)]
        if python is not None and (name.startswith("near") or args.texts is not None)
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, (python, given) in sides.items():
            command = [python, __file__, "--cores", str(args.cores), "--side", name, given]
            env = {**os.environ, "DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, check=False)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr[-2000:]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    show(found, args.documents)
    shutil.rmtree(documents)


def make_documents(folder: Path, total: int) -> None:
    """The documents of duplicates.py, in shards, with letters for digits: datatrove takes all numbers for one."""
    import duplicates as made

    from gristmill.data.document import Document, write_documents

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made.WORDS = WORDS
    letters = str.maketrans("0123456789", "abcdefghij")
    for first in range(0, total, made.SHARD_DOCUMENTS):
        texts = (
            (n, made.text_of(n, total, 0).translate(letters))
            for n in range(first, min(first + made.SHARD_DOCUMENTS, total))
        )
        rows = (Document(id=f"doc-{n:09d}", source="web", text=text, origin="made#0", bytes_in=0) for n, text in texts)
        write_documents(folder / f"documents-{first:09d}.parquet", rows)


def show(found: dict[str, Sequence[dict[str, Any]]], total: int) -> None:
    """A line a side, and the ratios to each side of ours."""
    median = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        seconds = " ".join(f"{run['seconds']:.1f}" for run in runs)
        per_second = runs[0].get("documents", total) / median[name]
        more = "".join(
            f", {key} {statistics.median(run[key] for run in runs):.1f}"
            for key in ("cpu_seconds", "search_seconds", "verification_seconds")
            if key in runs[0]
        )
        ratios = "".join(
            f", {median[name] / median[own]:.2f} × {own.partition(': ')[2]}"
            for own in found
            if own.startswith(name.partition(":")[0] + ": ours") and "ours" not in name
        )
        print(
            f"{name:<28} {median[name]:7.1f} s ({seconds}), {per_second:,.0f} documents/s, {runs[-1]['peak_mb']:,.0f} MB, "
            f"kept {runs[-1]['kept']:,}{more}{ratios}"
        )


if __name__ == "__main__":
    main()
