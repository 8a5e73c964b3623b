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
from gristmill.model.inference import InferenceModel
from gristmill.model.transformer import Llama

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes
HOPELESS = 1e-5  # of the best token's probability: what is below is sorted only when a draw asks for it


@torch.inference_mode()
def generate(
    model: Llama | InferenceModel,
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
    reaches top_p, with one generator per prompt seeded by `seeds`. A Llama is laid out for inference in every call; who calls
    often with the same weights gives an InferenceModel.
    Raises DataError if a prompt is empty or prompt and new tokens do not fit the model's context.
    """
    if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
        raise ValueError(f"sampling needs one seed per prompt: {len(prompts)} prompts, seeds {seeds!r}")
    check_fit(model, prompts, max_new_tokens)
    equal: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        equal.setdefault(tuple(prompt), []).append(index)
    ready = InferenceModel(model) if isinstance(model, Llama) else model
    stop_ids = frozenset(stop_ids)
    results: list[list[int]] = [[] for _ in prompts]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds] if temperature > 0 and seeds else None
    for shared, indices in equal.items() if max_new_tokens > 0 else ():
        cache = ready.empty_cache(len(shared) + max_new_tokens)
        # Depth first: what lies in the cache before a branch is still there when the branches beside it are done.
        waiting = [(0, list(shared), indices)]
        while waiting:
            cache.length, piece, texts = waiting.pop()
            choice = choice_of(ready.advance([cache], [piece])[0], temperature=temperature, top_p=top_p)
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
    model: InferenceModel,
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
    cache = model.empty_cache(len(prompt) + max_new_tokens)
    piece = list(prompt)
    for _ in range(max_new_tokens):
        (logits_V,) = model.advance([cache], [piece])
        token = choice_of(logits_V, temperature=temperature, top_p=top_p).draw(generator)
        yield token
        if token in stop_ids:
            return
        piece = [token]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The tokens that may come next, likeliest first, and the sum of their probabilities up to each.

    Sorting a whole vocabulary takes longer than the pass of a small model, so only what is not hopeless against the best token
    is sorted at first. `mass` is the sum over all that may come; a number beyond the sorted ones sorts the rest.
    """

    ids: Tensor
    cumulative: Tensor
    mass: float
    unsorted_V: Tensor | None = None  # probabilities of all tokens, where the rest may come too

    def draw(self, generator: torch.Generator | None) -> int:
        """One of them, by one number of the generator; the likeliest where there is none."""
        if generator is None:
            return int(self.ids[0])
        threshold = torch.rand((), generator=generator, dtype=torch.float64) * self.mass
        ids, cumulative = self.ids, self.cumulative
        if self.unsorted_V is not None and threshold >= cumulative[-1]:
            ids, _, cumulative = _likeliest_first(self.unsorted_V, at_least=0.0)
        index = int(torch.searchsorted(cumulative, threshold, right=True))
        return int(ids[min(index, len(ids) - 1)])


def choice_of(logits_V: Tensor, *, temperature: float, top_p: float) -> Choice:
    """The likeliest token at temperature 0 (the lowest id of equals), else the nucleus: the smallest set that reaches top_p.

    Sampling runs on the CPU in float64, so that one seed means one token on every device.
    Source of top_p: Holtzman et al. 2019 (arXiv 1904.09751). The token that crosses top_p is kept.
    """
    if temperature <= 0:
        best = logits_V.argmax()[None].cpu()
        return Choice(ids=best, cumulative=torch.ones_like(best, dtype=torch.float64), mass=1.0)
    probabilities_V = torch.softmax(logits_V.double().cpu() / temperature, dim=-1)
    ids, ordered, cumulative = _likeliest_first(probabilities_V, at_least=HOPELESS * float(probabilities_V.max()))
    if top_p >= 1:
        return Choice(ids=ids, cumulative=cumulative, mass=1.0, unsorted_V=probabilities_V)
    if cumulative[-1] < top_p:
        ids, ordered, cumulative = _likeliest_first(probabilities_V, at_least=0.0)
    kept = max(1, int((cumulative - ordered < top_p).sum()))
    return Choice(ids=ids[:kept], cumulative=cumulative[:kept], mass=float(cumulative[kept - 1]))


def _likeliest_first(probabilities_V: Tensor, *, at_least: float) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, probabilities, their running sum) of the tokens that reach `at_least`; of equals the lowest id is first."""
    ids = (probabilities_V >= at_least).nonzero()[:, 0]
    ordered, order = torch.sort(probabilities_V[ids], descending=True, stable=True)
    return ids[order], ordered, ordered.cumsum(0)


def check_fit(model: Llama | InferenceModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
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
