"""Runs llama.cpp on a GGUF file in a separate process, because a file that it cannot read may crash the process.

    python -m gristmill.export.ask_llama_cpp  < request.json      one JSON object

Request: {"path": file, "threads": 1, "context": tokens, "texts": [...], "prompts": [[ids], ...], "answers": [[ids], ...],
"speed_tokens": 256}. Answer: the ids of each text; for each token of each answer the most likely tokens in its place, as
[id, log-probability], best first; tokens per second of plain generation; the memory used by loading and generating.

The cache of keys and values is float32 and flash attention is off, so that nothing is rounded but the weights.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import urllib.request
from typing import Any

import psutil

XLLAMACPP = "xllamacpp"
NUM_PROBS = 5


def main() -> None:
    """Read the request, ask, write."""
    request = json.load(sys.stdin)
    importlib.import_module(XLLAMACPP)
    process = psutil.Process()
    before = process.memory_info().rss
    server = _start(request["path"], threads=request["threads"], context=request["context"])
    speed = _tokens_per_second(server, request["speed_tokens"]) if request["speed_tokens"] else None
    memory = process.memory_info().rss - before  # not the peak of getrusage, which is inherited from the parent
    answer = {
        "version": importlib.metadata.version(XLLAMACPP),
        "ids": [_ask(server, "/tokenize", content=text, parse_special=False)["tokens"] for text in request["texts"]],
        "likely": [_likely(server, *pair) for pair in zip(request["prompts"], request["answers"], strict=True)],
        "tokens_per_second": speed,
        "memory_bytes": memory,
    }
    print(json.dumps(answer), flush=True)


def _start(path: str, *, threads: int, context: int) -> Any:
    llama: Any = importlib.import_module(XLLAMACPP)
    params = llama.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = params.fit_params = params.ui = False
    params.verbosity = 0
    return llama.Server(params)


def _ask(server: Any, path: str, **body: Any) -> Any:
    request = urllib.request.Request(
        server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def _likely(server: Any, prompt: list[int], answer: list[int]) -> list[list[tuple[int, float]]]:
    """Asks for one token after each prefix of the answer, so that an end token in the answer has no effect.

    The server lists nothing for a sampled token that ends the text or is part of a character. So a bias makes it sample "a";
    the listed probabilities are those before the bias.
    """
    [letter] = _ask(server, "/tokenize", content="a", parse_special=False)["tokens"]
    ask = {"n_predict": 1, "temperature": 0, "n_probs": NUM_PROBS, "logit_bias": [[letter, 1e6]]}
    found = []
    for length in range(len(answer)):
        said = _ask(server, "/completion", prompt=[*prompt, *answer[:length]], **ask)
        best = said["completion_probabilities"][0]["top_logprobs"]
        found.append([(token["id"], token["logprob"]) for token in best])
    return found


def _tokens_per_second(server: Any, tokens: int) -> float:
    said = _ask(server, "/completion", prompt=[0], n_predict=tokens, temperature=1, seed=0, ignore_eos=True)
    return float(said["timings"]["predicted_per_second"])


if __name__ == "__main__":
    main()
