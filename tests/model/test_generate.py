"""Decoding: cached equals full, independent of the batch, reproducible by seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import DataError
from gristmill.model.config import LlamaConfig
from gristmill.model.generate import choice_of, generate, stream
from gristmill.model.inference import InferenceModel
from gristmill.model.transformer import Llama
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
    ready = InferenceModel(MODEL)
    cache = ready.empty_cache(len(tokens))
    ends = [*cuts, len(tokens)]
    rows = [ready.advance([cache], [tokens[start:stop]]) for start, stop in zip([0, *cuts], ends, strict=True)]
    expected = full_logits(tokens)[[end - 1 for end in ends]]
    torch.testing.assert_close(torch.cat(rows), expected, atol=5e-5, rtol=0)
    assert cache.length == len(tokens)


@few
@given(batch=st.lists(st.lists(st.integers(0, 60), min_size=6, max_size=30), min_size=1, max_size=5), data=st.data())
def test_sequences_of_any_lengths_advance_together_as_if_alone(batch: list[list[int]], data: st.DataObject) -> None:
    """Prompts of some and single tokens of others in one pass; ties of shape are drawn, so buffers are kept and made anew."""
    ready = InferenceModel(MODEL)
    caches = [ready.empty_cache(len(tokens)) for tokens in batch]
    done = [0] * len(batch)
    while waiting := [i for i, tokens in enumerate(batch) if done[i] < len(tokens)]:
        turn = data.draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
        sizes = [data.draw(st.integers(1, len(batch[i]) - done[i])) for i in turn]
        pieces = [batch[i][done[i] : done[i] + size] for i, size in zip(turn, sizes, strict=True)]
        rows = ready.advance([caches[i] for i in turn], pieces)
        for row, i, size in zip(rows, turn, sizes, strict=True):
            done[i] += size
            torch.testing.assert_close(row, full_logits(batch[i][: done[i]])[-1], atol=5e-5, rtol=0)


def test_heads_of_every_grouping_and_an_untied_head_compute_the_same() -> None:
    tokens = list(range(1, 13))
    for heads, groups, tied in [(4, 4, True), (4, 1, False), (6, 3, True), (1, 1, False)]:
        config = replace(CONFIG, num_attention_heads=heads, num_key_value_heads=groups, tie_word_embeddings=tied)
        model = init_weights(Llama(config), heads)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name:
                    weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
            expected = model.logits(model.hidden(torch.tensor(tokens), torch.arange(12), [12]))
        ready = InferenceModel(model)
        cache = ready.empty_cache(12)
        found = torch.cat([ready.advance([cache], [[token]]) for token in tokens])
        torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)


def test_a_piece_that_has_no_room_is_refused() -> None:
    ready = InferenceModel(MODEL)
    cache = ready.empty_cache(4)
    ready.advance([cache], [[1, 2, 3]])
    with pytest.raises(DataError, match=r"2 tokens cannot follow the 3 tokens.* room for 1"):
        ready.advance([cache], [[1, 2]])
    with pytest.raises(DataError, match="a piece of 0 tokens"):
        ready.advance([cache], [[]])


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
        list(stream(InferenceModel(MODEL), prompt, generator=torch.Generator().manual_seed(seed), **how))
        for seed, prompt in enumerate(batch)
    ]
    passes = 0
    advance = InferenceModel.advance

    def counted(self: InferenceModel, *arguments: Any) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return advance(self, *arguments)

    monkeypatch.setattr(InferenceModel, "advance", counted)
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


@few
@given(
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 2), min_size=1, max_size=60),
    temperature=st.sampled_from([0.3, 1.0, 3.0]),
    top_p=st.sampled_from([0.2, 0.9, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_a_draw_is_what_a_whole_sort_would_give(
    logits: list[float], temperature: float, top_p: float, seed: int
) -> None:
    """Ties and hopeless tokens included: half steps over a range of 40 nats."""
    probabilities = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, 0)
    ordered, ids = torch.sort(probabilities, descending=True, stable=True)
    kept = max(1, int((ordered.cumsum(0) - ordered < top_p).sum()))
    sums, expected = ordered.cumsum(0)[:kept], []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        index = int((sums <= torch.rand((), generator=generator, dtype=torch.float64) * sums[-1]).sum())
        expected.append(int(ids[min(index, kept - 1)]))
    choice = choice_of(torch.tensor(logits), temperature=temperature, top_p=top_p)
    generator = torch.Generator().manual_seed(seed)
    assert [choice.draw(generator) for _ in range(50)] == expected


def test_prompts_that_cannot_be_continued_are_refused_with_their_numbers() -> None:
    with pytest.raises(DataError, match="prompt 1 has 60 tokens; with 5 new tokens that is 65"):
        generate(MODEL, [[1], [1] * 60], max_new_tokens=5, stop_ids=())
    with pytest.raises(DataError, match="prompt 0 is empty"):
        generate(MODEL, [[]], max_new_tokens=5, stop_ids=())
    with pytest.raises(ValueError, match="one seed per prompt"):
        generate(MODEL, [[1]], max_new_tokens=5, stop_ids=(), temperature=1.0)
    with pytest.raises(ValueError, match="needs a generator"):
        next(stream(InferenceModel(MODEL), [1], max_new_tokens=5, stop_ids=(), temperature=1.0))
