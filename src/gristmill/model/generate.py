"""Text from a model: prompts of token ids in, new token ids out.

Every prompt is decoded with its own cache and its own random generator, and no arithmetic is shared between prompts, so a
result does not depend on which other prompts are in the call.

Shape letters: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from gristmill.errors import DataError
from gristmill.model.attention import KeyValueCache
from gristmill.model.transformer import Llama


@torch.inference_mode()
def generate(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> list[list[int]]:
    """New tokens for every prompt: up to `max_new_tokens`, ending with (and including) the first of `stop_ids`.

    temperature 0 takes the most likely token; above 0 it samples from the smallest set of tokens whose probability
    reaches top_p, with one generator per prompt seeded by `seeds`.
    Raises DataError if a prompt is empty or prompt and new tokens do not fit the model's context.
    """
    if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
        raise ValueError(f"sampling needs one seed per prompt: {len(prompts)} prompts, seeds {seeds!r}")
    _check_fit(model, prompts, max_new_tokens)
    results = []
    for index, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seeds[index]) if temperature > 0 and seeds is not None else None
        results.append(
            list(
                stream(
                    model,
                    prompt,
                    max_new_tokens=max_new_tokens,
                    stop_ids=frozenset(stop_ids),
                    temperature=temperature,
                    top_p=top_p,
                    generator=generator,
                )
            )
        )
    return results


@torch.inference_mode()
def stream(
    model: Llama,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """The new tokens of one prompt, each as soon as it is known; `generate` says what they are."""
    config, device = model.config, model.device
    cache = KeyValueCache(
        layers=config.num_hidden_layers,
        max_tokens=len(prompt) + max_new_tokens,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        device=device,
        dtype=model.output_weight_VD.dtype,
    )
    piece = list(prompt)
    for _ in range(max_new_tokens):
        positions = torch.arange(cache.length, cache.length + len(piece), device=device)
        x_ND = model.hidden(torch.tensor(piece, device=device), positions, [len(piece)], cache)
        token = choose(model.logits(x_ND[-1:])[0], temperature=temperature, top_p=top_p, generator=generator)
        yield token
        if token in stop_ids:
            return
        piece = [token]


def choose(logits_V: Tensor, *, temperature: float, top_p: float, generator: torch.Generator | None) -> int:
    """One token id: the most likely one at temperature 0 (the lowest id of equals), else a nucleus sample.

    Sampling runs on the CPU in float64, so that one seed means one token on every device.
    Source of top_p: Holtzman et al. 2019 (arXiv 1904.09751). The token that crosses top_p is kept.
    """
    if temperature <= 0:
        return int(logits_V.argmax())
    probabilities_V = torch.softmax(logits_V.double().cpu() / temperature, dim=-1)
    ordered_V, ids_V = torch.sort(probabilities_V, descending=True, stable=True)
    cumulative_V = ordered_V.cumsum(0)
    kept = int((cumulative_V - ordered_V < top_p).sum())
    threshold = torch.rand((), generator=generator, dtype=torch.float64) * cumulative_V[kept - 1]
    index = int((cumulative_V[:kept] <= threshold).sum())
    return int(ids_V[min(index, kept - 1)])


def _check_fit(model: Llama, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    limit = model.config.max_position_embeddings
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"prompt {index} is empty. Begin it with the end-of-text token to generate from nothing.")
        if len(prompt) + max_new_tokens > limit:
            raise DataError(
                f"prompt {index} has {len(prompt)} tokens; with {max_new_tokens} new tokens that is "
                f"{len(prompt) + max_new_tokens}, but the model's context is {limit} tokens. "
                "Shorten the prompt or ask for fewer new tokens."
            )
