"""How much the training stream costs over reading memory: Stream.batch against a bare loop, in alternation, in one run.

    python benchmarks/stream.py [--quick] [--seq-len 2048] [--rounds 20]

Bare: the loop that small trainers use (nanoGPT's get_batch without torch): slices of one np.memmap of uint16 at random places,
`.astype(int64)`, stacked, for inputs and for targets. Floor: the same windows written straight into two fresh arrays, which
is about the least that numpy can do.
Stream: four sources in a mixture, shuffled windows, document boundaries, positions, loss mask, source numbers. All read a
warm page cache. Prints one line a round and a JSON line at the end; `ratio` is the stream's speed over the bare loop's and
`ratio_to_floor` over the floor's, each as the median over rounds. `mixture_seconds` is what a stage costs before its first
sequence when its weights have six decimals, so that the order repeats after a million: the slowest of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.tokens.mixture import Mixture
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.stream import Draw, Stream, StreamStage

WEIGHTS = {"web": 0.6, "code": 0.2, "maths": 0.12, "books": 0.08}
SIX_DECIMALS = [0.123457, 0.223456, 0.053087, 0.200001, 0.099999, 0.150001, 0.149999]
VOCAB_SIZE = 49_152


def write_shard(path: Path, num_tokens: int, rng: np.random.Generator) -> TokenShard:
    """Documents with lengths like the web's: log-normal, about 1,000 tokens on average."""
    with ShardWriter(path, tokenizer_sha256="0" * 64, vocab_size=VOCAB_SIZE, eos_id=0) as writer:
        while writer.num_tokens < num_tokens:
            length = int(np.clip(rng.lognormal(6.4, 1.0), 20, 50_000))
            writer.add(rng.integers(18, VOCAB_SIZE, size=length), num_bytes=4 * length)
    return TokenShard(path)


def bare_batch(
    tokens: NDArray[np.uint16], starts: NDArray[np.int64], seq_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs and targets of the windows that begin at `starts`, as nanoGPT makes them."""
    inputs = np.stack([tokens[start : start + seq_len].astype(np.int64) for start in starts])
    targets = np.stack([tokens[start + 1 : start + seq_len + 1].astype(np.int64) for start in starts])
    return inputs, targets


def floor_batch(
    tokens: NDArray[np.uint16], starts: NDArray[np.int64], seq_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same, with no copy between the file and the two arrays."""
    inputs = np.empty((len(starts), seq_len), dtype=np.int64)
    targets = np.empty((len(starts), seq_len), dtype=np.int64)
    for row, start in enumerate(starts.tolist()):
        inputs[row] = tokens[start : start + seq_len]
        targets[row] = tokens[start + 1 : start + seq_len + 1]
    return inputs, targets


def seconds(call: Callable[[int], object], count: int) -> float:
    """Wall time of call(0) … call(count - 1)."""
    began = time.perf_counter()
    for number in range(count):
        call(number)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small files and few rounds: a check that it runs")
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--batch-sequences", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    num_tokens = 4_000_000 if args.quick else 100_000_000
    rounds, batches = (3, 10) if args.quick else (args.rounds, 40)
    global_batch_tokens = args.batch_sequences * args.seq_len
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        shards = {name: write_shard(Path(folder) / name, int(num_tokens * w), rng) for name, w in WEIGHTS.items()}
        stage = StreamStage(
            name="bench",
            num_samples=rounds * batches * args.batch_sequences,
            seq_len=args.seq_len,
            draws=tuple(Draw(source=name, weight=weight) for name, weight in WEIGHTS.items()),
        )
        stream = Stream(shards, [stage], seed=1)
        mapped = np.memmap(Path(folder) / "web.bin", dtype=np.uint16, mode="r")
        plain = np.asarray(mapped)
        for shard in shards.values():
            int(shard.tokens.sum(dtype=np.int64))  # warms the page cache
        drawn = batches * global_batch_tokens
        rows = []
        for number in range(rounds):
            starts = rng.integers(0, len(plain) - args.seq_len - 1, size=(batches, args.batch_sequences))
            first = number * batches
            floor = drawn / seconds(lambda k, at=starts: floor_batch(plain, at[k], args.seq_len), batches)
            bare = drawn / seconds(lambda k, at=starts: bare_batch(mapped, at[k], args.seq_len), batches)
            ours = drawn / seconds(lambda k, at=first: stream.batch(at + k, global_batch_tokens), batches)
            rows.append((bare, floor, ours))
            print(
                f"round {number}: M tokens/s: bare {bare / 1e6:.0f}, floor {floor / 1e6:.0f}, stream {ours / 1e6:.0f}"
            )
    began = [seconds(lambda _: Mixture(SIX_DECIMALS).count_before(0, 765_433), 1) for _ in range(rounds)]
    result = {
        "benchmark": "stream",
        "seq_len": args.seq_len,
        "batch_sequences": args.batch_sequences,
        "rounds": rounds,
        "bare_tokens_per_second": statistics.median(bare for bare, _, _ in rows),
        "floor_tokens_per_second": statistics.median(floor for _, floor, _ in rows),
        "stream_tokens_per_second": statistics.median(ours for _, _, ours in rows),
        "ratio": statistics.median(ours / bare for bare, _, ours in rows),
        "ratio_to_floor": statistics.median(ours / floor for _, floor, ours in rows),
        "mixture_seconds": max(began),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
