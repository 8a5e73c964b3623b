"""Shapes and budgets: whole steps, shares that sum to one, no source read more often than the recipe's cap even at worst."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.draft.interval import Estimate
from gristmill.draft.size import MAX_EPOCHS, SHAPES, Shape, Wish, budget_for, check_size, deepened, shape_for
from gristmill.errors import DataError, RecipeError
from gristmill.planning.budget import num_windows
from gristmill.tokens.mixture import Mixture


def in_minutes(minutes: float) -> Wish:
    return Wish(tokens_in_time=lambda shape: minutes * 60 * 3e10 / shape.flops_per_token)


ESTIMATES = st.builds(
    lambda value, down, up: Estimate(value=value, low=value * down, high=value * up),
    st.integers(5_000, 50_000_000),
    st.floats(0, 1),
    st.floats(1, 3),
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from("abcde"), ESTIMATES, min_size=1), st.sampled_from(SHAPES[:6]))
def test_no_source_is_read_too_often_at_the_lower_end(tokens: dict[str, Estimate], shape) -> None:
    try:
        budget = budget_for(shape, tokens, Wish())
    except DataError:
        return
    batch = budget.shape.global_batch_tokens
    assert batch % shape.seq_len == 0
    assert budget.stable_tokens % batch == budget.decay_tokens % batch == 0
    assert budget.stable_tokens > 0 < budget.decay_tokens
    assert sum(Decimal(repr(weight)) for weight in budget.weights.values()) == 1
    for name, weight in budget.weights.items():
        once = num_windows(int(tokens[name].low), shape.seq_len) * shape.seq_len
        if budget.steps > 20 and weight > 1e-4 and once > 20 * shape.seq_len:
            assert weight * budget.total_tokens / once <= 5


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdefghijklm"), st.integers(200, 200_000), min_size=2),
    st.sampled_from([128, 512, 1024]),
    st.sampled_from([Wish(), in_minutes(0.1), in_minutes(10)]),
)
def test_each_source_of_the_mixture_is_drawn_in_each_stage_and_the_others_are_named(
    tokens: dict[str, int], context: int, wish: Wish
) -> None:
    known = {name: Estimate(value=size, low=size, high=size) for name, size in tokens.items()}
    shape = SHAPES[0].with_context(context)
    try:
        budget = budget_for(shape, known, wish)
    except DataError:
        return
    assert {*budget.weights} | {*budget.too_small} == {*tokens}
    assert len(budget.weights) + len(budget.too_small) == len(tokens)
    assert max(tokens, key=lambda name: tokens[name]) in budget.weights
    mixture = Mixture([repr(weight) for weight in budget.weights.values()])
    for number in range(len(budget.weights)):
        for stage in (budget.stable_tokens, budget.decay_tokens):
            assert mixture.count_before(number, stage // context) >= 1


def test_a_small_source_among_large_ones_is_trained_on_and_one_of_a_single_sequence_is_named() -> None:
    sizes = {"books": 60_000, "subtitles": 1_900, "docx": 700}
    known = {name: Estimate(value=size, low=size, high=size) for name, size in sizes.items()}
    budget = budget_for(SHAPES[0].with_context(512), known, Wish())
    assert budget.too_small == ("docx",)
    assert budget.weights["subtitles"] * budget.decay_tokens >= 512


def test_more_text_or_time_makes_a_larger_model_and_a_size_is_kept() -> None:
    assert [shape_for(10.0**size, Wish()).parameters for size in range(4, 11)] == sorted(
        shape_for(10.0**size, Wish()).parameters for size in range(4, 11)
    )
    minutes = [shape_for(1e8, in_minutes(m)).parameters for m in (1, 30, 600)]
    assert minutes == sorted(minutes)
    assert minutes[0] < minutes[-1]
    for parameters in (300_000, 1_000_000, 10_000_000, 40_000_000):
        assert shape_for(1e9, Wish(parameters=parameters)).parameters == pytest.approx(parameters, rel=0.2)
    with pytest.raises(RecipeError, match="a model of that size wants"):
        shape_for(1e5, Wish(parameters=100_000_000))


@given(st.floats(4, 10))
def test_a_size_is_refused_at_once_or_kept(digits: float) -> None:
    parameters = round(10**digits)
    if not 150_000 < parameters < 386_000_000:
        with pytest.raises(RecipeError, match="init makes models of 158k to 368M") as refused:
            check_size(parameters)
        assert ("shipped recipe" in str(refused.value)) == (parameters > 386_000_000)
    elif 151_000 < parameters < 385_000_000:
        check_size(parameters)
        assert shape_for(1e12, Wish(parameters=parameters)).parameters == pytest.approx(parameters, rel=0.4)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SHAPES[:5]), st.floats(1e4, 1e8), st.floats(0.1, 1000))
def test_layers_are_added_only_where_all_passes_fit_and_parameters_are_no_more_than_tokens(
    shape: Shape, tokens: float, minutes: float
) -> None:
    wish, drawn = in_minutes(minutes), MAX_EPOCHS * tokens
    found = deepened(shape, tokens, wish)
    added = found.layers - shape.layers
    assert found.with_layers(shape.layers) == shape
    assert 0 <= added <= shape.layers
    assert not added or (found.parameters <= drawn <= wish.most_tokens(found))
    if added < shape.layers:
        next_one = found.with_layers(found.layers + 1)
        assert next_one.parameters > drawn or wish.most_tokens(next_one) < drawn
    assert deepened(shape, tokens, Wish()) == shape
