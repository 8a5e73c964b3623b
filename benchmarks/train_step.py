"""One optimizer step of ours against LlamaForCausalLM in a plain loop, alternating in one process.

    python benchmarks/train_step.py [--quick]

Both train the same 5M-parameter model on the same windows: ours with gristmill's model, chunked loss, norm and clipping, the
peer with transformers' model, F.cross_entropy, torch's clipping and AdamW. First without document boundaries, which is what
the plain loop does; then, ours alone, with several documents in each window (a shape the plain loop does not handle).
The ratio is peer seconds / our seconds, pair by pair: above 1, ours is faster. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional
from transformers import LlamaConfig as PeerConfig
from transformers import LlamaForCausalLM

from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.tokens.batch import Batch, positions_within
from gristmill.train.loss import next_token_loss
from gristmill.train.optimizer import clip_, make_optimizer

SHAPES = {
    "5M": {
        "vocab_size": 4096,
        "hidden_size": 224,
        "intermediate_size": 608,
        "num_hidden_layers": 8,
        "num_attention_heads": 7,
        "num_key_value_heads": 7,
        "head_dim": 32,
    },
    "quickstart": {
        "vocab_size": 4096,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    },
}


def make_batch(lengths: list[int], vocab_size: int) -> Batch:
    total = sum(lengths)
    tokens = np.random.default_rng(0).integers(0, vocab_size, total + 1, dtype=np.int32)
    document_lengths = np.array(lengths, dtype=np.int64)
    return Batch(
        tokens_N=tokens[:-1],
        targets_N=tokens[1:],
        positions_N=positions_within(document_lengths),
        document_lengths=document_lengths,
        loss_mask_N=np.ones(total, dtype=np.float32),
        source_N=np.zeros(total, dtype=np.int16),
    )


def cut_windows(windows: int, window: int) -> list[int]:
    """Windows cut into documents of 30 to 150 tokens, as short texts would."""
    rng, lengths = np.random.default_rng(1), []
    for _ in range(windows):
        left = window
        while left:
            lengths.append(min(left, int(rng.integers(30, 150))))
            left -= lengths[-1]
    return lengths


def our_step(config: LlamaConfig, batch: Batch) -> Callable[[], float]:
    model = init_weights(Llama(config), 0)
    optimizer = make_optimizer(model, lr=1e-3)

    def step() -> float:
        output = next_token_loss(model, batch, ["text"])
        (output.loss_sum / batch.num_units).backward()
        clip_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return output.sums["loss"][0] / batch.num_units

    return step


def peer_step(config: LlamaConfig, batch: Batch, window: int) -> Callable[[], float]:
    settings = {key: value for key, value in config.to_dict().items() if key not in ("architectures", "model_type")}
    model = LlamaForCausalLM(PeerConfig(**settings))
    model.load_state_dict(init_weights(Llama(config), 0).state_dict(), strict=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    tokens = torch.from_numpy(batch.tokens_N).long().view(-1, window)
    targets = torch.from_numpy(batch.targets_N).long()

    def step() -> float:
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def seconds(step: Callable[[], float]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pairs: checks that it runs, not a figure to report")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="5M")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--window", type=int, default=256)
    arguments = parser.parse_args()
    pairs, warmups = (4, 1) if arguments.quick else (40, 4)

    config = LlamaConfig(max_position_embeddings=arguments.window, **SHAPES[arguments.shape])
    whole = make_batch([arguments.window] * arguments.windows, config.vocab_size)
    cut = make_batch(cut_windows(arguments.windows, arguments.window), config.vocab_size)
    ours, peer = our_step(config, whole), peer_step(config, whole, arguments.window)
    ours_cut = our_step(config, cut)
    first = (ours(), peer())
    for _ in range(warmups):
        ours(), peer(), ours_cut()

    times: dict[str, list[float]] = {"ours": [], "peer": [], "ours_with_documents": []}
    for pair in range(pairs):
        order = [("ours", ours), ("peer", peer)]
        for name, step in order if pair % 2 else reversed(order):
            times[name].append(seconds(step))
        times["ours_with_documents"].append(seconds(ours_cut))

    ratios = [theirs / mine for theirs, mine in zip(times["peer"], times["ours"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    tokens = whole.num_tokens
    result = {
        "benchmark": "train_step",
        "shape": arguments.shape,
        "parameters": sum(parameter.numel() for parameter in Llama(config).parameters()),
        "tokens_per_step": tokens,
        "documents_in_cut_batch": len(cut.document_lengths),
        "threads": torch.get_num_threads(),
        "pairs": pairs,
        "loss_of_first_step": [round(float(value), 5) for value in first],
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(quartiles[0], 3), round(quartiles[2], 3)],
        "tokens_per_second": {name: round(tokens / statistics.median(values)) for name, values in times.items()},
        "target": "ratio_median >= 1.0",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
