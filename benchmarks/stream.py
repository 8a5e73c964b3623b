"""How much the training stream costs over copying memory: Stream.batch against the least that numpy can do, in turns, in one run.

    python benchmarks/stream.py [--quick] [--seq-len 256 2048 8192] [--rounds 30]

Floor: the same number of windows at random places of one file, each byte copied once: inputs and targets widened into two arrays of int64,
which are used again. It knows no documents. Bare: the loop that small trainers use (nanoGPT's get_batch without torch): slices of one
np.memmap of uint16, `.astype(int64)`, stacked. Stream: four sources in a mixture, shuffled windows, document boundaries, positions, loss
mask, source numbers; its blocks were verified before, which is timed apart. All read a warm page cache, and time is CPU time of the
process, so that other work on the machine counts less. Prints a line for each length and a JSON line at the end: `ratio_to_floor` is the
stream's speed over the floor's and `ratio` over the bare loop's, medians over rounds of ten batches; `verify_gb_per_second` is what checking the
blocks costs, once a block; `hash_gb_per_second` what writing their hashes adds to a shard; `mixture_seconds` what a stage costs before its
first sequence when its weights have six decimals, so that the order repeats after a million: the slowest of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.tokens.blocks import BlockHasher
from gristmill.tokens.mixture import Mixture
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.stream import Draw, Stream, StreamStage

WEIGHTS = {"web": 0.6, "code": 0.2, "maths": 0.12, "books": 0.08}
SIX_DECIMALS = [0.123457, 0.223456, 0.053087, 0.200001, 0.099999, 0.150001, 0.149999]
VOCAB_SIZE = 49_152
BATCHES = 10  # of a round


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
    tokens: NDArray[np.uint16], starts: NDArray[np.int64], inputs: NDArray[np.int64], targets: NDArray[np.int64]
) -> None:
    """The same, with no copy between the file and two arrays that are there."""
    seq_len = inputs.shape[1]
    for row, start in enumerate(starts.tolist()):
        inputs[row] = tokens[start : start + seq_len]
        targets[row] = tokens[start + 1 : start + seq_len + 1]


def seconds(call: Callable[[int], object], count: int = BATCHES) -> float:
    """CPU time of call(0) … call(count - 1)."""
    began = time.process_time()
    for number in range(count):
        call(number)
    return time.process_time() - began


def compare(shards: dict[str, TokenShard], *, seq_len: int, batch_tokens: int, rounds: int) -> dict[str, Any]:
    """The figures of one length."""
    num = batch_tokens // seq_len
    draws = tuple(Draw(source=name, weight=weight) for name, weight in WEIGHTS.items())
    stage = StreamStage(name="bench", num_samples=rounds * BATCHES * num, seq_len=seq_len, draws=draws)
    stream = Stream(shards, [stage], seed=1)
    mapped = np.memmap(shards["web"].path.with_suffix(".bin"), dtype=np.uint16, mode="r")
    plain = np.asarray(mapped)
    rng = np.random.default_rng(seq_len)
    inputs, targets = np.empty((num, seq_len), dtype=np.int64), np.empty((num, seq_len), dtype=np.int64)
    rows = []
    for number in range(rounds):
        starts = rng.integers(0, len(plain) - seq_len - 1, size=(BATCHES, num))
        floor = seconds(lambda k, at=starts: floor_batch(plain, at[k], inputs, targets))
        ours = seconds(lambda k, at=number * BATCHES: stream.batch(at + k, batch_tokens))
        bare = seconds(lambda k, at=starts: bare_batch(mapped, at[k], seq_len))
        rows.append((floor, ours, bare))
    drawn = BATCHES * batch_tokens
    found = {
        "seq_len": seq_len,
        "floor_tokens_per_second": drawn / statistics.median(floor for floor, _, _ in rows),
        "stream_tokens_per_second": drawn / statistics.median(ours for _, ours, _ in rows),
        "ratio_to_floor": statistics.median(floor / ours for floor, ours, _ in rows),
        "ratio": statistics.median(bare / ours for _, ours, bare in rows),
    }
    print(
        f"{seq_len:>6}: {found['ratio_to_floor']:.3f} of the floor, {found['ratio']:.2f} × the bare loop; M tokens/s: "
        f"stream {found['stream_tokens_per_second'] / 1e6:.0f}, floor {found['floor_tokens_per_second'] / 1e6:.0f}",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small files and few rounds: a check that it runs")
    parser.add_argument("--seq-len", type=int, nargs="+", default=[256, 2048, 8192])
    parser.add_argument("--batch-tokens", type=int, default=131_072)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    num_tokens, rounds = (4_000_000, 3) if args.quick else (100_000_000, args.rounds)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        shards = {name: write_shard(Path(folder) / name, int(num_tokens * w), rng) for name, w in WEIGHTS.items()}
        num_bytes = sum(shard.tokens.nbytes for shard in shards.values())
        for shard in shards.values():
            int(shard.tokens.sum(dtype=np.int64))  # warms the page cache
        verify = seconds(lambda _: [shard.read(0, shard.num_tokens) for shard in shards.values()], 1)
        payload = shards["web"].tokens.tobytes()
        hashing = seconds(lambda _: BlockHasher().update(payload), 1)
        lengths = [
            compare(shards, seq_len=length, batch_tokens=args.batch_tokens, rounds=rounds) for length in args.seq_len
        ]
    began = [seconds(lambda _: Mixture(SIX_DECIMALS).count_before(0, 765_433), 1) for _ in range(rounds)]
    result = {
        "benchmark": "stream",
        "batch_tokens": args.batch_tokens,
        "rounds": rounds,
        "lengths": lengths,
        "verify_gb_per_second": num_bytes / verify / 1e9,
        "hash_gb_per_second": len(payload) / hashing / 1e9,
        "mixture_seconds": max(began),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
