"""How much the training stream costs over reading memory: Stream.batch against a bare loop, in alternation, in one run.

    python benchmarks/stream.py [--quick] [--seq-len 2048] [--rounds 20]

Bare loop: windows at random places of one mapped uint16 file, widened into int64 inputs and targets, nothing else.
Stream: four sources in a mixture, shuffled windows, document boundaries, positions, loss mask, source numbers. Both read a
warm page cache. Prints one line a round and a JSON line at the end; `ratio` is the stream's speed over the bare loop's, as
the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.stream import Draw, Stream, StreamStage

WEIGHTS = {"web": 0.6, "code": 0.2, "maths": 0.12, "books": 0.08}
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
    """Inputs and targets of the windows that begin at `starts`."""
    inputs = np.empty((len(starts), seq_len), dtype=np.int64)
    targets = np.empty((len(starts), seq_len), dtype=np.int64)
    for row, start in enumerate(starts.tolist()):
        inputs[row] = tokens[start : start + seq_len]
        targets[row] = tokens[start + 1 : start + seq_len + 1]
    return inputs, targets


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
        tokens = shards["web"].tokens
        for shard in shards.values():
            int(shard.tokens.sum(dtype=np.int64))  # warms the page cache
        rows = []
        for number in range(rounds):
            starts = rng.integers(0, len(tokens) - args.seq_len - 1, size=(batches, args.batch_sequences))
            began = time.perf_counter()
            for batch in range(batches):
                bare_batch(tokens, starts[batch], args.seq_len)
            between = time.perf_counter()
            for batch in range(batches):
                stream.batch(number * batches + batch, global_batch_tokens)
            ended = time.perf_counter()
            drawn = batches * global_batch_tokens
            rows.append((drawn / (between - began), drawn / (ended - between)))
            print(f"round {number}: bare {rows[-1][0] / 1e6:.0f} M tokens/s, stream {rows[-1][1] / 1e6:.0f} M tokens/s")
    result = {
        "benchmark": "stream",
        "seq_len": args.seq_len,
        "batch_sequences": args.batch_sequences,
        "rounds": rounds,
        "bare_tokens_per_second": statistics.median(bare for bare, _ in rows),
        "stream_tokens_per_second": statistics.median(ours for _, ours in rows),
        "ratio": statistics.median(ours / bare for bare, ours in rows),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
