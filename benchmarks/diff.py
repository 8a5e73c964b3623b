"""What comparing two runs costs: `gristmill diff` on made-up selections of growing size, each in its own process.

    python benchmarks/diff.py [--quick]

Both runs have the same documents with ids of 45 bytes and texts of 300; 3 % of them have another fate, 1 % another text. Target: 5 s
for a million documents a side.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.data.document import DOCUMENT_SCHEMA, shard_path
from gristmill.data.ledger import REJECTED_SCHEMA
from gristmill.data.write import write_table
from gristmill.select.signatures import prints_schema
from gristmill.store.durable import write_json
from gristmill.store.store import RunLinks, Store

FATES = ("train", "validation", "near_duplicate", "score_too_low", "too_few_words")  # the last by extract
SHARES = (0.5, 0.02, 0.2, 0.1, 0.18)
SHARD_ROWS = 50_000
WORDS = "the mill grinds slowly and the river carries what is left of the grain down to the sea "


def make_run(runs: Path, name: str, fate_D: np.ndarray, hash_D: np.ndarray) -> None:
    """A run's folder with extract/web, signatures/web and select; documents are numbered, and written in their order."""
    store, made_from = Store(runs), {}
    links = RunLinks(store, name)
    for step in ("extract/web", "signatures/web", "select"):
        identity = f"{abs(hash((name, step))):032x}"[-32:]
        folder = store.open_work(step, identity)
        for number, first in enumerate(range(0, len(fate_D), SHARD_ROWS)):
            rows_R = np.arange(first, min(first + SHARD_ROWS, len(fate_D)))
            _write_shard(folder, step, number, rows_R, fate_D[rows_R], hash_D[rows_R])
        if step == "select":
            kept = {FATES[side]: {"documents": int((fate_D == side).sum()), "bytes": 1} for side in (0, 1)}
            write_json(folder / "split.json", {"web": kept})
        record = {"made_from": dict(made_from), "document": {"config": {}, "version": {}, "files": {}}, "resolved": {}}
        store.commit(step, identity, record)
        links.link(step, identity)
        made_from[step] = identity
    (links.folder / "recipe.yaml").write_text("tokenizer: {vocab_size: 4096}\n")


def _write_shard(
    folder: Path, step: str, number: int, rows_R: np.ndarray, fate_R: np.ndarray, hash_R: np.ndarray
) -> None:
    """The rows of a shard that a step leaves."""
    if step == "extract/web":
        _rejected(shard_path(folder, number, stem="rejected"), "extract", rows_R[fate_R == 4], fate_R[fate_R == 4])
    elif step == "select":
        (folder / "web").mkdir(exist_ok=True)
        for side in (0, 1):
            _documents(shard_path(folder / "web", number, stem=FATES[side]), rows_R[fate_R == side])
        is_out = (fate_R == 2) | (fate_R == 3)
        _rejected(shard_path(folder / "web", number, stem="rejected"), "select", rows_R[is_out], fate_R[is_out])
    else:
        rows_R, hash_R = rows_R[fate_R != 4], hash_R[fate_R != 4]
        schema = prints_schema(1)
        zeros = pa.array(np.zeros(len(rows_R), np.int64))
        columns = [_ids(rows_R), zeros, zeros, zeros, pa.array([b"0" * 16] * len(rows_R), pa.binary(16)),
                   pa.array(hash_R, pa.uint64()), pa.array([b"0" * 8] * len(rows_R), pa.binary(8))]  # fmt: skip
        write_table(shard_path(folder, number, stem="prints"), pa.table(columns, schema=schema))


def _ids(rows_R: np.ndarray) -> pa.Array:
    mixed = (rows_R.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).tolist()
    return pa.array([f"urn:uuid:{one:036x}" for one in mixed], pa.string())


def _documents(path: Path, rows_R: np.ndarray) -> None:
    texts = pa.array([f"{row} {WORDS * 4}"[:300] for row in rows_R.tolist()])
    _write(path, DOCUMENT_SCHEMA, id=_ids(rows_R), text=texts, bytes_in=pa.array(rows_R % 5000))


def _rejected(path: Path, step: str, rows_R: np.ndarray, fate_R: np.ndarray) -> None:
    reasons = pa.array([FATES[fate] for fate in fate_R.tolist()])
    excerpts = pa.array([f"{row} {WORDS * 4}"[:300] for row in rows_R.tolist()])
    steps = pa.array([step] * len(rows_R))
    _write(path, REJECTED_SCHEMA, id=_ids(rows_R), step=steps, reason=reasons, excerpt=excerpts,
           bytes_in=pa.array(rows_R % 5000))  # fmt: skip


def _write(path: Path, schema: pa.Schema, **columns: pa.Array) -> None:
    size = len(columns["id"])
    plain = {field.name: pa.array([None if field.nullable else "web"] * size, field.type) for field in schema
             if field.name not in columns}  # fmt: skip
    write_table(path, pa.table([{**plain, **columns}[name] for name in schema.names], schema=schema))


def main() -> None:
    """Make the runs, compare them, tell seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 100,000 documents instead of a million")
    sizes = [25_000, 100_000] if parser.parse_args().quick else [100_000, 300_000, 1_000_000]
    found = []
    for size in sizes:
        chance = np.random.default_rng(8)
        fate_D, hash_D = chance.choice(5, size, p=SHARES), chance.integers(0, 1 << 62, size).astype(np.uint64)
        with tempfile.TemporaryDirectory() as runs:
            make_run(Path(runs), "a", fate_D, hash_D)
            changed = chance.random(size) < 0.03
            fate_D = np.where(changed, chance.choice(5, size, p=SHARES), fate_D)
            make_run(Path(runs), "b", fate_D, hash_D + (chance.random(size) < 0.01))
            command = [sys.executable, "-m", "gristmill", "diff", f"{runs}/a", f"{runs}/b"]
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
        print(f"{size:>9,} documents a side  {seconds:5.2f} s  {memory:7.0f} MB")
        found.append({"documents": size, "seconds": round(seconds, 2), "peak_mb": round(memory)})
    print(json.dumps({"benchmark": "diff", "sizes": found}))


if __name__ == "__main__":
    main()
