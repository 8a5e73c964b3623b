"""New tokens per second on one thread: ours, one text and eight at once, transformers' generate, and llama.cpp with float32 weights.

    python benchmarks/decoding.py runs/quickstart/export/model [--tokens 200] [--rounds 5] [--without-llama-cpp]

All four read the same folder and write greedily from the end-of-text token, in alternation; each figure is the best of its
rounds. Ours and transformers are timed in CPU seconds of this process, so other processes matter little; llama.cpp (xllamacpp)
runs in a process of its own and tells the time on its clock, so on a busy machine it looks slower than it is. Its server samples
at temperature 1. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from gristmill.export.gguf import write_gguf
from gristmill.model.generate import generate
from gristmill.model.inference import InferenceModel
from gristmill.model.weights import load_model

BATCH = 8


def ours(model: InferenceModel, tokens: int) -> None:
    generate(model, [[0]], max_new_tokens=tokens, stop_ids=())


def ours_together(model: InferenceModel, tokens: int) -> None:
    caches = [model.empty_cache(tokens) for _ in range(BATCH)]
    last = [[0]] * BATCH
    for _ in range(tokens):
        last = model.advance(caches, last).argmax(1)[:, None].tolist()


def peer(model: torch.nn.Module, tokens: int) -> None:
    start = torch.tensor([[0]])
    how = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    model.generate(start, attention_mask=torch.ones_like(start), pad_token_id=0, **how)  # type: ignore[operator]


def llama_cpp(path: Path, context: int, tokens: int) -> float:
    request = {"path": str(path), "threads": 1, "context": context, "texts": [], "prompts": [], "answers": [], "speed_tokens": tokens}  # fmt: skip
    command = [sys.executable, "-m", "gristmill.export.ask_llama_cpp"]
    said = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=True).stdout
    return float(json.loads(said.splitlines()[-1])["tokens_per_second"])


def timed(write: Callable[[], None], tokens: int) -> Callable[[], float]:
    def tokens_per_second() -> float:
        begun = time.process_time()
        write()
        return tokens / (time.process_time() - begun)

    return tokens_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-llama-cpp", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    ready, tokens = InferenceModel(model), options.tokens
    theirs = AutoModelForCausalLM.from_pretrained(str(options.model), dtype=torch.float32, local_files_only=True).eval()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        racers = {
            "ours": timed(lambda: ours(ready, tokens), tokens),
            f"ours, {BATCH} at once": timed(lambda: ours_together(ready, tokens), BATCH * tokens),
            "transformers": timed(lambda: peer(theirs, tokens), tokens),
        }
        if not options.without_llama_cpp:
            gguf = Path(folder) / "model.gguf"
            write_gguf(options.model, gguf, form="f32", name="model")
            context = min(model.config.max_position_embeddings, tokens + 8)
            racers["llama.cpp"] = lambda: llama_cpp(gguf, context, tokens)
        best = dict.fromkeys(racers, 0.0)
        for _ in range(options.rounds):
            for name, race in racers.items():
                best[name] = max(best[name], race())
    for name, speed in best.items():
        print(f"{name:20s} {speed:9.1f} tokens/s   ours / this: {best['ours'] / speed:.2f}")
    print(json.dumps({"tokens": tokens, "tokens_per_second": best}))


if __name__ == "__main__":
    main()
