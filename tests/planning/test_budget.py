"""No source is drawn beyond its cap in silence: tokens asked, unique tokens, epochs along the stages."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import RecipeError
from gristmill.planning.budget import (
    Reading,
    Selection,
    SelectionBudget,
    asked_readings,
    asked_tokens,
    check_epochs,
    epochs_read,
    token_budget,
)
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.training import Pretrain

WEB, BOOKS, TABLE = Selection("web"), Selection("books"), Selection("facts-table")
LONG_BOOKS = Selection("books", 512)
# Windows of 256 and of 512 read all but the last token of these.
ENOUGH = {WEB: 1_024_001, BOOKS: 204_801, LONG_BOOKS: 102_401, TABLE: 102_401}


def row_of(rows: list[SelectionBudget], selection: Selection) -> SelectionBudget:
    return next(row for row in rows if row.selection == selection)


def budget_of(
    recipe: Recipe, unique: Mapping[Selection, int], *, drawn_before: Sequence[Reading] = ()
) -> list[SelectionBudget]:
    return token_budget(recipe.pretrain, list(recipe.sources), unique, drawn_before=drawn_before)


def checked(
    recipe: Recipe, unique: Mapping[Selection, int], *, drawn_before: Sequence[Reading] = ()
) -> list[SelectionBudget]:
    return check_epochs(recipe.pretrain, list(recipe.sources), unique, drawn_before=drawn_before)


def with_stages(small: dict[str, Any], *mixtures: dict[str, float] | list[dict[str, Any]], tokens: int) -> Recipe:
    """The small recipe with one stage for each mixture, all of the same length."""
    changed = copy.deepcopy(small)
    changed["pretrain"]["stages"] = [
        {"name": f"s{number}", "tokens": tokens, "seq_len": 256, "mixture": mixture}
        for number, mixture in enumerate(mixtures, 1)
    ]
    changed["pretrain"] |= {"warmup_tokens": 0, "decay_tokens": 1024}
    return Recipe.model_validate(changed)


def test_asked_tokens_are_exactly_weight_times_tokens(small: dict[str, Any]) -> None:
    assert asked_tokens(Recipe.model_validate(small).pretrain.stages) == {
        WEB: (614_400, 102_400),
        BOOKS: (204_800, 0),
        LONG_BOOKS: (0, 51_200),
        TABLE: (0, 51_200),
    }


weights = st.lists(st.integers(1, 10**6), min_size=1, max_size=5)


@given(weights, st.integers(1, 10**10))
@settings(deadline=None, max_examples=60)
def test_what_a_stage_asks_adds_up_to_its_tokens_but_for_rounding(parts: list[int], steps: int) -> None:
    shares = [Decimal(part * 10**6 // sum(parts)) / 10**6 for part in parts]
    shares[0] += 1 - sum(shares)
    data = {f"s{index}": float(share) for index, share in enumerate(shares) if share}
    stage = {"name": "s", "tokens": steps * 1024, "seq_len": 1024, "mixture": data}
    pretrain = {
        "stages": [stage], "global_batch_tokens": 1024, "warmup_tokens": 0, "decay_tokens": 1024,
        "optimizer": {"peak_lr": 1e-3}, "watch": {"every_tokens": 1024}, "checkpoint_every_tokens": 1024,
    }  # fmt: skip
    asked = asked_tokens(Pretrain.model_validate(pretrain).as_changed().stages)
    assert abs(sum(row[0] for row in asked.values()) - steps * 1024) <= len(asked)


def test_epochs_are_counted_along_the_stages(small: dict[str, Any]) -> None:
    recipe = with_stages(small, {"web": 1.0}, {"web": 0.5, "books": 0.5}, tokens=1_024_000)
    rows = budget_of(recipe, ENOUGH)
    assert row_of(rows, WEB).epochs == (1.0, 1.5)
    assert row_of(rows, BOOKS).epochs == (0.0, 2.5)


def test_long_documents_were_read_by_earlier_draws_of_the_whole_source_too(small: dict[str, Any]) -> None:
    row = row_of(budget_of(Recipe.model_validate(small), ENOUGH), LONG_BOOKS)
    assert row.epochs == (1.0, 1.5)


def test_draws_of_long_documents_count_for_the_whole_source(small: dict[str, Any]) -> None:
    row = row_of(budget_of(Recipe.model_validate(small), ENOUGH), BOOKS)
    assert row.epochs == (1.0, 1.25)


def test_what_was_drawn_is_counted_like_what_is_asked(small: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(small)
    drawn = [reading for readings in asked_readings(recipe.pretrain.stages) for reading in readings]
    rows = budget_of(recipe, ENOUGH)
    assert epochs_read(drawn, ENOUGH) == {
        row.selection: pytest.approx(row.epochs[-1]) for row in rows if row.total_tokens
    }
    assert epochs_read(drawn, ENOUGH)[LONG_BOOKS] > 51_200 / ENOUGH[LONG_BOOKS]


def test_only_whole_windows_are_read_so_a_pass_through_them_is_an_epoch() -> None:
    assert epochs_read([Reading(WEB, 100, 900)], {WEB: 191}) == {WEB: 9.0}
    assert epochs_read([Reading(WEB, 100, 900)], {WEB: 201}) == {WEB: 4.5}
    assert epochs_read([Reading(WEB, 100, 900), Reading(WEB, 10, 190)], {WEB: 191}) == {WEB: 10.0}


def test_a_source_that_no_stage_draws_is_listed_as_unused(small: dict[str, Any]) -> None:
    rows = budget_of(with_stages(small, {"web": 1.0}, tokens=1024), ENOUGH)
    assert [(row.selection, row.verdict) for row in rows] == [(WEB, "fine"), (BOOKS, "unused"), (TABLE, "unused")]


@pytest.mark.parametrize(
    ("unique", "verdict"),
    [(256_001, "fine"), (256_000, "repeated"), (204_801, "repeated"), (204_800, "too many"), (256, "too short")],
)
def test_four_epochs_are_fine_five_are_repeated_and_more_are_too_many(
    small: dict[str, Any], unique: int, verdict: str
) -> None:
    rows = budget_of(with_stages(small, {"web": 1.0}, tokens=1_024_000), ENOUGH | {WEB: unique})
    assert row_of(rows, WEB).verdict == verdict


def test_the_cap_holds_at_exactly_five_and_refuses_one_token_less(small: dict[str, Any]) -> None:
    recipe = with_stages(small, {"web": 1.0}, tokens=1_024_000)
    checked(recipe, ENOUGH | {WEB: 204_801})
    with pytest.raises(RecipeError):
        checked(recipe, ENOUGH | {WEB: 204_800})


def test_the_refusal_names_source_stage_numbers_and_the_line_to_write(small: dict[str, Any]) -> None:
    recipe = with_stages(small, {"web": 1.0}, {"web": 0.6, "books": 0.4}, tokens=1_024_000)
    with pytest.raises(RecipeError) as caught:
        checked(recipe, ENOUGH | {WEB: 300_100, BOOKS: 1_000_000})
    assert str(caught.value) == (
        "pretrain.stages[s2]: web would be read 5.46 times; the cap is 5 epochs.\n"
        "  This stage reads 614,400 tokens of it, all stages ask 1,638,400; it has 300,100 unique tokens, of "
        "which windows of 256 read 300,032.\n"
        "  This stage may read 476,159 tokens of it (a weight of 0.464 instead of 0.6): lower its weight, add text, or allow it under "
        "pretrain:\n"
        '    allow_epochs: {web: {max: 5.5, reason: "why repeating it is worth it"}}'
    )


def test_the_weight_and_the_line_that_the_refusal_offers_are_accepted(small: dict[str, Any]) -> None:
    unique = ENOUGH | {WEB: 300_100, BOOKS: 1_000_000}
    checked(with_stages(small, {"web": 1.0}, {"web": 0.464, "books": 0.536}, tokens=1_024_000), unique)
    small["pretrain"]["allow_epochs"]["web"] = {"max": 5.5, "reason": "why repeating it is worth it"}
    recipe = with_stages(small, {"web": 1.0}, {"web": 0.6, "books": 0.4}, tokens=1_024_000)
    assert row_of(checked(recipe, unique), WEB).verdict == "allowed"


def test_an_allowance_is_a_cap_of_its_own(small: dict[str, Any]) -> None:
    recipe = with_stages(small, {"facts-table": 1.0}, tokens=1_024_000)
    checked(recipe, ENOUGH | {TABLE: 128_001})
    with pytest.raises(RecipeError, match="the cap is 8 epochs"):
        checked(recipe, ENOUGH | {TABLE: 128_000})


def test_every_source_beyond_its_cap_is_named(small: dict[str, Any]) -> None:
    recipe = with_stages(small, {"web": 0.5, "books": 0.5}, tokens=1_024_000)
    with pytest.raises(RecipeError, match=r"(?s)web would be read 51\.28 .*books would be read 5\.13 "):
        checked(recipe, {WEB: 10_000, BOOKS: 100_000})


def test_what_the_lineage_drew_before_counts(small: dict[str, Any]) -> None:
    recipe = with_stages(small, {"web": 1.0}, tokens=1_024_000)
    unique = ENOUGH | {WEB: 1_024_001}
    assert row_of(checked(recipe, unique, drawn_before=[Reading(WEB, 256, 4_096_000)]), WEB).epochs == (5.0,)
    with pytest.raises(RecipeError, match=r"would be read 5\.00 times"):
        checked(recipe, unique, drawn_before=[Reading(WEB, 256, 4_096_256)])


def test_what_was_read_at_another_length_counts_by_the_windows_of_that_length(small: dict[str, Any]) -> None:
    recipe = with_stages(small, {"web": 1.0}, tokens=1024)
    unique = ENOUGH | {WEB: 1_025}  # four windows of 256, two of 400
    assert row_of(budget_of(recipe, unique, drawn_before=[Reading(WEB, 400, 1_600)]), WEB).epochs == (3.0,)


def test_unknown_long_documents_are_at_least_as_repeated_as_if_the_whole_source_were_long(
    small: dict[str, Any],
) -> None:
    unknown = {key: value for key, value in ENOUGH.items() if key != LONG_BOOKS}
    row = row_of(checked(Recipe.model_validate(small), unknown), LONG_BOOKS)
    assert row.verdict == "unknown"
    assert row.is_lower_bound
    assert row.epochs[-1] == 1.25
    with pytest.raises(RecipeError, match="it has at most 40,000 unique tokens"):
        checked(Recipe.model_validate(small), unknown | {BOOKS: 40_000})


@given(st.integers(513, 204_801))
@settings(deadline=None, max_examples=60)
def test_the_lower_bound_is_never_above_the_truth(long_tokens: int) -> None:
    recipe = Recipe.model_validate(
        yaml.safe_load((Path(__file__).parents[1] / "recipe" / "small.yaml").read_text(encoding="utf-8"))
    )
    known = row_of(budget_of(recipe, ENOUGH | {LONG_BOOKS: long_tokens}), LONG_BOOKS)
    bound = row_of(budget_of(recipe, {key: ENOUGH[key] for key in (WEB, BOOKS, TABLE)}), LONG_BOOKS)
    assert bound.epochs[-1] <= known.epochs[-1] * (1 + 1e-12)


def test_a_selection_without_a_single_document_is_refused(small: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="the stages ask 51,200 tokens of books ≥ 512 tokens, which has none"):
        checked(Recipe.model_validate(small), ENOUGH | {LONG_BOOKS: 0})


def test_a_selection_without_a_single_window_is_refused(small: dict[str, Any]) -> None:
    with pytest.raises(
        RecipeError,
        match=r"stages\[decay\]: books ≥ 512 tokens has 512 unique tokens; one window of seq_len 512 takes 513\.",
    ):
        checked(Recipe.model_validate(small), ENOUGH | {LONG_BOOKS: 512})
    unknown = {key: value for key, value in ENOUGH.items() if key != LONG_BOOKS}
    with pytest.raises(RecipeError, match="books ≥ 512 tokens has at most 512 unique tokens"):
        checked(Recipe.model_validate(small), unknown | {BOOKS: 512})


def test_plain_tuples_serve_as_selections(small: dict[str, Any]) -> None:
    unique = {
        ("web", None): 1_024_001,
        ("books", None): 204_801,
        ("books", 512): 102_401,
        ("facts-table", None): 102_401,
    }
    assert budget_of(Recipe.model_validate(small), unique) == budget_of(Recipe.model_validate(small), ENOUGH)  # type: ignore[arg-type]
