"""What a stream of 10^9 sequences from 100 sources costs: its start, ten million steps of it, and the memory that they take.

    python benchmarks/long_stream.py [--quick]

The shards are real files of 4 TB in all that take no room on the disk: sparse, all zeros, with the true hash of every block; --quick makes
a thousandth of them. A process of its own opens them, makes the stream and the first batch, whose blocks it checks; `start_seconds` is CPU
time, of which `open_seconds` went to sidecars and hashes; `imports` are left out. Then it walks: for ten million steps of eight sequences it
resolves those that the step would read (source, place, permutation) and reads none. `growth_mb` is the growth of its resident memory from the
first tenth to the end, `peak_mb` the peak. Prints a JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import xxhash

from gristmill.tokens.blocks import BLOCK_BYTES
from gristmill.tokens.shards import FORMAT_VERSION, ShardFacts, TokenShard
from gristmill.tokens.stream import Draw, Stream, StreamStage

SOURCES, SEQ_LEN = 100, 2048
BATCH_SEQUENCES = 32  # of the first and the last batch, which are read
STEP_SEQUENCES = 8  # of a step that is walked over


def sparse_shard(path: Path, num_windows: int) -> None:
    """A shard of one document of zeros, without writing them."""
    num_tokens = num_windows * SEQ_LEN + 1
    size = 2 * num_tokens
    with path.with_suffix(".bin").open("wb") as file:
        file.truncate(size)
    index = np.array([num_tokens], dtype="<u8").tobytes()
    path.with_suffix(".index").write_bytes(index)
    facts = ShardFacts(
        format_version=FORMAT_VERSION, tokenizer_sha256="0" * 64, vocab_size=49_152, eos_id=0, dtype="<u2",
        num_tokens=num_tokens, num_documents=1, num_bytes=4 * num_tokens, tokens_sha256="", index_sha256="",
    )  # fmt: skip
    sidecar = json.dumps(asdict(facts)).encode()
    path.with_suffix(".json").write_bytes(sidecar)
    whole, rest = divmod(size, BLOCK_BYTES)
    zeros = xxhash.xxh3_64_intdigest(bytes(BLOCK_BYTES))
    parts = [xxhash.xxh3_64_intdigest(part) for part in (bytes(rest), index, sidecar) if part]
    hashes = np.array([zeros] * whole + parts, dtype="<u8").tobytes()
    path.with_suffix(".blocks").write_bytes(hashes + xxhash.xxh3_64_intdigest(hashes).to_bytes(8, "little"))


def walk(folder: Path, sequences: int, steps: int) -> dict[str, float]:
    """The figures, in this process."""
    memory = psutil.Process().memory_info
    began = time.process_time()
    shards = {f"source{number}": TokenShard(folder / f"source{number}") for number in range(SOURCES)}
    opened = time.process_time()
    stage = StreamStage(
        name="long",
        num_samples=sequences,
        seq_len=SEQ_LEN,
        draws=tuple(Draw(source=name, weight="0.01") for name in shards),
    )
    stream = Stream(shards, [stage], seed=1)
    stream.batch(0, BATCH_SEQUENCES * SEQ_LEN)
    started = time.process_time()
    early = 0
    for step in range(steps):
        stream._rows(0, step * STEP_SEQUENCES, (step + 1) * STEP_SEQUENCES)
        if step == steps // 10:
            early = memory().rss
    walked, late = time.process_time(), memory().rss
    last = stream.num_steps(BATCH_SEQUENCES * SEQ_LEN) - 1
    before = time.process_time()
    stream.batch(last, BATCH_SEQUENCES * SEQ_LEN)
    return {
        "open_seconds": opened - began,
        "start_seconds": started - began,
        "first_batch_at_the_end_seconds": time.process_time() - before,
        "steps": steps,
        "microseconds_a_step": (walked - started) / steps * 1e6,
        "growth_mb": (late - early) / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--walk", type=Path, help="for itself: the folder of shards to walk over")
    args = parser.parse_args()
    sequences, steps = (10**6, 10**5) if args.quick else (10**9, 10**7)
    if args.walk:
        print(json.dumps(walk(args.walk, sequences, steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SOURCES):
            sparse_shard(Path(folder) / f"source{number}", sequences // SOURCES)
        command = [sys.executable, __file__, "--walk", folder, *(["--quick"] if args.quick else [])]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps({"benchmark": "long_stream", "sequences": sequences, "sources": SOURCES, **found}))


if __name__ == "__main__":
    main()
