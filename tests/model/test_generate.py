"""Decoding: cached equals full, independent of the batch, reproducible by seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import DataError
from gristmill.model.attention import KeyValueCache
from gristmill.model.generate import choice_of, generate, stream
from gristmill.model.transformer import Llama, LlamaConfig
from gristmill.model.weights import init_weights

CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    initializer_range=0.3,
)
MODEL = init_weights(Llama(CONFIG), 1)
prompts = st.lists(st.integers(0, 60), min_size=1, max_size=20)
few = settings(max_examples=20, deadline=None)


def full_logits(tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return MODEL.logits(MODEL.hidden(torch.tensor(tokens), torch.arange(len(tokens)), [len(tokens)]))


@few
@given(tokens=st.lists(st.integers(0, 60), min_size=2, max_size=30), data=st.data())
def test_cached_pieces_equal_the_full_forward(tokens: list[int], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(tokens) - 1), max_size=4)))
    cache = KeyValueCache(
        layers=2, max_tokens=len(tokens), kv_heads=2, head_dim=8, device=torch.device("cpu"), dtype=torch.float32
    )
    rows = []
    with torch.no_grad():
        for start, stop in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
            piece = torch.tensor(tokens[start:stop])
            rows.append(MODEL.logits(MODEL.hidden(piece, torch.arange(start, stop), [len(piece)], cache)))
    torch.testing.assert_close(torch.cat(rows), full_logits(tokens), atol=5e-5, rtol=0)
    assert cache.length == len(tokens)


@few
@given(prompt=prompts)
def test_greedy_text_is_the_argmax_of_the_full_forward(prompt: list[int]) -> None:
    new = generate(MODEL, [prompt], max_new_tokens=10, stop_ids=())[0]
    rows = full_logits(prompt + new)[len(prompt) - 1 : -1]
    best = rows.max(dim=-1).values
    assert len(new) == 10
    torch.testing.assert_close(rows[torch.arange(10), torch.tensor(new)], best, atol=5e-5, rtol=0)


@few
@given(batch=st.lists(prompts, min_size=1, max_size=6), temperature=st.sampled_from([0.0, 0.8]))
def test_a_result_is_the_same_in_any_batch(batch: list[list[int]], temperature: float) -> None:
    seeds = list(range(100, 100 + len(batch)))

    def run(chosen: list[int]) -> list[list[int]]:
        return generate(
            MODEL,
            [batch[i] for i in chosen],
            max_new_tokens=8,
            stop_ids={0},
            temperature=temperature,
            top_p=0.9,
            seeds=[seeds[i] for i in chosen],
        )

    together = run(list(range(len(batch))))
    backwards = run(list(range(len(batch)))[::-1])[::-1]
    alone = [run([i])[0] for i in range(len(batch))]
    assert together == backwards == alone


def test_samples_of_one_prompt_share_passes_and_are_what_each_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [[7, 8], [9], [7, 8]] * 4
    how: dict[str, Any] = {"max_new_tokens": 6, "stop_ids": {0}, "temperature": 0.6}
    alone = [
        list(stream(MODEL, prompt, generator=torch.Generator().manual_seed(seed), **how))
        for seed, prompt in enumerate(batch)
    ]
    passes = 0
    hidden = Llama.hidden

    def counted(self: Llama, *arguments: Any) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return hidden(self, *arguments)

    monkeypatch.setattr(Llama, "hidden", counted)
    assert generate(MODEL, batch, seeds=range(len(batch)), **how) == alone
    prefixes = {
        (*prompt, *new[:length]) for prompt, new in zip(batch, alone, strict=True) for length in range(len(new))
    }
    assert passes == len(prefixes) < sum(map(len, alone))


def test_without_gradient_the_model_computes_the_same_bits() -> None:
    tokens = torch.arange(1, 40)
    with_gradient = MODEL.hidden(tokens, torch.arange(39), [39])
    with torch.no_grad():
        assert torch.equal(MODEL.hidden(tokens, torch.arange(39), [39]), with_gradient)
    assert with_gradient.requires_grad


def test_decoding_stops_at_a_stop_token_and_keeps_it() -> None:
    free = generate(MODEL, [[1, 2, 3]], max_new_tokens=12, stop_ids=())[0]
    stop = free[4]
    stopped = generate(MODEL, [[1, 2, 3]], max_new_tokens=12, stop_ids={stop})[0]
    assert stopped == free[: free.index(stop) + 1]


def test_a_seed_repeats_its_sample_and_another_seed_differs() -> None:
    def sample(seed: int) -> list[int]:
        return generate(MODEL, [[5]], max_new_tokens=20, stop_ids=(), temperature=1.0, seeds=[seed])[0]

    assert sample(1) == sample(1) != sample(2)


def test_sampling_follows_the_probabilities_and_top_p_cuts_the_tail() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)
    all_of_them = choice_of(logits, temperature=1.0, top_p=1.0)
    drawn = Counter(all_of_them.draw(generator) for _ in range(4000))
    for token, probability in enumerate([0.5, 0.3, 0.15, 0.05]):
        assert abs(drawn[token] / 4000 - probability) < 5 * (probability * (1 - probability) / 4000) ** 0.5
    nucleus = choice_of(logits, temperature=1.0, top_p=0.75)
    assert {nucleus.draw(generator) for _ in range(500)} == {0, 1}
    only_best = choice_of(logits, temperature=1.0, top_p=0.0001)
    assert {only_best.draw(generator) for _ in range(20)} == {0}


def test_prompts_that_cannot_be_continued_are_refused_with_their_numbers() -> None:
    with pytest.raises(DataError, match="prompt 1 has 60 tokens; with 5 new tokens that is 65"):
        generate(MODEL, [[1], [1] * 60], max_new_tokens=5, stop_ids=())
    with pytest.raises(DataError, match="prompt 0 is empty"):
        generate(MODEL, [[]], max_new_tokens=5, stop_ids=())
    with pytest.raises(ValueError, match="one seed per prompt"):
        generate(MODEL, [[1]], max_new_tokens=5, stop_ids=(), temperature=1.0)
    with pytest.raises(ValueError, match="needs a generator"):
        next(stream(MODEL, [1], max_new_tokens=5, stop_ids=(), temperature=1.0))
