"""Text from a model: prompts of token ids in, new token ids out.

Every text has its own random generator, and a prefix goes through the model alone, one token at a time after the prompt, so a
result does not depend on which other prompts are in the call. Texts of equal prompts share the passes of what they have in
common: eight samples that begin alike cost little more than one, and have the same bits as if each had been alone.

Shape letters: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gristmill.errors import DataError
from gristmill.model.attention import KeyValueCache
from gristmill.model.transformer import Llama

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes


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
    check_fit(model, prompts, max_new_tokens)
    equal: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        equal.setdefault(tuple(prompt), []).append(index)
    stop_ids = frozenset(stop_ids)
    results: list[list[int]] = [[] for _ in prompts]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds] if temperature > 0 and seeds else None
    for shared, indices in equal.items() if max_new_tokens > 0 else ():
        cache = _empty_cache(model, len(shared) + max_new_tokens)
        # Depth first: what lies in the cache before a branch is still there when the branches beside it are done.
        waiting = [(0, list(shared), indices)]
        while waiting:
            cache.length, piece, texts = waiting.pop()
            choice = choice_of(_next_logits(model, cache, piece), temperature=temperature, top_p=top_p)
            branches: dict[int, list[int]] = {}
            for text in texts:
                token = choice.draw(generators[text] if generators else None)
                results[text].append(token)
                if token not in stop_ids and len(results[text]) < max_new_tokens:
                    branches.setdefault(token, []).append(text)
            waiting += [(cache.length, [token], followers) for token, followers in branches.items()]
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
    """The new tokens of one prompt, each as soon as it is known; `generate` says what they are. Sampling needs a generator."""
    if temperature > 0 and generator is None:
        raise ValueError(f"sampling at temperature {temperature} needs a generator")
    cache = _empty_cache(model, len(prompt) + max_new_tokens)
    piece = list(prompt)
    for _ in range(max_new_tokens):
        logits_V = _next_logits(model, cache, piece)
        token = choice_of(logits_V, temperature=temperature, top_p=top_p).draw(generator)
        yield token
        if token in stop_ids:
            return
        piece = [token]


def _empty_cache(model: Llama, max_tokens: int) -> KeyValueCache:
    return KeyValueCache(
        layers=model.config.num_hidden_layers,
        max_tokens=max_tokens,
        kv_heads=model.config.num_key_value_heads,
        head_dim=model.config.head_dim,
        device=model.device,
        dtype=model.output_weight_VD.dtype,
    )


def _next_logits(model: Llama, cache: KeyValueCache, piece: Sequence[int]) -> Tensor:
    """Scores of the token after `piece`, which continues the cached text."""
    positions_N = torch.arange(cache.length, cache.length + len(piece), device=model.device)
    x_ND = model.hidden(torch.tensor(piece, device=model.device), positions_N, [len(piece)], cache)
    return model.logits(x_ND[-1:])[0]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The tokens that may come next, likeliest first, and the sum of their probabilities up to each."""

    ids: Tensor
    cumulative: Tensor

    def draw(self, generator: torch.Generator | None) -> int:
        """One of them, by one number of the generator; the likeliest where there is none."""
        if generator is None:
            return int(self.ids[0])
        threshold = torch.rand((), generator=generator, dtype=torch.float64) * self.cumulative[-1]
        index = int((self.cumulative <= threshold).sum())
        return int(self.ids[min(index, len(self.ids) - 1)])


def choice_of(logits_V: Tensor, *, temperature: float, top_p: float) -> Choice:
    """The likeliest token at temperature 0 (the lowest id of equals), else the nucleus: the smallest set that reaches top_p.

    Sampling runs on the CPU in float64, so that one seed means one token on every device.
    Source of top_p: Holtzman et al. 2019 (arXiv 1904.09751). The token that crosses top_p is kept.
    """
    if temperature <= 0:
        return Choice(ids=logits_V.argmax()[None].cpu(), cumulative=torch.ones(1, dtype=torch.float64))
    probabilities_V = torch.softmax(logits_V.double().cpu() / temperature, dim=-1)
    ordered_V, ids_V = torch.sort(probabilities_V, descending=True, stable=True)
    cumulative_V = ordered_V.cumsum(0)
    kept = int((cumulative_V - ordered_V < top_p).sum())
    return Choice(ids=ids_V[:kept], cumulative=cumulative_V[:kept])


def check_fit(model: Llama, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raises DataError for a prompt that is empty or leaves no room for the new tokens in the model's context."""
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
