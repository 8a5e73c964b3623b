"""What tokenizing a corpus costs: texts to shards on disk, by splintr behind its checks and by `tokenizers`, each in its own process.

    python benchmarks/encoding.py TOKENIZER_FOLDER TEXTS.jsonl [--rounds 3]

TEXTS has a "text" a line, read beforehand. Both sides encode in batches of 4 MB on one thread and write the same shard (ids, index,
hashes); a fresh process has met none of the texts, and splintr's checks against the reference count. Prints CPU seconds, MB/s, and the
ratio; the shards must have the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BATCH_BYTES = 4_000_000


def batches(texts: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def run_side(side: str, folder: Path, texts_path: Path, out: Path) -> None:
    from gristmill.tokens.encoder import Encoder
    from gristmill.tokens.shards import ShardWriter, TokenShard
    from gristmill.tokens.tokenizer import Tokenizer

    with texts_path.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    tokenizer = Tokenizer.load(folder)
    num_bytes = sum(len(text.encode()) for text in texts)
    started = time.process_time()
    encoder = Encoder.fastest(tokenizer) if side == "splintr" else Encoder(tokenizer)
    assert encoder.is_fast == (side == "splintr"), "splintr is not installed"
    with ShardWriter(
        out, tokenizer_sha256="0" * 64, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id
    ) as writer:
        for batch in batches(texts):
            writer.add_many(encoder.encode(batch), num_bytes=0)
    seconds = time.process_time() - started
    print(json.dumps({"seconds": seconds, "bytes": num_bytes, "sha256": TokenShard(out).facts.tokens_sha256}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    out = Path(f"/tmp/encoding-{os.getpid()}")
    if args.side:
        out.mkdir()
        try:
            run_side(args.side, args.tokenizer, args.texts, out / "shard")
        finally:
            shutil.rmtree(out)
        return
    found: dict[str, list[dict[str, float]]] = {"tokenizers": [], "splintr": []}
    for _ in range(args.rounds):
        for side, rows in found.items():
            command = [sys.executable, __file__, str(args.tokenizer), str(args.texts), "--side", side]
            env = {**os.environ, "RAYON_NUM_THREADS": "1"}
            rows.append(
                json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout)
            )
    assert len({row["sha256"] for rows in found.values() for row in rows}) == 1, "the shards differ"
    median = {side: statistics.median(row["seconds"] for row in rows) for side, rows in found.items()}
    for side, rows in found.items():
        print(f"{side:<11} {median[side]:6.2f} s of CPU, {rows[0]['bytes'] / 1e6 / median[side]:5.1f} MB/s")
    print(f"tokenizers over splintr {median['tokenizers'] / median['splintr']:.1f}; the shards are equal")


if __name__ == "__main__":
    main()
