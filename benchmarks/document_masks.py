"""A training step on one packed window: attention document by document, against the same window without documents and with a dense mask.

    python benchmarks/document_masks.py [--window 8192] [--quick]

All three are gristmill's model and loss on the same tokens. "whole": the window is one document, so each token sees all before it, as in
packing without masks. "dense": block-diagonal causal attention by a mask tensor of window × window, as in loops that pack with a mask; its
loss is held to that of ours. Documents are drawn as their lengths are in web text: log-normal, median 400 tokens, cut at the window. By
turns in one process; ratios of seconds over ours, medians over the pairs. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from model_shapes import config_of
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from train_step import make_batch, our_step, seconds

from gristmill.model import transformer
from gristmill.model.attention import Documents

MEDIAN_TOKENS, SPREAD = 400, 1.0


def drawn_lengths(window: int) -> list[int]:
    rng, lengths = np.random.default_rng(2), []
    while (left := window - sum(lengths)) > 0:
        lengths.append(min(left, max(1, int(rng.lognormal(np.log(MEDIAN_TOKENS), SPREAD)))))
    return lengths


def dense_attention(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, documents: Documents) -> Tensor:
    """The same attention by a mask tensor, made once for a batch as such loops do."""
    key = tuple(documents.lengths)
    if key not in _MASKS:
        of = torch.repeat_interleave(torch.arange(len(key)), torch.tensor(key))
        _MASKS[key] = (of[:, None] == of[None, :]).tril_()
    q, k, v = (x.transpose(0, 1)[None] for x in (q_NHK, k_NGK, v_NGK))
    out = scaled_dot_product_attention(q, k, v, attn_mask=_MASKS[key], enable_gqa=q.shape[1] != k.shape[1])
    return out[0].transpose(0, 1)


_MASKS: dict[tuple[int, ...], Tensor] = {}


@contextmanager
def dense() -> Iterator[None]:
    ours = transformer.document_attention
    transformer.document_attention = dense_attention
    try:
        yield
    finally:
        transformer.document_attention = ours


def with_dense(step: Callable[[], float]) -> Callable[[], float]:
    def run() -> float:
        with dense():
            return step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two turns: checks that it runs, not a figure to report")
    parser.add_argument("--window", type=int, default=8192)
    parser.add_argument("--shape", default="1.6M")
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    config, lengths = config_of(arguments.shape, arguments.window), drawn_lengths(arguments.window)
    packed, whole = make_batch(lengths, config.vocab_size), make_batch([arguments.window], config.vocab_size)
    steps = {
        "documents": our_step(config, packed),
        "whole": our_step(config, whole),
        "dense": with_dense(our_step(config, packed)),
    }
    first = {name: step() for name, step in steps.items()}
    assert abs(first["documents"] - first["dense"]) < 1e-4, f"the two ways of masking differ: {first}"
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(2 if arguments.quick else arguments.turns):
        for name, step in steps.items():
            times[name].append(seconds(step))
    ratios = {
        name: [theirs / ours for theirs, ours in zip(times[name], times["documents"], strict=True)]
        for name in ("whole", "dense")
    }
    result = {
        "benchmark": "document_masks",
        "shape": arguments.shape,
        "window": arguments.window,
        "documents": len(lengths),
        "threads": torch.get_num_threads(),
        "seconds": {name: round(statistics.median(values), 3) for name, values in times.items()},
        **{f"{name}_over_documents": round(statistics.median(values), 2) for name, values in ratios.items()},
        "range": {name: [round(min(values), 2), round(max(values), 2)] for name, values in ratios.items()},
        "target": "whole_over_documents >= 2, dense_over_documents >= 3.4",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
