"""What a start and a step of fine-tuning cost: all conversations in memory against one shard on disk, each in its own process.

    python benchmarks/chat_shards.py [--quick] [--conversations 200000] [--batch 64]

In memory: every conversation is encoded by a call of its own and kept, and each step shuffles all numbers to find its batch.
Shard: gristmill.tokens.chat_shards and the order of gristmill.align.epochs. Start: until the first batch can be made; a second
start finds the shard of the first. CPU is that of all threads. Peak is what the start adds to the process, pages of mapped files
included, which the system takes back when it needs them; own is what stays of it without them. Prints a table and a JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.align.epochs import Passes
from gristmill.store.durable import file_sha256
from gristmill.store.jsonl import read_jsonl, write_jsonl
from gristmill.tokens.batch import Batch, concatenate
from gristmill.tokens.chat import chat_batch, encode_conversations
from gristmill.tokens.chat_shards import encode_once
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

SEQ_LEN = 2048
ROWS, TOKENIZER, SHARD = "sft.jsonl", "tokenizer", "chats"
MakeBatch = Callable[[int], Batch]


def write_inputs(folder: Path, num_conversations: int) -> None:
    """Conversations of two to six messages, about 40 words each, from a made-up language of 5,000 words; its tokenizer."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = np.array(["".join(rng.choice(letters, size=size)) for size in rng.integers(2, 9, size=5000)])
    texts = (" ".join(words[rng.integers(0, 5000, size=200)]) for _ in range(500))
    Tokenizer(train_tokenizer(texts, 4096)).save(folder / TOKENIZER)

    def row(number: int) -> dict[str, Any]:
        lengths = np.clip(rng.lognormal(3.3, 0.9, size=2 * rng.integers(1, 4)), 1, 400).astype(int)
        messages = [
            {"role": ("user", "assistant")[place % 2], "content": " ".join(words[rng.integers(0, 5000, size=length)])}
            for place, length in enumerate(lengths)
        ]
        return {"id": str(number), "kind": ("chat", "code")[number % 2], "messages": messages}

    for part in range(0, num_conversations, 10_000):
        write_jsonl(folder / "part", map(row, range(part, min(part + 10_000, num_conversations))))
        with (folder / ROWS).open("ab") as file:
            file.write((folder / "part").read_bytes())


def in_memory(folder: Path, batch_size: int) -> MakeBatch:
    """As fine-tuning did before it had shards."""
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    rows = read_jsonl(folder / ROWS)
    chats = [encode_conversations(tokenizer, [(row["id"], row["messages"])])[0] for row in rows]

    def batch(step: int) -> Batch:
        order: NDArray[np.int64] = np.random.default_rng(0).permutation(len(chats))
        chosen = order[step * batch_size : (step + 1) * batch_size]
        return concatenate([chat_batch([chats[number]]) for number in chosen])

    return batch


def shard(folder: Path, batch_size: int) -> MakeBatch:
    """As it does now."""
    chats = encode_once(
        folder / ROWS,
        folder / SHARD,
        tokenizer=Tokenizer.load(folder / TOKENIZER),
        tokenizer_sha256=file_sha256(folder / TOKENIZER / "tokenizer.json"),
        seq_len=SEQ_LEN,
    )
    passes = Passes(num_items=chats.num_conversations, batch_size=batch_size, epochs=1, seed=0)
    return lambda step: chats.batch(passes.items(step * batch_size))


WAYS = {"in memory": in_memory, "shard, first start": shard, "shard, second start": shard}


def measure(way: str, folder: Path, batch_size: int, steps: int) -> dict[str, float]:
    """Seconds and peak memory of the start, milliseconds of a step."""
    before, own_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, own_kib()
    began, cpu_began = time.perf_counter(), time.process_time()
    make_batch = WAYS[way](folder, batch_size)
    start, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    tokens = sum(make_batch(step).num_tokens for step in range(steps))
    step_seconds = (time.perf_counter() - began) / steps
    return {
        "start_seconds": start,
        "start_cpu_seconds": cpu,
        "peak_mib": (peak - before) / 1024,
        "own_mib": (own_kib() - own_before) / 1024,
        "step_ms": 1000 * step_seconds,
        "tokens_per_step": tokens / steps,
    }


def own_kib() -> int:
    """Memory of this process that no file lies behind (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 conversations: a check that it runs")
    parser.add_argument("--conversations", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.folder, args.batch, 20)))
        return
    count = 2_000 if args.quick else args.conversations
    with tempfile.TemporaryDirectory() as name:
        write_inputs(Path(name), count)
        found = {}
        print(f"{count:,} conversations        start          CPU         peak          own   a step of {args.batch}")
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--folder", name, "--batch", str(args.batch)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            row = found[way] = json.loads(output)
            print(
                f"{way:<22} {row['start_seconds']:10.1f} s {row['start_cpu_seconds']:10.1f} s {row['peak_mib']:8.0f} MiB "
                f"{row['own_mib']:8.0f} MiB {row['step_ms']:10.2f} ms"
            )
    print(json.dumps({"benchmark": "chat_shards", "conversations": count, "ways": found}))


if __name__ == "__main__":
    main()
